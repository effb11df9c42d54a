"""Rows quantised to float8_e4m3fn with a scale for each group of neighbours, in one launch.

torch takes seven launches for it, through memory in fp32; between the products of a model in 8 bits
that takes as long as 8 bits save (NOTES.md). The numbers are those of torch, bit for bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.fp8 import e4m3_bits
from hydragen_kernels.inputs import FP8

_LEAST = tl.constexpr(1e-12)  # what the largest number is taken for if it is less: no scale is 0
_STEP = tl.constexpr(1.0 / 448.0)
_BLOCK = 2048  # numbers that a program works on, of several groups where they are short
_WIDE = 8192  # a group from here on takes more threads


def quantise_groups(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The largest number of each group becomes 448, and all are rounded to the nearest of e4m3.

    Args:
        x: `[rows, width]`, any floating dtype.
        group: neighbours that share a scale; divides the width.

    Returns:
        Numbers `[rows, width]` float8_e4m3fn, and what each group of them is to be multiplied by,
        `[rows, width / group]` float32.
    """
    x = x.contiguous()
    rows, width = x.shape
    numbers = torch.empty(rows, width, dtype=torch.uint8, device=x.device)
    scale = torch.empty(rows, width // group, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(group)
    per_program = max(1, _BLOCK // block)
    if x.numel():
        _quantise_kernel[(triton.cdiv(scale.numel(), per_program),)](
            x,
            numbers,
            scale,
            scale.numel(),
            GROUP=group,
            BLOCK=block,
            GROUPS=per_program,
            num_warps=4 if block < _WIDE else 16,
        )
    return numbers.view(FP8), scale


@triton.jit
def _quantise_kernel(
    x,
    numbers,
    scale,
    n,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
):
    group = (tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)).to(tl.int64)
    column = tl.arange(0, BLOCK)
    here = (group < n)[:, None] & (column < GROUP)[None, :]
    place = group[:, None] * GROUP + column[None, :]
    wide = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    step = tl.maximum(tl.max(tl.abs(wide), 1), _LEAST) * _STEP
    factor = tl.div_rn(1.0, step)
    tl.store(numbers + place, e4m3_bits(wide * factor[:, None]), here)
    tl.store(scale + group, step, group < n)
