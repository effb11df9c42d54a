"""Products with weights of 8 or 16 bits on a CPU that multiplies such numbers, in C.

    y = x W^T,    x ~ s q,    W ~ t p,    y ~ t sum over groups of inputs of  s (q p^T)

In 8 bits p and q are whole numbers from -127 to 127, with a float32 scale for each output channel,
and for each row and 128 of its numbers, which take the largest number of each to 127; sums of a
group are exact. In 16 bits both are bfloat16, without scales, and sums are float32. Rows are
rounded as they come. Bound by the products from some ten rows on, below that by reading the
weights, see `narrow_product.c`.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hydragen_kernels.c_library import c_library, loaded

_SOURCE = Path(__file__).with_name("narrow_product.c")
_KINDS = {torch.int8: 0, torch.bfloat16: 1}
_WORD_BYTES = 4
_OFFSET = 128
_POINTERS = "x", "panels", "scale", "bias", "out", "narrow", "row_scale", "row_extra"


class _Product(ctypes.Structure):
    """`Product` of narrow_product.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *(
            (name, ctypes.c_int64)
            for name in ("rows", "inputs", "words", "groups", "outputs", "kind", "threads")
        ),
    )


def why_unavailable(kind: torch.dtype) -> str | None:
    """Why numbers of this kind are not multiplied here; None if they are.

    Args:
        kind: int8 or bfloat16.
    """
    built = _build()
    if isinstance(built, str):
        return built
    if kind == torch.int8:
        return None if built.multiplies_int8() else "the CPU has no AVX512-VNNI"
    return None if built.multiplies_bf16() else "the CPU has no AVX512-BF16"


def pack(weight: Tensor) -> Tensor:
    """Weights as `product` reads them.

    Args:
        weight: `[outputs, inputs]` int8 or bfloat16.

    Returns:
        `[panels, words, columns]` int32, with zeros behind the last output and input.
    """
    columns, each = _library().columns(), _WORD_BYTES // weight.itemsize
    outputs, inputs = weight.shape
    panels, words = -(-outputs // columns), -(-inputs // each)
    padded = weight.new_zeros(panels * columns, words * each)
    padded[:outputs, :inputs] = weight
    if weight.dtype == torch.int8:  # one side is unsigned
        padded = (padded.short() + _OFFSET).to(torch.uint8)
    whole = padded.view(torch.int32).view(panels, columns, words)
    return whole.transpose(1, 2).contiguous()


def unpack(panels: Tensor, outputs: int, inputs: int, kind: torch.dtype) -> Tensor:
    """Weights that `pack` has packed: `[outputs, inputs]` of this kind."""
    rows = panels.transpose(1, 2).flatten(0, 1).contiguous()
    if kind == torch.int8:
        numbers = (rows.view(torch.uint8).short() - _OFFSET).to(kind)
    else:
        numbers = rows.view(kind)
    return numbers[:outputs, :inputs]


def product(
    x: Tensor,
    panels: Tensor,
    outputs: int,
    kind: torch.dtype,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """x W^T + bias.

    Args:
        x: `[rows, inputs]` float32.
        panels: W as `pack` returns it.
        outputs: of W.
        kind: of W: int8 or bfloat16.
        scale: `[panels * columns]` float32, of each output; given in 8 bits.
        bias: `[outputs]` float32.

    Returns:
        `[rows, outputs]` float32.
    """
    x, library = x.contiguous(), _library()
    rows, inputs = x.shape
    words, groups = panels.shape[1], -(-inputs // _group())
    out = x.new_empty(rows, outputs)
    narrow = torch.empty(rows * (words + 2 * groups), dtype=torch.int32)
    row_scale = narrow.data_ptr() + _WORD_BYTES * rows * words
    call = _Product(
        x.data_ptr(),
        panels.data_ptr(),
        None if scale is None else scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        narrow.data_ptr(),
        row_scale,
        row_scale + _WORD_BYTES * rows * groups,
        rows,
        inputs,
        words,
        groups,
        outputs,
        _KINDS[kind],
        torch.get_num_threads(),
    )
    library.product(ctypes.byref(call))
    return out


def padded_outputs(outputs: int) -> int:
    """Outputs of whole panels."""
    columns = int(_library().columns())
    return -(-outputs // columns) * columns


@cache
def _group() -> int:
    """Numbers of a row that have a scale of their own, in 8 bits."""
    return int(_library().group())


def _library() -> ctypes.CDLL:
    return loaded(_build())


@cache
def _build() -> ctypes.CDLL | str:
    return c_library((_SOURCE,))
