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

from hydragen_kernels.c_library import c_library

_FOLDER = Path(__file__).parent
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
    built = build()
    return built if isinstance(built, str) else None


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
    rows = x.float().contiguous()
    out = torch.empty_like(rows)
    width = rows.shape[-1]
    sizes = map(ctypes.c_int64, (rows.numel() // width, width))
    _library().normalise(*_addresses(rows, out), *sizes, ctypes.c_float(eps), _threads())
    return out


def activate(x: Tensor, form: Form) -> Tensor:
    """A function of every number, computed in float32 and rounded once."""
    numbers = x.float().contiguous()
    out = torch.empty_like(numbers)
    sizes = map(ctypes.c_int64, (numbers.numel(), int(form)))
    _library().activate(*_addresses(numbers, out), *sizes, _threads())
    return out.to(x.dtype)


def probabilities(x: Tensor) -> Tensor:
    """The softmax of every row: `[rows, width]` to the same, float32."""
    rows = x.float().contiguous()
    found = torch.empty_like(rows)
    sizes = map(ctypes.c_int64, rows.shape)
    _library().distribute(*_addresses(rows, found), *sizes, _threads())
    return found


def _addresses(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors]


def _threads() -> ctypes.c_int64:
    return ctypes.c_int64(torch.get_num_threads())


def _library() -> ctypes.CDLL:
    """The compiled form, where `why_unavailable` finds nothing."""
    built = build()
    assert not isinstance(built, str), built
    return built


@cache
def build(flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none; with further flags for the compiler."""
    sources = _FOLDER / "ordered_layers.c", _FOLDER / "ordered.h"
    return c_library(sources, ("-ffp-contract=off", *flags))
