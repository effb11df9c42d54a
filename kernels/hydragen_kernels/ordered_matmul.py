"""Matrix products whose sums have one order, whatever the number of rows.

    out[r, n] = sum_k x[r, k] weight[n, k] (+ bias[n])

Libraries choose another kernel for another number of rows, and with it another order of summation:
a row's result then depends on its company. Here the order is a function of k alone:

- k is cut into chunks of `CHUNK`. A chunk's sum starts from zero and takes in its products by
  ascending groups, one instruction of the tensor cores each (16 numbers in 16 bits; in fp32 one
  fused multiply-add each).
- Chunks are added up in ascending order, in fp32; then comes the bias; then one rounding.

Tiles of rows and columns are free, and so is whether one program computes all chunks of a tile or
several do: none of it changes an order. So they follow the number of rows alone.

`hydragen_kernels.ordered_library` finds out where torch's own products have the same order.

Bound: memory with few rows, where weights are read once and cross to the multiprocessors once for
every tile of rows; the tensor cores with many.
"""

import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from hydragen_kernels.inputs import FLOATS

CHUNK = 4096  # numbers of k; shorter ones would cost what they write, longer ones fill no device
# A product that is rounded before it is added must be so in every form of the kernel.
AS_WRITTEN = {} if os.environ.get("TRITON_INTERPRET") == "1" else {"enable_fp_fusion": False}
_ALIGNMENT = 16  # bytes, of rows that the copy engine brings


class Tiles(NamedTuple):
    """How a product is cut; none of it changes a result.

    Attributes:
        rows: of a tile.
        columns: of a tile.
        depth: numbers of k of a step.
        warps: of a program.
        stages: steps in flight.
        swapped: whether columns take the place of rows in the tensor cores' instructions, which
            have at least 64 of one and 8 of the other.
        split: whether every chunk of k has a program of its own.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    swapped: bool = False
    split: bool = False


@triton.jit
def _product_kernel(
    x,
    weight,
    bias,
    out,
    rows,
    columns,
    k,
    stride_c,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNK_K: tl.constexpr,
    BAND: tl.constexpr,
    WHOLE: tl.constexpr,
    SPLIT: tl.constexpr,
    SWAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # bands of row tiles, and in a band all row tiles of a column tile side by side: they meet in L2
    row_tiles, column_tiles = tl.cdiv(rows, BLOCK_R), tl.cdiv(columns, BLOCK_N)
    band = tl.program_id(0) // (BAND * column_tiles)
    high = tl.minimum(row_tiles - band * BAND, BAND)
    inside = tl.program_id(0) % (BAND * column_tiles)
    row0 = (band * BAND + inside % high) * BLOCK_R
    column0 = inside // high * BLOCK_N
    if SPLIT:
        first, last = tl.program_id(1), tl.program_id(1) + 1
        out += tl.program_id(1).to(tl.int64) * stride_c
    else:
        first, last = 0, tl.cdiv(k, CHUNK_K)
    if SWAPPED:
        total = tl.zeros([BLOCK_N, BLOCK_R], tl.float32)
    else:
        total = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
    for chunk in range(first, last):
        acc = tl.zeros_like(total)
        for at in range(chunk * CHUNK_K, tl.minimum((chunk + 1) * CHUNK_K, k), BLOCK_K):
            a = x.load([row0, at])  # [BLOCK_R, BLOCK_K]
            b = weight.load([column0, at])  # [BLOCK_N, BLOCK_K]
            if SWAPPED:
                acc = tl.dot(b, tl.trans(a), acc, input_precision=PRECISION)
            else:
                acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
        total = acc if WHOLE else tl.where(chunk == first, acc, total + acc)
    row = row0 + tl.arange(0, BLOCK_R)
    column = column0 + tl.arange(0, BLOCK_N)
    if bias is not None and not SPLIT:
        extra = tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
        total = total + (extra[:, None] if SWAPPED else extra[None, :])
    start = row.to(tl.int64) * columns
    if SWAPPED:
        place, here = start[None, :] + column[:, None], (row < rows)[None, :]
        here = here & (column < columns)[:, None]
    else:
        place, here = start[:, None] + column[None, :], (row < rows)[:, None]
        here = here & (column < columns)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=here)


@triton.jit
def _sum_kernel(parts, bias, out, numbers, columns, chunks, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < numbers
    total = tl.load(parts + at, mask=here, other=0.0)
    for chunk in range(1, chunks):
        total += tl.load(parts + chunk * numbers + at, mask=here, other=0.0)
    if bias is not None:
        total = total + tl.load(bias + at % columns, mask=here, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=here)


def best_tiles(rows: int, columns: int, k: int, dtype: torch.dtype) -> Tiles:
    """Choose the tiles for a product; measured on an H200.

    Args:
        rows: of the input.
        columns: of the output.
        k: numbers of a sum.
        dtype: of input and weight.
    """
    if dtype == torch.float32:  # no tensor cores: registers hold what is multiplied
        return Tiles(16 if rows <= 16 else 64, 64, 32, 4, 3, split=k > CHUNK and rows <= 64)
    few = k > CHUNK and rows <= 256  # tiles are too few for the device but for their chunks
    is_wide = columns >= 16384 or few
    if rows <= 64:
        high = max(16, triton.next_power_of_2(rows))
        return Tiles(high, 128 if is_wide else 64, 128, 4, 4 if is_wide else 5, True, few)
    if rows <= 128 and not is_wide:
        return Tiles(128, 64, 128, 4, 4, True)
    return Tiles(128, 128, 64, 8 if k > CHUNK and not few else 4, 4, False, few)


def ordered_matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times weight transposed, each row as if it were alone.

    Args:
        x: `[..., k]` fp16, bf16 or fp32.
        weight: `[columns, k]`, the same dtype, rows dense and aligned to 16 bytes.
        bias: `[columns]`, or None.

    Returns:
        `[..., columns]` in x's dtype.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    check_product(x, weight, bias)
    rows = x.flatten(0, -2)
    out = product(
        rows, weight, bias, best_tiles(rows.shape[0], weight.shape[0], weight.shape[1], x.dtype)
    )
    return out.view(*x.shape[:-1], weight.shape[0])


def check_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check the inputs of a product.

    Raises:
        ValueError: as of `ordered_matmul`.
    """
    if x.ndim < 2 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"expected x [..., k] and weight [columns, k], got {list(x.shape)} and "
            f"{list(weight.shape)}"
        )
    if x.dtype not in FLOATS or weight.dtype != x.dtype:
        raise ValueError(f"expected both of fp16, bf16 or fp32, got {x.dtype} and {weight.dtype}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected [{weight.shape[0]}], got {list(bias.shape)}")
    if why := why_not_product(weight):
        raise ValueError(f"weight: {why}")


