"""Sums along short rows in one order, each row by a program of its own: soft-max, sums.

    softmax[r, i] = e^(x[r, i] - peak) / sum_j e^(x[r, j] - peak)        sums[r] = sum_j x[r, j]

In fp32. A row's numbers are added up in an order that its width alone decides. Libraries lay
several rows beside each other, or split one, by how many there are.

Bound: launches; rows are as many numbers as a model has experts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 1 << 14


def softmax(x: Tensor) -> Tensor:
    """The soft-max along the last dimension.

    Args:
        x: `[..., width]`, any floating dtype.

    Returns:
        The same shape, fp32.

    Raises:
        ValueError: rows are wider than `WIDEST`.
    """
    return _of_rows(x, x.shape[-1], is_softmax=True)


def sums(x: Tensor) -> Tensor:
    """The sum along the last dimension.

    Args:
        x: `[..., width]`, any floating dtype.

    Returns:
        `[..., 1]`, fp32.

    Raises:
        ValueError: rows are wider than `WIDEST`.
    """
    return _of_rows(x, 1, is_softmax=False)


def _of_rows(x: Tensor, width_out: int, *, is_softmax: bool) -> Tensor:
    width = x.shape[-1]
    if not 1 <= width <= WIDEST:
        raise ValueError(f"x: expected rows of 1 to {WIDEST} numbers, got {width}")
    rows = x.reshape(-1, width).contiguous()
    out = torch.empty(*x.shape[:-1], width_out, dtype=torch.float32, device=x.device)
    if rows.shape[0]:
        block = triton.next_power_of_2(width)
        _row_kernel[(rows.shape[0],)](
            rows, out, WIDTH=width, BLOCK=block, SOFTMAX=is_softmax, num_warps=1 + 3 * (block > 512)
        )
    return out


@triton.jit
def _row_kernel(x, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SOFTMAX: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    here = column < WIDTH
    if SOFTMAX:
        given = tl.load(x + row * WIDTH + column, mask=here, other=float("-inf")).to(tl.float32)
        weights = tl.exp(given - tl.max(given, 0))
        tl.store(out + row * WIDTH + column, weights / tl.sum(weights, 0), mask=here)
    else:
        given = tl.load(x + row * WIDTH + column, mask=here, other=0.0).to(tl.float32)
        tl.store(out + row, tl.sum(given, 0))
