"""Soft-max sums that do not depend on where they are interrupted: what ordered kernels share.

A state of some keys is (peak, mass, acc):

    out = acc / mass,   mass = sum 2^(s - peak),   acc = sum 2^(s - peak) v,   s = score log2(e)

with an *integer* peak, the running maximum rounded up. Then a change of peak scales mass and acc by
a power of two, which rounds nothing, and a weight has the same digits under any peak. So it does
not matter after how many keys the peak is looked at. An acc takes in keys by the same
instructions, in ascending order: 16 keys each in bf16, 8 in tf32, single ones in fp32. Only with
fp16 values, the 16 keys of two instructions are in another order, the same in all forms
(`ordered_schedule.ordered_config`). A mass is 16 sums, each of every 16th key, again in ascending
order; they are added up when all keys have been taken in. A state is thus a function of its keys'
order alone: of no tile's size, of no other row.

In 16 bits s is rounded to a multiple of 2^-13 by adding it to a number so large that nothing finer
is left: then s - peak is exact, and its weight has the same digits whatever the peak. Peaks are
kept with that number added. With fp16 values, weights are in tf32, which has fp16's digits and
fp32's range: in fp16 small weights would lose digits, as many as the peak has them lose.

All of it holds down to weights of 2^-126 of the greatest. One of a mass's sums may have nothing but
smaller ones, and other digits then, if the peak rose in other steps; the total, of which one sum is
at least half a greatest weight, does not see them.
"""

import triton
import triton.language as tl

from hydragen_kernels.ordered_schedule import KEY_GROUP
from hydragen_kernels.segment import soft_cap

_KEY_GROUP = tl.constexpr(KEY_GROUP)
_LOG2_E = tl.constexpr(1.4426950408889634)
# 1.5 2^23 2^-13: from 2^10 to 2^11, numbers of fp32 are 2^-13 apart
_GRID = tl.constexpr(1536.0)
NO_KEYS = tl.constexpr(-1.2676506002282294e30)  # the peak of no keys: any other is greater


@triton.jit
def no_keys(ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The state of no keys."""
    return (
        tl.full([ROWS], NO_KEYS, tl.float32),
        tl.zeros([ROWS, _KEY_GROUP], tl.float32),
        tl.zeros([ROWS, BLOCK_D], tl.float32),
    )


@triton.jit
def score_levels(scores, scale, cap, CAPPED: tl.constexpr, FINE: tl.constexpr):
    """Scores in powers of two, where they are compared with peaks."""
    factor = scale * _LOG2_E
    if CAPPED:
        scores = soft_cap(scores * scale, cap)
        factor = _LOG2_E
    if FINE:
        return scores * factor
    return tl.fma(scores, factor, _GRID)


@triton.jit
def level_weights(levels, peak, FINE: tl.constexpr):
    """2^(level - peak), the digits of which do not depend on the peak."""
    if FINE:  # the fraction alone decides on the digits
        finite = tl.maximum(levels, peak - 256.0)  # which weighs nothing either
        whole = tl.floor(finite)
        weights = tl.exp2(finite - whole) * tl.exp2(whole - peak)
        return tl.where(levels == float("-inf"), 0.0, weights)
    return tl.exp2(levels - peak)


@triton.jit
def halves(x):
    """The left and the right columns of `[ROWS, N]`."""
    parts = tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2])
    return tl.split(tl.permute(parts, (0, 2, 1)))


@triton.jit
def add_weights(mass, weights):
    """A mass `[ROWS, KEY_GROUP]` and the weights `[ROWS, KEYS]` of whole groups, in their order."""
    if weights.shape[1] == mass.shape[1]:
        return mass + weights
    else:
        left, right = halves(weights)
        return add_weights(add_weights(mass, left), right)


@triton.jit
def total_mass(mass):
    """The sum of a mass, `[ROWS]`, in one order whatever the layout."""
    if mass.shape[1] == 1:
        return tl.reshape(mass, [mass.shape[0]])
    else:
        left, right = halves(mass)
        return total_mass(left + right)


@triton.jit
def fold_keys(
    peak,
    mass,
    acc,
    q,
    k,
    v,
    visible,
    scale,
    cap,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Fold keys `[KEYS, BLOCK_D]` into the state of rows `[ROWS, BLOCK_D]`.

    Args:
        visible: `[ROWS, KEYS]`, or None: all. Values of keys that nobody sees are finite.
        PRECISION: "ieee" in fp32, else "tf32".
    """
    fine: tl.constexpr = PRECISION == "ieee"
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    levels = score_levels(scores, scale, cap, CAPPED, fine)
    if visible is not None:
        levels = tl.where(visible, levels, float("-inf"))
    new_peak = tl.maximum(peak, tl.ceil(tl.max(levels, 1)))
    weights = level_weights(levels, new_peak[:, None], fine)
    decay = tl.exp2(peak - new_peak)
    mass = add_weights(mass * decay[:, None], weights)
    if v.dtype == tl.float16:
        v = v.to(tl.float32)
        bits = weights.to(tl.uint32, bitcast=True) + 0x1000
        weights = (bits & 0xFFFFE000).to(tl.float32, bitcast=True)  # tf32, rounded
    weights = weights.to(v.dtype)
    acc = tl.dot(weights, v, acc * decay[:, None], input_precision=PRECISION)
    return new_peak, mass, acc


@triton.jit
def add_states(peak, mass, acc, other_peak, other_mass, other_acc):
    """The state of the keys of both, rounded once."""
    new_peak = tl.maximum(peak, other_peak)
    own, other = tl.exp2(peak - new_peak)[:, None], tl.exp2(other_peak - new_peak)[:, None]
    return new_peak, mass * own + other_mass * other, acc * own + other_acc * other


@triton.jit
def add_sink(peak, mass, acc, sink, PRECISION: tl.constexpr):
    """The state with one more score `[ROWS]` that has no value."""
    fine: tl.constexpr = PRECISION == "ieee"
    level = score_levels(sink.to(tl.float32), 1.0, 1.0, False, fine)
    sink_peak = tl.maximum(tl.ceil(level), NO_KEYS)
    weight = level_weights(level, sink_peak, fine)
    is_first = tl.arange(0, _KEY_GROUP)[None, :] == 0
    sink_mass = tl.where(is_first, weight[:, None], 0.0)
    return add_states(peak, mass, acc, sink_peak, sink_mass, tl.zeros_like(acc))
