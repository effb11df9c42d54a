"""Code of a model that runs, with functions of torch in it replaced by forms of one order.

A router, say, is the model's own code, in which products with weights, the soft-max and the sum of
a row, and the choice of the greatest numbers are taken by forms that see one row alone. Of equal
numbers those count as greater that stand earlier.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


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


def order_functions(model: nn.Module, forms: RowForms) -> int:
    """Has routers, and layers with experts, compute row by row in one order, in place.

    Args:
        model: its layers are replaced already.
        forms: of the device that it is on.

    Returns:
        How many modules do.
    """
    homes = [one for one in model.modules() if _is_router(one) or hasattr(one, "experts")]
    mode = _InOrder(_table(forms))
    for home in homes:
        home.forward = _in_order(home.forward, mode)
    return len(homes)


def _is_router(module: nn.Module) -> bool:
    return "Router" in type(module).__name__


def _in_order(own: Callable[..., Any], mode: "_InOrder") -> Callable[..., Any]:
    """A module's code with functions of one order in the place of torch's."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(*given: Any, **named: Any) -> Any:
        with mode:
            return own(*given, **named)

    return forward  # type: ignore[no-any-return]


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

    return {
        functional.linear: forms.linear,
        **dict.fromkeys((functional.softmax, torch.softmax, Tensor.softmax), softmax),
        **dict.fromkeys((torch.sum, Tensor.sum), total),
        **dict.fromkeys((torch.topk, Tensor.topk), _topk),
        **forms.of_numbers,
    }


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if dim not in (-1, x.ndim - 1) or not largest:
        return NotImplemented
    values, places = torch.sort(x, dim=-1, descending=True, stable=True)
    return torch.return_types.topk((values[..., :k], places[..., :k]))
