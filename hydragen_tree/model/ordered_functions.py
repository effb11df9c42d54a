"""Code of a model that runs, with functions of torch in it replaced by forms of one order.

A router, say, is the model's own code, in which products with weights, the soft-max, the sum and
the mean of a row, and the choice of the greatest numbers are taken by forms that see one row alone.
Of equal numbers those count as greater that stand earlier.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from hydragen_tree.imports import hidden_from_compiler


class RowForms(NamedTuple):
    """What a device offers.

    Attributes:
        linear: `torch.nn.functional.linear`, or NotImplemented where it is torch's to compute.
        softmax: `[..., width]` along the last dimension, in float32.
        sums: `[..., width]` to `[..., 1]`, in float32.
        of_numbers: functions that make each number of one, and their forms.
    """

    linear: Callable[..., Any]
    softmax: Callable[[Tensor], Tensor]
    sums: Callable[[Tensor], Tensor]
    of_numbers: Mapping[Any, Callable[..., Any]] = {}


def order_functions(model: PreTrainedModel, forms: RowForms) -> None:
    """Has code of a model compute row by row in one order, in place.

    That is routers and layers with experts, norms and activations with code of their own, attention
    that scales queries by their positions, and what comes behind the last layer.

    Args:
        model: its layers are replaced already.
        forms: of the device that it is on.
    """
    mode = _InOrder(_table(forms))
    for module in model.modules():
        if _needs_order(module):
            module.forward = _in_order(module.forward, mode)
    _order_end(model, mode)


def _needs_order(module: nn.Module) -> bool:
    kind = type(module)
    if "Router" in kind.__name__ or hasattr(module, "experts"):
        return True
    if kind.__module__.startswith(("torch.", "hydragen_tree.")):
        return False
    scales = hasattr(sys.modules[kind.__module__], "get_llama_4_attn_scale")
    return kind.__name__.endswith(("LayerNorm", "Activation", *["Attention"] * scales))


def _order_end(model: PreTrainedModel, mode: "_InOrder") -> None:
    """Has what a model does behind its last layer computed in order: Gemma 2 caps logits."""
    under_way = ExitStack()

    def begin(*_: Any) -> None:
        under_way.enter_context(mode)

    def end(*_: Any) -> None:
        under_way.close()

    model.get_decoder().register_forward_hook(begin)
    model.register_forward_hook(end, always_call=True)


def _in_order(own: Callable[..., Any], mode: "_InOrder") -> Callable[..., Any]:
    """A module's code with functions of one order in the place of torch's."""

    @hidden_from_compiler
    def forward(*given: Any, **named: Any) -> Any:
        with mode:
            return own(*given, **named)

    return forward


class _InOrder(TorchFunctionMode):
    """Calls forms of some of torch's functions, where they do what is asked for.

    Args:
        forms: by function; they return NotImplemented where they do not.
    """

    def __init__(self, forms: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._forms = forms

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function's result."""
        form = self._forms.get(func)
        found = NotImplemented if form is None else form(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is NotImplemented else found


def _table(forms: RowForms) -> dict[Any, Callable[..., Any]]:
    """Forms by what is called."""

    def softmax(
        x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
    ) -> Any:
        if dim not in (-1, x.ndim - 1):
            return NotImplemented
        kind = dtype or x.dtype
        return forms.softmax(x.to(kind)).to(kind)

    def total(
        x: Tensor, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None
    ) -> Any:
        if dim not in (-1, x.ndim - 1, [-1], (-1,)) or not x.is_floating_point():
            return NotImplemented
        found = forms.sums(x).to(dtype or x.dtype)
        return found if keepdim else found[..., 0]

    def mean(
        x: Tensor, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None
    ) -> Any:
        found = total(x, dim, keepdim, torch.float32)
        if found is NotImplemented:
            return NotImplemented
        return (found / x.shape[-1]).to(dtype or x.dtype)

    return {
        functional.linear: forms.linear,
        **dict.fromkeys((functional.softmax, torch.softmax, Tensor.softmax), softmax),
        **dict.fromkeys((torch.sum, Tensor.sum), total),
        **dict.fromkeys((torch.mean, Tensor.mean), mean),
        **dict.fromkeys((torch.topk, Tensor.topk), _topk),
        **forms.of_numbers,
    }


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if dim not in (-1, x.ndim - 1) or not largest:
        return NotImplemented
    values, places = torch.sort(x, dim=-1, descending=True, stable=True)
    return torch.return_types.topk((values[..., :k], places[..., :k]))
