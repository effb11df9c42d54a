"""A token's experts and their shares, from its router's logits, in one launch.

    rank:    x, the logits, for a soft-max; sigmoid(x) + bias for a sigmoid
    chosen:  the k greatest by rank; of equal ones those with the lower numbers
    shares:  exp(x) over their sum, over all experts or over those chosen; or sigmoid(x), plain or
             over its sum over those chosen; times a factor

The soft-max over those chosen is what is left of one over all when its k greatest are divided by
their sum. Of equal numbers torch.topk may take any. All is computed in fp32 and rounded once.

A program, which is one warp, holds a row's ranks in registers as integers of the same order, and
takes the greatest k times: two reductions each, which are one instruction of the warp. Rows are a
few hundred bytes, so it is bound by the latency of those and of a launch. A row's result depends on
that row alone. Definition: `reference_experts.py`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.inputs import FLOATS, check_contiguous, check_last_contiguous
from hydragen_kernels.layer_forms import Scores

_LEAST = tl.constexpr(1e-20)  # what is added to a sum of sigmoids, which may be nothing
_TAKEN = tl.constexpr(-(1 << 31))  # below every number
_WARP_BLOCKS = 32, 1024  # the least and the most experts that a warp looks at


class Routes(NamedTuple):
    """Where tokens go.

    Attributes:
        chosen: `[tokens, choices]` int64, experts, the greatest first.
        shares: `[tokens, choices]`.
    """

    chosen: Tensor
    shares: Tensor


def route(
    logits: Tensor,
    choices: int,
    *,
    scores: Scores,
    is_normalised: bool,
    dtype: torch.dtype,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> Routes:
    """Chooses experts for tokens.

    Args:
        logits: `[tokens, experts]` fp16, bf16 or fp32, the last dimension dense.
        choices: experts a token.
        scores: what is made of logits.
        is_normalised: whether a token's shares sum up to one, before they are scaled.
        dtype: of the shares.
        scale: factor of the shares.
        bias: `[experts]`, dense, any floating dtype: added to sigmoids for the choice; or None.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    if logits.ndim != 2 or logits.dtype not in FLOATS:
        raise ValueError(
            "logits: expected fp16, bf16 or fp32 [tokens, experts], got "
            f"{logits.dtype} {list(logits.shape)}"
        )
    check_last_contiguous("logits", logits)
    tokens, experts = logits.shape
    if not 0 < choices <= experts:
        raise ValueError(f"choices: expected 1 to {experts}, the number of experts, got {choices}")
    if bias is not None:
        if scores != Scores.SIGMOID:
            raise ValueError("bias: it is for the choice by sigmoids")
        check_contiguous("bias", bias, bias.dtype, (experts,))
    chosen = torch.empty(tokens, choices, dtype=torch.int64, device=logits.device)
    shares = torch.empty(tokens, choices, dtype=dtype, device=logits.device)
    least, most = _WARP_BLOCKS
    block = max(least, triton.next_power_of_2(experts))
    if tokens:
        _route_kernel[(tokens,)](
            logits,
            bias,
            chosen,
            shares,
            logits.stride(0),
            scale,
            EXPERTS=experts,
            CHOICES=choices,
            BLOCK=block,
            BLOCK_C=triton.next_power_of_2(choices),
            SIGMOID=scores == Scores.SIGMOID,
            NORMALISED=is_normalised,
            num_warps=max(1, block // most),
        )
    return Routes(chosen, shares)


@triton.jit
def _route_kernel(
    logits,
    bias,
    chosen,
    shares,
    stride,
    scale,
    EXPERTS: tl.constexpr,
    CHOICES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SIGMOID: tl.constexpr,
    NORMALISED: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = logits + token * stride
    expert = tl.arange(0, BLOCK)
    is_expert = expert < EXPERTS
    x = tl.load(row + expert, mask=is_expert, other=float("-inf")).to(tl.float32)
    rank = x
    if SIGMOID:
        rank = _sigmoid(x)
        if bias is not None:
            rank += tl.load(bias + expert, mask=is_expert, other=0.0).to(tl.float32)
    left = tl.where(is_expert, _in_order(rank), _TAKEN)
    place = tl.arange(0, BLOCK_C)
    taken = tl.zeros([BLOCK_C], tl.int32)
    for choice in range(CHOICES):
        first = tl.min(tl.where(left == tl.max(left, 0), expert, BLOCK), 0)
        taken = tl.where(place == choice, first, taken)
        left = tl.where(expert == first, _TAKEN, left)
    is_place = place < CHOICES
    of_taken = tl.load(row + taken, mask=is_place, other=float("-inf")).to(tl.float32)
    if SIGMOID:
        share = tl.where(is_place, _sigmoid(of_taken), 0.0)
        if NORMALISED:
            share = share / (tl.sum(share, 0) + _LEAST)
    else:
        greatest = tl.max(of_taken, 0)
        share = tl.exp(of_taken - greatest)
        share = share / tl.sum(share if NORMALISED else tl.exp(x - greatest), 0)
    to = token * CHOICES + place
    tl.store(chosen + to, taken.to(tl.int64), mask=is_place)
    tl.store(shares + to, (share * scale).to(shares.dtype.element_ty), mask=is_place)


@triton.jit
def _sigmoid(x):
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, small) / (1.0 + small)


@triton.jit
def _in_order(x):
    """Integers of the same order as floats."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)  # -0 + 0 is 0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
