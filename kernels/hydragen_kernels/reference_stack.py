"""Weights of blocks of one bit a number: the definition that `stack.py` is tested against."""

import torch
from torch import Tensor


def stack_weight(signs: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum over blocks of their signs times their absolute values, which are of low rank.

    Args:
        signs: `[blocks, out, ceil(in / 8)]` uint8; a set bit is a plus, the first input the lowest.
        left: `[blocks, out, rank]`.
        right: `[blocks, in, rank]`.
        dtype: of the arithmetic.

    Returns:
        `[out, in]`.
    """
    inputs = torch.arange(right.shape[1], device=signs.device)
    plus = signs[:, :, inputs // 8].int() >> inputs % 8 & 1
    return ((2 * plus - 1).to(dtype) * (left.to(dtype) @ right.to(dtype).mT)).sum(0)
