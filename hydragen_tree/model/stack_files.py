"""Stacks on the disk: blocks of all layers in one order, of which as many are loaded as fit.

A stack is a directory as transformers writes it, but for the weights: one safetensors file with all
that is no stacked layer under its usual name (embeddings, norms, biases), and the blocks, named
`block.NUMBER.LAYER`, each one run of bytes (`sign_blocks`). The number is the block's place in the
order: the first blocks of all layers come first, then whatever is worth most for its bytes. A layer
has its own blocks in the order in which they were taken off it, so that the first so many blocks of
the file are a model. `quantization_config` says `sign_stack`, so that others refuse it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydragen_tree import files
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.sign_blocks import SignBlock
from hydragen_tree.model.stack_linear import StackLinear
from hydragen_tree.model.weights import plain_config, with_tensors
from hydragen_tree.units import size

METHOD = "sign_stack"
_FILE = "model.safetensors"
_PREFIX = "block."


class StackPart(NamedTuple):
    """How much of a stack is loaded.

    Attributes:
        blocks: the first so many.
        of: blocks there are.
        n_bytes: of all weights once they are loaded, whatever is no block included.
        least_bytes: the same with one block of each layer, which is the least that can be loaded.
    """

    blocks: int
    of: int
    n_bytes: int
    least_bytes: int

    def __str__(self) -> str:
        return f"{self.blocks:,} of {self.of:,} blocks"


def write_stack(
    folder: Path, others: Mapping[str, Tensor], blocks: Iterable[tuple[str, SignBlock]]
) -> None:
    """Writes the weights of a stack.

    Args:
        folder: there already.
        others: tensors that are no stacked layer's weights, by name.
        blocks: each with its layer's name, in the order in which they are to be loaded.
    """
    tensors = {name: tensor.contiguous() for name, tensor in others.items()}
    for number, (layer, block) in enumerate(blocks):
        tensors[f"{_PREFIX}{number:06d}.{layer}"] = block.to_bytes().cpu()
    with files.replacing(folder / _FILE) as scratch:
        save_file(tensors, scratch, metadata={"format": "pt"})


def mark_config(folder: Path) -> None:
    """Says in a directory's config.json that its weights are a stack."""
    path = folder / "config.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries["quantization_config"] = {"quant_method": METHOD}
    files.write_text(path, json.dumps(entries, indent=2) + "\n")


def choose_part(
    model: str, path: str, dtype: torch.dtype, memory_bytes: int | None = None
) -> StackPart:
    """As much of a stack as fits; reads headers, no tensors.

    Args:
        model: as the user gave it.
        path: the stack's directory.
        dtype: of what is no block, once loaded.
        memory_bytes: for all weights; None: all blocks.

    Raises:
        ModelError: the stack is not in a directory, or has no blocks.
        InputError: not even one block of each layer fits.
    """
    with _open(model, path) as tensors:
        sizes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    stored = [(_layer(name), n) for name, (n, *_) in sorted(sizes.items()) if _is_block(name)]
    if not stored:
        raise ModelError("has no blocks; stack the model anew", setting="model", value=model)
    rest = (torch.Size(shape).numel() for name, shape in sizes.items() if not _is_block(name))
    total = sum(rest) * dtype.itemsize
    fewest = len({layer for layer, _ in stored})
    least = total + sum(n for _, n in stored[:fewest])
    if memory_bytes is not None and memory_bytes < least:
        raise InputError(
            f"expected at least {least} bytes ({size(least)}): {model} needs them for what is not "
            "stacked and the first block of each layer",
            setting="weights_memory",
            value=memory_bytes,
        )
    blocks = 0
    for _, n in stored:
        if memory_bytes is not None and total + n > memory_bytes:
            break
        blocks, total = blocks + 1, total + n
    return StackPart(blocks, len(stored), total, least)


def load_stack(
    model: str, path: str, part: StackPart, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads part of a stack; stacked layers are on the device, all else is not yet.

    Args:
        model: as the user gave it.
        path: the stack's directory.
        part: see `choose_part`.
        dtype: of what is no block.
        device: where the model will be.

    Returns:
        The model, and what transformers found in the files.

    Raises:
        ModelError: blocks that fit no layer.
    """
    config = plain_config(path)
    skeleton = without_weights(config)
    modules = dict(skeleton.named_modules())
    stacks: dict[str, list[SignBlock]] = {}
    tensors: dict[str, Tensor] = {}
    with _open(model, path) as stored:
        names = sorted(stored.keys())
        for name in [name for name in names if _is_block(name)][: part.blocks]:
            layer = modules.get(_layer(name))
            if not isinstance(layer, nn.Linear):
                raise ModelError(
                    f"{name} is of no linear layer; stack the model anew",
                    setting="model",
                    value=model,
                )
            block = stored.get_tensor(name).to(device)
            sizes = layer.out_features, layer.in_features
            stacks.setdefault(_layer(name), []).append(SignBlock.from_bytes(block, *sizes))
        tensors |= {name: stored.get_tensor(name) for name in names if not _is_block(name)}
    for name in stacks:
        tensors[f"{name}.weight"] = torch.zeros((), dtype=dtype).expand(modules[name].weight.shape)
    loaded, found = with_tensors(type(skeleton), config, tensors, dtype)
    for name, blocks in stacks.items():
        bias = loaded.get_submodule(name).bias
        bias = None if bias is None else bias.detach().to(device)
        loaded.set_submodule(name, StackLinear(blocks, bias))
    return loaded, found


def _open(model: str, path: str) -> Any:
    file = Path(path, _FILE)
    if not file.is_file():
        raise ModelError(
            f"a stack of blocks, which is read from a directory with {_FILE}",
            setting="model",
            value=model,
        )
    return safe_open(file, framework="pt")


def _is_block(name: str) -> bool:
    return name.startswith(_PREFIX)


def _layer(name: str) -> str:
    return name.split(".", 2)[2]
