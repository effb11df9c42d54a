"""Layers on a CPU whose result for a row depends on that row alone, in C (`ordered_layers.c`).

Libraries choose a kernel, and with it an order of summation, by the number of rows, and split rows
over threads; a vector's last numbers go through other code than the rest. Here one sequence of
operations makes a number, whatever stands beside it and however many threads there are.
"""

import ctypes
from enum import IntEnum
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hydragen_kernels.c_library import c_library, loaded, why_missing
from hydragen_kernels.inputs import check_last_contiguous
from hydragen_kernels.layer_forms import Activation, NormForm, Rotation

_FOLDER = Path(__file__).parent
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float}
_ARGUMENTS = {  # addresses, whole numbers, float32
    "normalise": "pppnnffn",
    "gate": "ppnnnn",
    "rotate": "ppppnnnnnnnnn",
    "rotate_pairs": "pppnnnnnn",
    "store": "pppnnnnnn",
    "activate": "ppnnn",
    "distribute": "ppnnn",
}
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Form(IntEnum):
    """An activation, or another function of single numbers."""

    SILU = 0
    GELU_TANH = 1
    GELU = 2
    SIGMOID = 3
    TANH = 4
    EXPM1 = 5
    LOG = 6


class _Product(ctypes.Structure):
    """`Product` of ordered_layers.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "panels", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "inputs", "outputs", "kind", "threads")),
    )


def why_unavailable() -> str | None:
    """Why the C form cannot run here; None if it can."""
    return why_missing(build())


def pack(weight: Tensor) -> Tensor:
    """Weights as `product` reads them: those of some outputs side by side, with zeros behind.

    Args:
        weight: `[outputs, inputs]`, of 32 or 16 bits.

    Returns:
        `[panels, inputs, columns]` in the same dtype.
    """
    columns = _library().columns()
    outputs = weight.shape[0]
    panels = weight.new_zeros(-(-outputs // columns), weight.shape[1], columns)
    whole = outputs // columns
    panels[:whole] = weight[: whole * columns].unflatten(0, (whole, columns)).transpose(1, 2)
    if rest := outputs - whole * columns:
        panels[whole, :, :rest] = weight[whole * columns :].T
    return panels


def unpacked_rows(panels: Tensor, outputs: Tensor) -> Tensor:
    """Rows of the weights that were packed.

    Args:
        panels: as `pack` returns them.
        outputs: int64, any shape.

    Returns:
        `[*outputs.shape, inputs]`.
    """
    columns = panels.shape[2]
    return panels[outputs // columns, :, outputs % columns]


def product(x: Tensor, panels: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias, summed in float32 and rounded once.

    Args:
        x: `[..., inputs]`, of 32 or 16 bits.
        panels: W as `pack` returns it, in x's dtype.
        outputs: of W.
        bias: `[outputs]`.

    Returns:
        `[..., outputs]` in x's dtype.
    """
    rows = x.reshape(-1, x.shape[-1]).float().contiguous()
    out = rows.new_empty(rows.shape[0], outputs)
    added = None if bias is None else bias.float().contiguous()
    call = _Product(
        rows.data_ptr(),
        panels.data_ptr(),
        None if added is None else added.data_ptr(),
        out.data_ptr(),
        *rows.shape,
        outputs,
        _KINDS[panels.dtype],
        torch.get_num_threads(),
    )
    _library().product(ctypes.byref(call))
    return out.to(x.dtype).view(*x.shape[:-1], outputs)


