"""Keys and values of 8 bits, torch's float8_e4m3fn, as the other kernels read and write them.

    value = (-1)^s 2^(e - 7) (1 + m / 8),  e > 0         value = (-1)^s 2^-6 m / 8,  e = 0

Eight bits s eeee mmm; the largest number is 448, and there is no infinity. No scales: a number is
stored as the nearest one of the format, one beyond its range as +-448.

Devices from sm_89 on convert by instruction. Earlier ones, which Triton gives no such type, read
the bits as uint8. Writing is done in bits everywhere: few numbers are written, all are read often,
and Triton's interpreter rounds the conversion wrongly.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import FP8


@triton.jit
def widen(x, dtype: tl.constexpr):
    """Return keys or values in the type they are computed in: exact. uint8 are bits of e4m3."""
    if x.dtype == tl.uint8:
        bits = x.to(tl.uint16)
        halves = ((bits & 0x7F) << 7 | (bits & 0x80) << 8).to(tl.float16, bitcast=True)
        return (halves * 256.0).to(dtype)  # the exponent is 8 less in e4m3 than in fp16
    elif x.dtype == tl.float8e4nv and dtype == tl.bfloat16:
        return x.to(tl.float32).to(dtype)  # e4m3 arrives as fp16, from which sm_90 is slow to bf16
    else:
        return x.to(dtype)


@triton.jit
def widen_as_it_lies(x, dtype: tl.constexpr):
    """Return `[A, B]` as `widen` does, to be multiplied in the order in which it lies.

    Where the compiler sees that an operand of a product was narrower, it has an instruction of
    single warps take in numbers that lie apart, as many as fit into 32 bits from each place, and
    one of four warps not. It does not look behind a reduction, which is of one number here.
    """
    wide = widen(x, dtype)
    if x.dtype == dtype:
        return wide
    else:
        return tl.max(wide[None, :, :], 0).to(dtype)


@triton.jit
def e4m3_bits(x):
    """Return the bits of the nearest e4m3 numbers, ties to even, as uint8; NaN stays NaN."""
    x = x.to(tl.float32)
    size = tl.minimum(tl.abs(x), 448.0)
    bits = size.to(tl.uint32, bitcast=True)
    normal = (bits + 0x7FFFF + (bits >> 20 & 1) >> 20) - (127 - 7 << 3)
    # below 2^-6 numbers are 2^-9 apart, as fp32 from 2^14 on: the sum rounds
    small = (size + 16384.0).to(tl.uint32, bitcast=True) & 0xFF
    code = tl.where(size < 0.015625, small, normal)
    code = tl.where(x == x, code, 0x7F)
    return (code | x.to(tl.uint32, bitcast=True) >> 24 & 0x80).to(tl.uint8)


def readable(arena: torch.Tensor) -> torch.Tensor:
    """The arena as a kernel on its device can read it: e4m3 as bits where Triton has no such type.

    Args:
        arena: keys or values, any dtype.
    """
    if arena.dtype != FP8 or not arena.is_cuda:
        return arena
    knows = torch.cuda.get_device_capability(arena.device) >= (8, 9)
    return arena if knows else arena.view(torch.uint8)
