"""Products with weights that are sums of blocks of one bit a number; and such weights, written.

    y = x W^T + bias,     W = sum over b of  S_b * (U_b V_b^T),     S_b in {-1, 1}

Source: BitStack, arXiv 2410.23918. The blocks lie as they are stored: signs packed along the
inputs, the first input the lowest bit and a set bit a plus; U and V in float16, ranks innermost.

For few rows weights are never written. A program makes a tile of them in registers, four blocks at
a time: their sizes by tensor cores, the signs put on by one xor. The tile is rounded to x's dtype
and multiplied with the rows as the left side of a product, so that it stays where it is. Of the
inputs of a tile, those that are the same bit of their bytes are taken together: a byte is loaded
once and serves eight tiles. Few tiles of outputs are cut along the inputs, and their sums added up
by a second launch in a fixed order: so results do not depend on who comes first.

Reading signs would take 1.1 bits a weight and block; putting them on, some three instructions each,
bounds it, and is done again for every 64 rows. So for many rows weights are made once, and written.
Definition: `reference_stack.py`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.inputs import FLOATS, check_contiguous, last_contiguous

_AT_ONCE = 4  # blocks whose signs are one word
_PROGRAMS = 264  # to be started at the least, if there are so many tiles: 2 for each of 132
_WRITTEN = 32, 64, 2, 2  # outputs and inputs of a tile that is written, warps and stages
_SUM_BLOCK = 512  # numbers that a program of the second launch adds up


class StackTile(NamedTuple):
    """What a program does at a time.

    Attributes:
        rows: of x.
        outputs: of the weights.
        n_bytes: of signs along the inputs, of eight inputs each.
        num_warps: warps of a program.
        num_stages: loads on their way ahead of the products.
    """

    rows: int
    outputs: int
    n_bytes: int
    num_warps: int
    num_stages: int


def stack_tile(rows: int, dtype: torch.dtype) -> StackTile:
    """The tile for a product of so many rows; measured on an H200."""
    if dtype == torch.float32:  # by plain multiplications: tensor cores would round
        return StackTile(32, 64, 16, 4, 1)
    if rows <= 32:
        return StackTile(16 if rows <= 16 else 32, 64, 32, 4, 3)
    return StackTile(64, 64, 16, 4, 3)


def stack_product(
    x: Tensor, signs: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Rows times the sum of blocks, summed in fp32.

    Args:
        x: `[rows, in]`, fp16, bf16 or fp32.
        signs: `[blocks, out, ceil(in / 8)]` uint8, contiguous like the rest.
        left: `[blocks, out, rank]` float16.
        right: `[blocks, in, rank]` float16.
        bias: `[out]` in x's dtype, or None.

    Returns:
        `[rows, out]` in x's dtype.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    if x.ndim != 2 or x.dtype not in FLOATS:
        raise ValueError(
            f"x: expected fp16, bf16 or fp32 [rows, in], got {x.dtype} {list(x.shape)}"
        )
    rows, inputs = x.shape
    blocks, outputs, n_bytes, rank = _check_blocks(signs, left, right, inputs)
    if bias is not None:
        check_contiguous("bias", bias, x.dtype, (outputs,))
    x = last_contiguous(x)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    if not rows:
        return out
    tile = stack_tile(rows, x.dtype)
    row_tiles, output_tiles = triton.cdiv(rows, tile.rows), triton.cdiv(outputs, tile.outputs)
    steps = triton.cdiv(n_bytes, tile.n_bytes)
    steps_each = triton.cdiv(steps, max(1, _PROGRAMS // (row_tiles * output_tiles)))
    parts = triton.cdiv(steps, steps_each)
    sums = torch.empty(parts, rows, outputs, dtype=torch.float32, device=x.device)
    rounds = triton.cdiv(blocks, _AT_ONCE)
    _stack_kernel[(row_tiles, output_tiles, parts)](
        x,
        signs,
        left,
        right,
        sums,
        rows,
        x.stride(0),
        blocks,
        outputs,
        inputs,
        n_bytes,
        steps_each,
        RANK=rank,
        AT_ONCE=triton.cdiv(blocks, rounds),
        BLOCK_M=tile.rows,
        BLOCK_N=tile.outputs,
        BLOCK_B=tile.n_bytes,
        BLOCK_R=max(16, triton.next_power_of_2(rank)),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    _sum_kernel[(triton.cdiv(rows * outputs, _SUM_BLOCK),)](
        sums, bias, out, rows * outputs, outputs, parts, BLOCK=_SUM_BLOCK, num_warps=4
    )
    return out


def stack_weight(signs: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of blocks, of which each is added in fp32.

    Args:
        signs: as of `stack_product`, like the others.
        left: `[blocks, out, rank]` float16.
        right: `[blocks, in, rank]` float16.
        dtype: fp16, bf16 or fp32.

    Returns:
        `[out, in]`.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    inputs = right.shape[1]
    blocks, outputs, n_bytes, rank = _check_blocks(signs, left, right, inputs)
    weight = torch.empty(outputs, inputs, dtype=dtype, device=left.device)
    block_n, block_k, num_warps, num_stages = _WRITTEN
    _weight_kernel[(triton.cdiv(inputs, block_k), triton.cdiv(outputs, block_n))](
        signs,
        left,
        right,
        weight,
        blocks,
        outputs,
        inputs,
        n_bytes,
        RANK=rank,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        BLOCK_R=max(16, triton.next_power_of_2(rank)),
        num_warps=num_warps,
        num_stages=num_stages,
    )
    return weight


def _check_blocks(
    signs: Tensor, left: Tensor, right: Tensor, inputs: int
) -> tuple[int, int, int, int]:
    """Checks what is known of blocks; blocks, outputs, bytes of signs along the inputs, rank."""
    blocks, outputs, rank = left.shape
    n_bytes = triton.cdiv(inputs, 8)
    check_contiguous("signs", signs, torch.uint8, (blocks, outputs, n_bytes))
    check_contiguous("left", left, torch.float16, (blocks, outputs, rank))
    check_contiguous("right", right, torch.float16, (blocks, inputs, rank))
    return blocks, outputs, n_bytes, rank


@triton.jit(do_not_specialize=["rows", "blocks", "steps_each"])
def _stack_kernel(
    x,
    signs,
    left,
    right,
    sums,
    rows,
    x_stride,
    blocks,
    outputs,
    inputs,
    n_bytes,
    steps_each,
    RANK: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    row = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    output = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(2)
    is_row, is_output = row < rows, output < outputs
    rank = tl.arange(0, BLOCK_R)
    is_rank = rank < RANK
    first = part * steps_each
    end = tl.minimum(first + steps_each, tl.cdiv(n_bytes, BLOCK_B))
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for block in range(0, blocks, AT_ONCE):
        for step in range(first, end):
            byte = step * BLOCK_B + tl.arange(0, BLOCK_B)
            is_byte = byte < n_bytes
            plus = tl.zeros([BLOCK_N, BLOCK_B], tl.int32)  # a byte for each block
            for b in tl.static_range(AT_ONCE):
                has_output = is_output & (output < (blocks - block - b) * outputs)
                packed = tl.load(
                    signs + b * outputs * n_bytes + output[:, None] * n_bytes + byte[None, :],
                    mask=has_output[:, None] & is_byte[None, :],
                    other=0,
                )
                plus |= packed.to(tl.int32) << (8 * b)
            minus = ~plus
            for bit in range(8):
                k = byte * 8 + bit
                is_input = k < inputs
                weight = tl.zeros([BLOCK_N, BLOCK_B], tl.float32)
                for b in tl.static_range(AT_ONCE):
                    has_output = is_output & (output < (blocks - block - b) * outputs)
                    u = tl.load(
                        left + b * outputs * RANK + output[:, None] * RANK + rank[None, :],
                        mask=has_output[:, None] & is_rank[None, :],
                        other=0.0,
                    )
                    has_input = is_input & (k < (blocks - block - b) * inputs)
                    v = tl.load(
                        right + b * inputs * RANK + k[None, :] * RANK + rank[:, None],
                        mask=has_input[None, :] & is_rank[:, None],
                        other=0.0,
                    )
                    size = tl.dot(u, v).to(tl.int32, bitcast=True)
                    sign = (minus << (31 - 8 * b - bit)) & -2147483648
                    weight += (size ^ sign).to(tl.float32, bitcast=True)
                given = tl.load(
                    x + row[None, :] * x_stride + k[:, None],
                    mask=is_row[None, :] & is_input[:, None],
                    other=0.0,
                )
                total = tl.dot(weight.to(given.dtype), given, total, input_precision="ieee")
        signs += AT_ONCE * outputs * n_bytes
        left += AT_ONCE * outputs * RANK
        right += AT_ONCE * inputs * RANK
    tl.store(
        sums + (part * rows + row)[None, :] * outputs + output[:, None],
        total,
        mask=is_row[None, :] & is_output[:, None],
    )


@triton.jit(do_not_specialize=["n", "parts"])
def _sum_kernel(sums, bias, out, n, outputs, parts, BLOCK: tl.constexpr):
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    here = place < n
    total = tl.zeros([BLOCK], tl.float32)
    for part in range(parts):
        total += tl.load(sums + part * n.to(tl.int64) + place, mask=here, other=0.0)
    if bias is not None:
        total += tl.load(bias + place % outputs, mask=here, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["blocks"])
def _weight_kernel(
    signs,
    left,
    right,
    weight,
    blocks,
    outputs,
    inputs,
    n_bytes,
    RANK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    output = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_output, is_input = output < outputs, k < inputs
    here = is_output[:, None] & is_input[None, :]
    rank = tl.arange(0, BLOCK_R)
    is_rank = rank < RANK
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for _ in range(blocks):
        plus = tl.load(signs + output[:, None] * n_bytes + (k // 8)[None, :], mask=here, other=0)
        u = tl.load(
            left + output[:, None] * RANK + rank[None, :],
            mask=is_output[:, None] & is_rank[None, :],
            other=0.0,
        )
        v = tl.load(
            right + k[None, :] * RANK + rank[:, None],
            mask=is_input[None, :] & is_rank[:, None],
            other=0.0,
        )
        size = tl.dot(u, v).to(tl.int32, bitcast=True)
        sign = (~plus.to(tl.int32) << (31 - k % 8)[None, :]) & -2147483648
        total += (size ^ sign).to(tl.float32, bitcast=True)
        signs += outputs * n_bytes
        left += outputs * RANK
        right += inputs * RANK
    place = output.to(tl.int64)[:, None] * inputs + k[None, :]
    tl.store(weight + place, total.to(weight.dtype.element_ty), mask=here)