def normalise(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) along the last dimension, in float32.

    Args:
        x: `[..., width]`, any floating dtype.
        eps: added to the mean square.
    """
    return _normalised(x.float().contiguous(), None, eps, 0.0)


def rms_norm(x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
    """x / sqrt(mean(x^2) + eps), weighted; see `layers.rms_norm`.

    Args:
        x: `[..., width]` float32.
        weight: `[width]` float32.
        eps: added to the mean square.
        form: how the weight is used.

    Raises:
        ValueError: of other numbers.
    """
    x = x.contiguous()
    _check_floats(x=x, weight=weight)
    added = 1.0 if form == NormForm.AROUND_ONE else 0.0
    return _normalised(x, weight, eps, added)


def _normalised(x: Tensor, weight: Tensor | None, eps: float, added: float) -> Tensor:
    out, width = torch.empty_like(x), x.shape[-1]
    addresses = x.data_ptr(), None if weight is None else weight.data_ptr(), out.data_ptr()
    _library().normalise(*addresses, x.numel() // width, width, eps, added, _threads())
    return out


def gated(x: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up, of rows that hold a gate and what goes through it.

    Args:
        x: `[..., 2 * width]` float32: the gate, then the rest.
        activation: of the gate.

    Returns:
        `[..., width]`.

    Raises:
        ValueError: of other numbers.
    """
    x, width = x.contiguous(), x.shape[-1] // 2
    _check_floats(x=x)
    out = x.new_empty(*x.shape[:-1], width)
    rows = out.numel() // max(width, 1)
    form = Form.SILU if activation == Activation.SILU else Form.GELU_TANH
    _library().gate(x.data_ptr(), out.data_ptr(), rows, width, form, _threads())
    return out


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, form: Rotation = Rotation.WHOLE
) -> tuple[Tensor, Tensor]:
    """Rotary positions of queries and keys: x cos + rotate_half(x) sin; see `layers.rotate`.

    Args:
        q: `[1, q_heads, tokens, head_dim]` float32, the last dimension dense.
        k: `[1, kv_heads, tokens, head_dim]`, likewise.
        cos: `[1, tokens, angles]`, dense.
        sin: likewise.
        form: which numbers are rotated, by which angles.

    Returns:
        Both rotated; in memory a token's heads lie side by side, as attention reads them.

    Raises:
        ValueError: of other numbers.
    """
    _check_floats(q=q, k=k, cos=cos, sin=sin)
    angles, n_angles = (cos.data_ptr(), sin.data_ptr()), cos.shape[-1]
    rotated = []
    for x in (q, k):
        _, heads, tokens, dim = x.shape
        half = (n_angles if form == Rotation.LEADING else dim) // 2
        second = 0 if form == Rotation.TWICE else half
        out = x.new_empty(1, tokens, heads, dim)
        sizes = tokens, heads, dim, half, n_angles, second, x.stride(2), x.stride(1)
        _library().rotate(x.data_ptr(), *angles, out.data_ptr(), *sizes, _threads())
        rotated.append(out.transpose(1, 2))
    return rotated[0], rotated[1]


def rotate_pairs(q: Tensor, k: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary positions of numbers that lie side by side; see `layers.rotate_pairs`.

    Args:
        q: `[1, q_heads, tokens, head_dim]` float32, the last dimension dense.
        k: `[1, kv_heads, tokens, head_dim]`, likewise.
        angles: `[1, tokens, head_dim / 2]` complex64, dense.

    Returns:
        Both rotated; in memory a token's heads lie side by side, as attention reads them.

    Raises:
        ValueError: of other numbers.
    """
    _check_floats(q=q, k=k)
    rotated = []
    for x in (q, k):
        _, heads, tokens, dim = x.shape
        out = x.new_empty(1, tokens, heads, dim)
        sizes = tokens, heads, dim // 2, x.stride(2), x.stride(1)
        places = x.data_ptr(), angles.data_ptr(), out.data_ptr()
        _library().rotate_pairs(*places, *sizes, _threads())
        rotated.append(out.transpose(1, 2))
    return rotated[0], rotated[1]


def store(arena: Tensor, slots: Tensor, x: Tensor) -> None:
    """Copies keys or values of tokens to their slots.

    Args:
        arena: `[kv_heads, slots, head_dim]` float32, a head's slots one after the other.
        slots: `[tokens]` int64, not checked.
        x: `[kv_heads, tokens, head_dim]` float32, the last dimension dense.

    Raises:
        ValueError: of other numbers.
    """
    _check_floats(arena=arena, x=x)
    heads, tokens, dim = x.shape
    strides = x.stride(1), x.stride(0), arena.stride(0)
    addresses = x.data_ptr(), arena.data_ptr(), slots.data_ptr()
    _library().store(*addresses, tokens, heads, dim, *strides)


def _check_floats(**tensors: Tensor) -> None:
    """Makes sure that C reads what it takes them for, but for how rows lie."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name}: expected float32, got {tensor.dtype}")
        check_last_contiguous(name, tensor)


def activate(x: Tensor, form: Form) -> Tensor:
    """A function of every number, computed in float32 and rounded once."""
    numbers = x.float().contiguous()
    out = torch.empty_like(numbers)
    _library().activate(numbers.data_ptr(), out.data_ptr(), numbers.numel(), form, _threads())
    return out.to(x.dtype)


def probabilities(x: Tensor) -> Tensor:
    """The softmax of every row: `[rows, width]` to the same, float32."""
    rows = x.float().contiguous()
    out = torch.empty_like(rows)
    _library().distribute(rows.data_ptr(), out.data_ptr(), *rows.shape, _threads())
    return out


def _threads() -> int:
    return torch.get_num_threads()


def _library() -> ctypes.CDLL:
    """The compiled form, where `why_unavailable` finds nothing."""
    return loaded(build())


@cache
def build(flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none; with further flags for the compiler."""
    sources = _FOLDER / "ordered_layers.c", _FOLDER / "ordered.h"
    built = c_library(sources, ("-ffp-contract=off", *flags))
    if not isinstance(built, str):
        for name, arguments in _ARGUMENTS.items():
            getattr(built, name).argtypes = [_TYPES[kind] for kind in arguments]
    return built
