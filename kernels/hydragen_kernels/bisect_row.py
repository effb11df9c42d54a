"""Passes over a row of logits: the weight above a floor, and a threshold found by bisection.

Functions of `choose.py`, where the whole is described.
"""

import triton
import triton.language as tl


@triton.jit
def load_block(logits, start, vocab, LANES: tl.constexpr, VEC: tl.constexpr):
    """Load one block of a row, -inf beyond its end; loops ask for it one step ahead."""
    index = start + tl.arange(0, LANES)[:, None] * VEC + tl.arange(0, VEC)[None, :]
    return tl.load(logits + index, mask=index < vocab, other=float("-inf"))  # [LANES, VEC]


@triton.jit
def weight_above(logits, vocab, floor, peak, rate, LANES: tl.constexpr, VEC: tl.constexpr):
    """Return the weight of the logits above a floor."""
    mass = tl.zeros([LANES], tl.float32)
    ahead = load_block(logits, 0, vocab, LANES, VEC)
    for start in range(0, vocab, LANES * VEC):
        x = ahead.to(tl.float32)
        ahead = load_block(logits, start + LANES * VEC, vocab, LANES, VEC)
        mass += tl.sum(tl.where(x > floor, tl.exp2((x - peak) * rate), 0.0), 1)
    return tl.sum(mass, 0)


@triton.jit
def bisect_threshold(
    logits,
    vocab,
    low,
    high,
    target,
    peak,
    rate,
    BY_WEIGHT: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
):
    """Raise `low` to just under the smallest logit v with measure(logits > v) < target.

    It counts, or weighs. measure(> low) >= target > measure(> high) holds throughout, until one
    logit is left in between, or several equal ones. Cuts are numbers the logits' type can hold:
    half-precision logits are full of equal ones, and soon no cut lies between two neighbours.
    """
    above_low = vocab
    above_high = 0
    reach = 0.25 if BY_WEIGHT else 0.03125  # the k-th logit is mostly near the top of its bounds
    moved = True
    while moved & (above_low - above_high > 1):
        step = (high - low) * reach
        cut_c = (high - step).to(logits.dtype.element_ty).to(tl.float32)
        cut_b = (high - 2.0 * step).to(logits.dtype.element_ty).to(tl.float32)
        cut_a = (high - tl.where(reach < 0.25, 4.0, 3.0) * step).to(logits.dtype.element_ty)
        cut_a = cut_a.to(tl.float32)
        count_a = tl.zeros([LANES], tl.int32)
        count_b = tl.zeros([LANES], tl.int32)
        count_c = tl.zeros([LANES], tl.int32)
        mass_a = tl.zeros([LANES], tl.float32)
        mass_b = tl.zeros([LANES], tl.float32)
        mass_c = tl.zeros([LANES], tl.float32)
        ahead = load_block(logits, 0, vocab, LANES, VEC)
        for start in range(0, vocab, LANES * VEC):
            x = ahead.to(tl.float32)
            ahead = load_block(logits, start + LANES * VEC, vocab, LANES, VEC)
            count_a += tl.sum((x > cut_a).to(tl.int32), 1)
            count_b += tl.sum((x > cut_b).to(tl.int32), 1)
            count_c += tl.sum((x > cut_c).to(tl.int32), 1)
            if BY_WEIGHT:
                weight = tl.exp2((x - peak) * rate)
                mass_a += tl.sum(tl.where(x > cut_a, weight, 0.0), 1)
                mass_b += tl.sum(tl.where(x > cut_b, weight, 0.0), 1)
                mass_c += tl.sum(tl.where(x > cut_c, weight, 0.0), 1)
        n_a = tl.sum(count_a, 0)
        n_b = tl.sum(count_b, 0)
        n_c = tl.sum(count_c, 0)
        if BY_WEIGHT:
            reached_a = tl.sum(mass_a, 0) >= target
            reached_b = tl.sum(mass_b, 0) >= target
            reached_c = tl.sum(mass_c, 0) >= target
        else:
            reached_a = n_a >= target
            reached_b = n_b >= target
            reached_c = n_c >= target
        # the cuts and the bounds, downwards: high >= c >= b >= a >= low; a cut that rounding put
        # outside its bounds changes nothing
        reached_a = (reached_a | (cut_a <= low)) & (cut_a < high)
        reached_b = (reached_b | (cut_b <= low)) & (cut_b < high)
        reached_c = (reached_c | (cut_c <= low)) & (cut_c < high)
        new_low = low
        new_high = high
        if reached_c:
            new_low = tl.maximum(low, cut_c)
            above_low = tl.minimum(above_low, n_c)
        elif reached_b:
            new_low = tl.maximum(low, cut_b)
            new_high = tl.minimum(high, cut_c)
            above_low = tl.minimum(above_low, n_b)
            above_high = tl.maximum(above_high, n_c)
        elif reached_a:
            new_low = tl.maximum(low, cut_a)
            new_high = tl.minimum(high, cut_b)
            above_low = tl.minimum(above_low, n_a)
            above_high = tl.maximum(above_high, n_b)
        else:
            new_high = tl.minimum(high, cut_a)
            above_high = tl.maximum(above_high, n_a)
        moved = (new_low > low) | (new_high < high) | (reach < 0.25)
        reach = 0.25
        low = new_low
        high = new_high
    return low