def why_not_product(weight: Tensor) -> str | None:
    """Why a weight cannot be multiplied by in one order; None if it can."""
    row_bytes = weight.stride(0) * weight.element_size()
    if weight.stride(1) != 1 or row_bytes % _ALIGNMENT or weight.data_ptr() % _ALIGNMENT:
        return f"expected dense rows aligned to {_ALIGNMENT} bytes, got strides {weight.stride()}"
    return None


def product(x: Tensor, weight: Tensor, bias: Tensor | None, tiles: Tiles) -> Tensor:
    """`ordered_matmul` by given tiles.

    Args:
        x: `[rows, k]`.
        weight: `[columns, k]`.
        bias: `[columns]`, or None.
        tiles: how it is cut.

    Returns:
        `[rows, columns]` in x's dtype.
    """
    (rows, k), columns = x.shape, weight.shape[0]
    if x.stride(1) != 1 or x.stride(0) * x.element_size() % _ALIGNMENT or x.data_ptr() % _ALIGNMENT:
        x = x.clone(memory_format=torch.contiguous_format)
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    chunks = triton.cdiv(k, CHUNK)
    split = tiles.split and chunks > 1
    target = out
    if split:
        target = torch.empty(chunks, rows, columns, dtype=torch.float32, device=x.device)
    grid = triton.cdiv(rows, tiles.rows) * triton.cdiv(columns, tiles.columns)
    _product_kernel[(grid, chunks if split else 1)](
        TensorDescriptor.from_tensor(x, [tiles.rows, tiles.depth]),
        TensorDescriptor.from_tensor(weight, [tiles.columns, tiles.depth]),
        bias,
        target,
        rows,
        columns,
        k,
        out.numel(),
        BLOCK_R=tiles.rows,
        BLOCK_N=tiles.columns,
        BLOCK_K=tiles.depth,
        CHUNK_K=CHUNK,
        BAND=16,
        WHOLE=chunks == 1 or split,
        SPLIT=split,
        SWAPPED=tiles.swapped,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **AS_WRITTEN,
    )
    if split:
        block = 1024
        _sum_kernel[(triton.cdiv(out.numel(), block),)](
            target, bias, out, out.numel(), columns, chunks, BLOCK=block, num_warps=4, **AS_WRITTEN
        )
    return out
