"""Mixture of experts as the batch-invariant mode needs them.

Which experts a token has, and what they give, depends on that token alone. The code of a router,
and of the layer around it, runs, but some functions of torch that it calls are taken by forms of
one order: products with weights, the soft-max and the sum of a row, sigmoids, and the choice of the
greatest numbers, of which equal ones count as greater the earlier they stand. Experts are products
in C.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from hydragen_kernels import ordered_layers
from hydragen_tree.model.expert_layers import activated, expert_layers, name_of_up

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


def order_routers(model: nn.Module) -> int:
    """Has a model's routers, and layers with experts, compute row by row in one order, in place.

    Args:
        model: its layers are replaced already.

    Returns:
        How many do.
    """
    homes = [one for one in model.modules() if _is_router(one) or hasattr(one, "experts")]
    for home in homes:
        home.forward = _in_order(home.forward)
    return len(homes)


def _is_router(module: nn.Module) -> bool:
    return "Router" in type(module).__name__


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


@torch.compiler.disable  # type: ignore[untyped-decorator]
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


def _in_order(own: Callable[..., Any]) -> Callable[..., Any]:
    """A module's code with functions of one order in the place of torch's."""
    mode = _InOrder()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(*given: Any, **named: Any) -> Any:
        with mode:
            return own(*given, **named)

    return forward  # type: ignore[no-any-return]


class _InOrder(TorchFunctionMode):
    """Calls our forms of some of torch's functions, where they do what is asked for."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function's result."""
        form = _FORMS.get(func)
        found = NotImplemented if form is None else form(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is NotImplemented else found


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    panels = getattr(weight, _PANELS, None)
    if panels is None:
        panels = ordered_layers.pack(weight.detach())
        setattr(weight, _PANELS, panels)
    return ordered_layers.product(x, panels, weight.shape[0], bias)


def _softmax(
    x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Any:
    if dim not in (-1, x.ndim - 1):
        return NotImplemented
    kind = dtype or x.dtype
    shares, _ = ordered_layers.probabilities(x.to(kind).reshape(-1, x.shape[-1]))
    return shares.view(x.shape).to(kind)


def _sum(
    x: Tensor, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Any:
    if dim not in (-1, x.ndim - 1, [-1], (-1,)) or not x.is_floating_point():
        return NotImplemented
    total = _added_up(x.float()).to(dtype or x.dtype)
    return total if keepdim else total[..., 0]


def _added_up(x: Tensor) -> Tensor:
    """Sums of rows, which are halved and added to each other until one number is left."""
    while (width := x.shape[-1]) > 1:
        half = width // 2
        pairs = x[..., :half] + x[..., half : 2 * half]
        x = torch.cat([pairs, x[..., 2 * half :]], -1) if width % 2 else pairs
    return x


def _sigmoid(x: Tensor) -> Any:
    return ordered_layers.activate(x, ordered_layers.Form.SIGMOID)


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if dim not in (-1, x.ndim - 1) or not largest:
        return NotImplemented
    values, places = torch.sort(x, dim=-1, descending=True, stable=True)
    return torch.return_types.topk((values[..., :k], places[..., :k]))


_FORMS: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    **dict.fromkeys((functional.softmax, torch.softmax, Tensor.softmax), _softmax),
    **dict.fromkeys((torch.sum, Tensor.sum), _sum),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid), _sigmoid),
    **dict.fromkeys((torch.topk, Tensor.topk), _topk),
}
