"""A model taken apart into a stack of blocks: which block is worth most for its bytes.

The paper (arXiv 2410.23918) measures for each block the perplexity of the model without it and
those above it in its layer: thousands of passes. Here the loss that a layer's rounding costs is
estimated from one pass forth and back (`calibration`), and a block is worth what it takes off that
loss. First come the first blocks of all layers, then always the block that takes off most a byte.
"""

import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydragen_tree.model.calibration import Sensitivity, calibrate
from hydragen_tree.model.quantising import quantisable
from hydragen_tree.model.sign_blocks import SignBlock, decompose, usual_rank
from hydragen_tree.model.stack_files import mark_config, write_stack


class Ranked(NamedTuple):
    """A block in a stack.

    Attributes:
        layer: its name.
        block: the block.
        gain: what it takes off the estimated loss, in nats a token.
    """

    layer: str
    block: SignBlock
    gain: float


def stack_model(
    model: PreTrainedModel, rows: Tensor, *, blocks: int = 8, rank: int | None = None
) -> list[Ranked]:
    """Takes a model's linear layers apart; the model is left as it was.

    Args:
        model: with its own attention; float32 is best.
        rows: `[rows, tokens]` int64, text to calibrate by.
        blocks: of each layer.
        rank: of all blocks; None: by each layer's size.

    Returns:
        The blocks of all layers in the order in which they are to be loaded; none where there are
        no layers that are taken apart.
    """
    layers = dict(quantisable(model))
    if not layers:
        return []
    sensitivities = calibrate(model, layers, rows)
    stacks = {
        name: list(_take_apart(name, layer, sensitivities[name], blocks, rank))
        for name, layer in layers.items()
    }
    return list(_by_worth(stacks))


def write_model(
    folder: Path, model: PreTrainedModel, tokenizer: Any, stack: list[Ranked], dtype: torch.dtype
) -> None:
    """Writes a stack with all that a model's directory has.

    Args:
        folder: made if it is not there; its files are replaced.
        model: that has been taken apart.
        tokenizer: the model's.
        stack: its blocks in order.
        dtype: of what is not stacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stacked = {f"{ranked.layer}.weight" for ranked in stack}
    met: set[int] = set()  # tied weights are written once
    others = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in stacked and id(tensor) not in met:
            met.add(id(tensor))
            others[name] = tensor.detach().to("cpu", dtype)
    write_stack(folder, others, ((ranked.layer, ranked.block) for ranked in stack))
    model.config.save_pretrained(folder)
    mark_config(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _take_apart(
    name: str, layer: nn.Linear, sensitivity: Sensitivity, blocks: int, rank: int | None
) -> Iterator[Ranked]:
    weight, (rows, columns) = layer.weight.detach(), sensitivity.scales
    left = float((weight.float() * rows[:, None] * columns).double().square().sum())
    rank = rank or usual_rank(*weight.shape)
    for block, remaining in decompose(weight, rows, columns, rank, blocks):
        yield Ranked(name, block, (left - remaining) / 2)
        left = remaining


def _by_worth(stacks: Mapping[str, list[Ranked]]) -> Iterator[Ranked]:
    def entry(name: str, place: int) -> tuple[bool, float, str, int]:
        ranked = stacks[name][place]
        return place > 0, -ranked.gain / ranked.block.n_bytes, name, place

    heap = [entry(name, 0) for name in stacks]
    heapq.heapify(heap)
    while heap:
        *_, name, place = heapq.heappop(heap)
        yield stacks[name][place]
        if place + 1 < len(stacks[name]):
            heapq.heappush(heap, entry(name, place + 1))
