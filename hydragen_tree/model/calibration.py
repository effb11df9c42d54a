"""What rounding a linear layer costs a model, from some text: a number for each input and output.

A layer whose weights change by D changes its output by D x, and the loss of the text by about half
of (g . D x) squared, summed over tokens, where g is the loss's gradient at the output (the
Gauss-Newton approximation, with the text itself as the label). With the inputs x and the gradients
g taken as independent of each other and each number for itself:

    loss(D) ~ 1/2 sum over i, j of  mean(g_i^2) D_ij^2 mean(x_j^2)      nats a token
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from hydragen_tree.errors import InputError

_LEAST = 1e-6  # of the mean: what a number is taken for that no token has moved


class Sensitivity(NamedTuple):
    """How much a layer's inputs and outputs weigh.

    Attributes:
        inputs: `[in]` float32, mean square of each input.
        outputs: `[out]` float32, mean square of the loss's gradient at each output.
    """

    inputs: Tensor
    outputs: Tensor

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """For rows and columns of the weights: scaled, their squared error is twice the loss."""
        rows, columns = (x.clamp(min=_LEAST * float(x.mean()) or 1.0).sqrt() for x in self[::-1])
        return rows, columns


def text_rows(tokenizer: Any, text: str, tokens: int, rows: int) -> Tensor:
    """Text as equally long rows of tokens, from its beginning.

    Args:
        tokenizer: the model's.
        text: as long as it may be; what makes no whole row is left out.
        tokens: of a row.
        rows: at the most.

    Returns:
        `[rows, tokens]` int64.

    Raises:
        InputError: not even one row.
    """
    ids = tokenizer(text, verbose=False)["input_ids"]
    n = min(rows, len(ids) // tokens)
    if n < 1:
        raise InputError(f"expected at least {tokens} tokens, got {len(ids)}", setting="text")
    return torch.tensor(ids[: n * tokens]).view(n, tokens)


def calibrate(
    model: PreTrainedModel, layers: Mapping[str, nn.Module], rows: Tensor
) -> dict[str, Sensitivity]:
    """Runs text through a model, forth and back, and looks at some of its linear layers.

    Args:
        model: with its own attention; its weights need no gradients.
        layers: of the model, by name.
        rows: `[rows, tokens]` int64; one goes through at a time.

    Returns:
        By name, on the model's device.
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def add(into: dict[str, Tensor], name: str, x: Tensor) -> None:
        squares = x.detach().flatten(0, -2).float().square().sum(0)
        into[name] = into[name] + squares if name in into else squares

    def look(name: str, _: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        add(inputs, name, given[0])
        out.register_hook(partial(add, outputs, name))

    model.requires_grad_(False).eval()
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(look, name)))
        for row in rows.to(model.device):
            start = model.get_input_embeddings()(row[None]).detach().requires_grad_()
            _losses(model(inputs_embeds=start, use_cache=False).logits, row).sum().backward()
    if unused := sorted(layers.keys() - outputs.keys()):
        raise InputError(f"layer {unused[0]} was not met by any token", setting="text")
    n = rows.numel()
    return {name: Sensitivity(inputs[name] / n, outputs[name] / n) for name in layers}


@torch.inference_mode()
def perplexity(model: PreTrainedModel, rows: Tensor) -> float:
    """How unsure a model is of text: exp of the mean loss, each row by itself.

    Args:
        model: with its own attention.
        rows: `[rows, tokens]` int64; one goes through at a time.
    """
    losses = [
        _losses(model(input_ids=row[None], use_cache=False).logits, row)
        for row in rows.to(model.device)
    ]
    return math.exp(float(torch.stack(losses).double().mean()))


def _losses(logits: Tensor, row: Tensor) -> Tensor:
    """Of every token but the first: `[tokens - 1]` float32."""
    return functional.cross_entropy(logits[0, :-1].float(), row[1:], reduction="none")
