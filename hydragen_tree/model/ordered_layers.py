"""A model's layers as the batch-invariant mode needs them: each row by operations of its own.

Replaced are products, norms, activations and the angles of rotary positions, where our form gives
what the model's own code does. What is replaced by nothing here stays, and `invariance` decides
whether the model can be promised for.
"""

from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hydragen_kernels.ordered_layers import Form, activate, normalise
from hydragen_tree.model.alike import is_same, numbers, takes_one
from hydragen_tree.model.ordered_linear import OrderedLinear, PanelEmbedding

_CHUNK = 128  # positions whose angles are computed at a time, always the same ones together
_PROBES = 4  # rows
_WIDTH = 64


class _NormForm(Enum):
    """What an RMS norm does with its weight, after x / rms(x) in float32."""

    ROUNDED = "rounds, then multiplies: Llama"
    EXACT = "multiplies in float32, then rounds: OLMo 2"
    AROUND_ONE = "multiplies by 1 + weight in float32, then rounds: Gemma"


class _Norm(nn.Module):
    """An RMS norm."""

    def __init__(self, weight: nn.Parameter | None, eps: float, form: _NormForm) -> None:
        super().__init__()
        self.weight, self.eps, self.form = weight, eps, form

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same."""
        wide = normalise(x, self.eps)
        if self.weight is None:
            return wide.to(x.dtype)
        if self.form is _NormForm.ROUNDED:
            return self.weight * wide.to(x.dtype)
        factor = self.weight.float()
        return (wide * (factor if self.form is _NormForm.EXACT else 1.0 + factor)).to(x.dtype)


class _Activation(nn.Module):
    """An activation, number by number."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return activate(x, self.form)


class RotaryTable(nn.Module):
    """Cosines and sines of rotary positions, looked up in a table.

    An angle's cosine may have another last digit at another place of a vector. So those of a
    position are computed once, with the same neighbours and by one thread, whatever batch asks.

    Args:
        own: the model's module; of hidden states and positions it makes cosines and sines.
    """

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self._tables: dict[object, tuple[Tensor, ...]] = {}

    def forget(self) -> None:
        """Computes all anew when it is asked: frequencies have changed."""
        self._tables.clear()

    def forward(self, x: Tensor, position_ids: Tensor, *more: Any, **named: Any) -> Any:
        """As the model's module: cosines and sines `[1, tokens, width]` each, or both as one."""
        if position_ids.ndim != 2:  # of pictures, say
            return self.own(x, position_ids, *more, **named)
        key = more, tuple(named.items()), x.dtype
        known = self._tables.get(key, ())
        have = known[0].shape[1] if known else 0
        need = int(position_ids.max()) + 1
        if need > have:
            known = self._extended(known, have, need, x, more, named)
            self._tables[key] = known
        found = tuple(table[:, position_ids[0]] for table in known)
        return found if len(found) > 1 else found[0]

    def _extended(
        self,
        known: tuple[Tensor, ...],
        have: int,
        need: int,
        x: Tensor,
        more: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[Tensor, ...]:
        """The tables with more chunks behind them."""
        parts = [known] if known else []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for start in range(have, need, _CHUNK):
                positions = torch.arange(start, start + _CHUNK, device=x.device)[None]
                made = self.own(x[:, :1], positions, *more, **named)
                parts.append(made if isinstance(made, tuple) else (made,))
        finally:
            torch.set_num_threads(threads)
        return tuple(torch.cat(tables, 1) for tables in zip(*parts, strict=True))


@torch.inference_mode()
def order_layers(model: PreTrainedModel) -> None:
    """Replaces in place what has an ordered form; the model is on a CPU.

    Weights are held once, but for those of an embedding with code of its own that the head shares.

    Args:
        model: as it was loaded.
    """
    like: Tensor = model.get_input_embeddings().weight
    _order_products(model)
    _replace(model, lambda module: _norm_like(module, like))
    _replace(model, _activation_like)
    _replace(model, _rotary_like)


def forget_tables(model: nn.Module) -> None:
    """Has all rotary tables computed anew."""
    for module in model.modules():
        if isinstance(module, RotaryTable):
            module.forget()


def _order_products(model: nn.Module) -> None:
    users = Counter(
        id(parameter) for module in model.modules() for parameter in module._parameters.values()
    )
    embeddings = {
        id(module.weight): (parent, name)
        for parent in model.modules()
        for name, module in parent.named_children()
        if type(module) is nn.Embedding and users[id(module.weight)] == 2
    }
    for parent in list(model.modules()):
        if "Router" in type(parent).__name__:  # LongCat's reads its layer's weights itself
            continue
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, layer in children:
            if type(layer) not in (nn.Linear, Conv1D):
                continue
            weight = layer.weight.T if type(layer) is Conv1D else layer.weight
            ordered = OrderedLinear(weight, layer.bias)
            setattr(parent, name, ordered)
            if home := embeddings.get(id(layer.weight)):
                setattr(*home, PanelEmbedding(ordered))


def _replace(parent: nn.Module, made: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replaces modules below one by what is made of them; where that is None, it looks inside."""
    for name, module in list(parent.named_children()):
        found = made(module)
        if found is None:
            _replace(module, made)
        else:
            setattr(parent, name, found)


def _norm_like(module: nn.Module, like: Tensor) -> nn.Module | None:
    """The same norm in our form, if it is an RMS norm of one of the known forms."""
    if not type(module).__name__.endswith("RMSNorm") or not takes_one(module.forward):
        return None
    parameters = [*module.parameters()]
    weight = next(iter(parameters), None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    is_plain = len(parameters) < 2 and (weight is None or weight.ndim == 1)
    if not is_plain or not isinstance(eps, float):
        return None
    x = numbers(like, _PROBES, _WIDTH if weight is None else weight.shape[0])
    expected = module(x)
    ours = (_Norm(weight, eps, form) for form in _NormForm)
    return next((norm for norm in ours if is_same(norm(x), expected)), None)


def _activation_like(module: nn.Module) -> nn.Module | None:
    """The same activation in our form, if it is a known one."""
    is_plain = not [*module.children()] and not [*module.parameters()] and not [*module.buffers()]
    if not is_plain or not takes_one(module.forward):
        return None
    x = 4.0 * numbers(torch.zeros(0), _PROBES, _WIDTH)  # in float32: what rounds is known
    try:
        expected = module(x)
    except (TypeError, ValueError, RuntimeError, IndexError):  # it is called in another way
        return None
    if not isinstance(expected, Tensor) or expected.shape != x.shape:
        return None
    # torch's own GELU is off by 7e-7
    alike = (f for f in Form if torch.allclose(activate(x, f), expected, rtol=1e-6, atol=2e-6))
    form = next(alike, None)
    return None if form is None else _Activation(form)


def _rotary_like(module: nn.Module) -> nn.Module | None:
    """A table of the angles of a module that makes them of hidden states and positions."""
    is_rotary = type(module).__name__.endswith("RotaryEmbedding") and not [*module.children()]
    return RotaryTable(module) if is_rotary else None
