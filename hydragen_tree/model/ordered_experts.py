"""Mixture of experts on a CPU as the batch-invariant mode needs them.

Which experts a token has, and what they give, depends on that token alone. Experts are products in
C; the code of a router, and of the layer around it, runs with functions of one order
(`ordered_functions`).
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from hydragen_kernels import ordered_layers
from hydragen_kernels.ordered_layers import Form
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.expert_layers import activated, expert_layers, name_of_up
from hydragen_tree.model.ordered_functions import RowForms

IMPLEMENTATION = "hydragen_tree_ordered"

_PANELS = "_tree_panels"  # of a layer of experts, and of a router's weights, on a CPU


@dataclass(frozen=True, eq=False, slots=True)
class _Panels:
    """A product of a layer's experts.

    Attributes:
        weights: of each expert, as `ordered_layers.product` reads them.
        biases: of each expert, or None.
        outputs: of each.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    outputs: int

    @classmethod
    def taken(cls, layer: Any, name: str) -> "_Panels":
        """Those of a layer, which keeps no others."""
        weight = getattr(layer, name).detach()
        weight = weight.mT if layer.is_transposed else weight
        bias = getattr(layer, f"{name}_bias", None)
        biases = [None] * len(weight) if bias is None else [*bias.detach()]
        setattr(layer, name, None)
        return cls([ordered_layers.pack(one) for one in weight], biases, weight.shape[1])

    def times(self, expert: int, x: Tensor) -> Tensor:
        """`[rows, inputs]` to `[rows, outputs]`."""
        weight, bias = self.weights[expert], self.biases[expert]
        return ordered_layers.product(x, weight, self.outputs, bias)


def order_experts(model: PreTrainedModel) -> int:
    """Has a model's experts computed in C on a CPU, in place, where transformers lets them be.

    Args:
        model: on a CPU.

    Returns:
        How many layers have experts that are.
    """
    layers = expert_layers(model)
    if not layers:
        return 0
    for layer in layers:
        both = (_Panels.taken(layer, name) for name in (name_of_up(layer), "down_proj"))
        setattr(layer, _PANELS, tuple(both))
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts)
    model.set_experts_implementation(IMPLEMENTATION)
    return len(layers)


@hidden_from_compiler
def _experts(layer: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """transformers' signature of experts: `[tokens, width]`, chosen and shares `[tokens, k]`.

    What a token's experts give is added up in float32, in the order of its choices.
    """
    up: _Panels
    down: _Panels
    up, down = getattr(layer, _PANELS)
    tokens, choices = chosen.shape
    experts = chosen.detach().numpy().ravel()
    order = np.argsort(experts, kind="stable")
    bounds = np.searchsorted(experts[order], np.arange(len(up.weights) + 1)).tolist()
    y = x.new_zeros(tokens * choices, down.outputs)
    for expert, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        pairs = order[start:stop]
        inner = up.times(expert, x[torch.from_numpy(pairs // choices)])
        y[torch.from_numpy(pairs)] = down.times(expert, activated(layer, inner))
    if getattr(layer, "has_post_expert_norm", False):
        y = layer.post_expert_norm(y)
    given = y.view(tokens, choices, down.outputs).float() * shares.float()[..., None]
    total = given[:, 0]
    for choice in range(1, choices):
        total = total + given[:, choice]
    return total.to(x.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    panels = getattr(weight, _PANELS, None)
    if panels is None:
        panels = ordered_layers.pack(weight.detach())
        setattr(weight, _PANELS, panels)
    return ordered_layers.product(x, panels, weight.shape[0], bias)


def _softmax(x: Tensor) -> Tensor:
    return ordered_layers.probabilities(x.reshape(-1, x.shape[-1])).view(x.shape)


def _sums(x: Tensor) -> Tensor:
    """Sums of rows, which are halved and added to each other until one number is left."""
    x = x.float()
    while (width := x.shape[-1]) > 1:
        half = width // 2
        pairs = x[..., :half] + x[..., half : 2 * half]
        x = torch.cat([pairs, x[..., 2 * half :]], -1) if width % 2 else pairs
    return x


_OF_NUMBERS = {
    Form.SIGMOID: (torch.sigmoid, Tensor.sigmoid),
    Form.TANH: (torch.tanh, Tensor.tanh),
    Form.EXPM1: (torch.expm1, Tensor.expm1),
    Form.LOG: (torch.log, Tensor.log),
}
CPU_FORMS = RowForms(
    _linear,
    _softmax,
    _sums,
    {
        function: partial(ordered_layers.activate, form=form)
        for form, functions in _OF_NUMBERS.items()
        for function in functions
    },
)
