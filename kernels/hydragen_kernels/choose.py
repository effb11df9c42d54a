"""Logits to tokens without a sort: temperature, top-k, top-p, min-p, then an inverse-CDF draw.

With m the row's greatest logit and T the temperature, a token of logit x weighs
w(x) = exp((x - m) / T). Filters come in the order transformers applies them, each on what the one
before kept, and each keeps equal logits together:

    top-k    keep x if fewer than k logits are greater
    top-p    keep x if the greater logits kept so far have less than p of the weight kept so far
    min-p    keep x if w(x) >= min_p

The first two are thresholds on x. They are found by bisection, three cuts a pass over the row,
until one distinct logit is left between the bounds.

The draw: u = (word + 0.5) / 2^32 with word the first of Philox4x32-10 (Salmon et al., SC 2011)
under key = the sample's stream key and counter = (position, 0, 0, 0); the token is the first in
vocabulary order whose cumulative kept weight exceeds u times the whole. Cumulative weights are
fp64, so that the draw agrees with the CPU's but for ties.

Bound: memory; two passes over the logits without filters, six to fifteen with. One
program a row, so that rows at work stay in L2.
"""

import math

import torch
import triton
import triton.language as tl

from hydragen_kernels.bisect_row import bisect_threshold, load_block, weight_above
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.inputs import FLOATS, check_contiguous, check_int32, check_last_contiguous

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)
_WEIGHTLESS = 128.0  # a logit this many temperatures below the greatest weighs 0 in fp32


@triton.jit
def _row_kernel(
    logits,
    stride,
    vocab,
    rate,
    top_k,
    top_p,
    least,
    lowest,
    nucleus,
    floors,
    peaks,
    raw_lses,
    best,
    masses,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    GREEDY: tl.constexpr,
    LANES: tl.constexpr,
    VEC: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Find each row's threshold, raw log-sum-exp and kept weight by part of a block."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    top = tl.full([LANES], float("-inf"), tl.float32)  # of each lane, as are the sums
    raw = tl.zeros([LANES], tl.float32)
    mass = tl.zeros([LANES], tl.float32)
    first = tl.zeros([LANES], tl.int32)
    ahead = load_block(logits, 0, vocab, LANES, VEC)
    for start in range(0, vocab, LANES * VEC):
        x = ahead.to(tl.float32)
        ahead = load_block(logits, start + LANES * VEC, vocab, LANES, VEC)
        here = tl.max(x, 1)
        if GREEDY:
            index = start + tl.arange(0, LANES)[:, None] * VEC + tl.arange(0, VEC)[None, :]
            first_here = tl.min(tl.where(x == here[:, None], index, 2147483647), 1)
            first = tl.where(here > top, first_here, first)
        new_top = tl.maximum(top, here)
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        raw = raw * tl.exp2((top - shift) * _LOG2_E)
        raw += tl.sum(tl.exp2((x - shift[:, None]) * _LOG2_E), 1)
        if TOP_P:
            mass = mass * tl.exp2((top - shift) * rate)
            mass += tl.sum(tl.exp2((x - shift[:, None]) * rate), 1)
        top = new_top
    peak = tl.max(top, 0)
    raw_lse = peak + tl.log2(tl.sum(raw * tl.exp2((top - peak) * _LOG2_E), 0)) * _LN_2
    tl.store(peaks + row, peak)
    tl.store(raw_lses + row, raw_lse)
    if GREEDY:
        tl.store(best + row, tl.min(tl.where(top == peak, first, 2147483647), 0))
        return

    floor = peak + lowest
    whole = tl.sum(mass * tl.exp2((top - peak) * rate), 0)
    if TOP_K:
        floor = bisect_threshold(logits, vocab, floor, peak, top_k, peak, rate, False, LANES, VEC)
        if TOP_P:
            whole = weight_above(logits, vocab, floor, peak, rate, LANES, VEC)
    if TOP_P:
        low = tl.maximum(floor, peak + nucleus)
        floor = bisect_threshold(
            logits, vocab, low, peak, top_p * whole, peak, rate, True, LANES, VEC
        )
    tl.store(floors + row, floor)

    at_least = peak + least
    blocks = tl.cdiv(vocab, LANES * VEC)
    ahead = load_block(logits, 0, vocab, LANES, VEC)
    for block in range(0, blocks):
        x = ahead.to(tl.float32)
        ahead = load_block(logits, (block + 1) * (LANES * VEC), vocab, LANES, VEC)
        kept = (x > floor) & (x >= at_least)
        weight = tl.where(kept, tl.exp2((x - peak) * rate), 0.0)
        mass_lane = tl.sum(weight.to(tl.float64), 1)
        part = tl.sum(tl.reshape(mass_lane, [PARTS, LANES // PARTS]), 1)
        tl.store(masses + (row * blocks + block) * PARTS + tl.arange(0, PARTS), part)


@triton.jit
def _sample_kernel(
    logits,
    stride,
    vocab,
    rate,
    least,
    sample_rows,
    stream_keys,
    positions,
    floors,
    peaks,
    raw_lses,
    best,
    masses,
    tokens,
    raw_logprobs,
    sampled_logprobs,
    rows,
    blocks,
    GREEDY: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Draw one sample's token from its row."""
    sample = tl.program_id(0)
    row = tl.load(sample_rows + sample).to(tl.int64)
    if (row < 0) | (row >= rows):  # padding
        tl.store(tokens + sample, -1)
        tl.store(raw_logprobs + sample, 0.0)
        tl.store(sampled_logprobs + sample, 0.0)
        return
    logits += row * stride
    peak = tl.load(peaks + row)
    if GREEDY:
        token = tl.minimum(tl.load(best + row), vocab - 1)  # beyond it where all are NaN
        sampled = 0.0
        x_token = tl.load(logits + token).to(tl.float32)
    else:
        key = tl.load(stream_keys + sample)
        position = tl.load(positions + sample).to(tl.int32)
        zero = position * 0
        word, _, _, _ = tl.philox(key, position, zero, zero, zero)
        u = (word.to(tl.float64) + 0.5) * (1.0 / 4294967296.0)

        block_ids = tl.arange(0, BLOCK_B)
        is_block = block_ids < blocks
        mass = tl.load(masses + row * blocks + block_ids, mask=is_block, other=0.0)
        upto = tl.cumsum(mass, 0)
        whole = tl.max(upto, 0)
        target = u * whole
        block = tl.min(tl.where((upto > target) & (mass > 0.0), block_ids, BLOCK_B), 0)
        before = tl.max(tl.where(block_ids < block, upto, 0.0), 0)

        index = block * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits + index, mask=index < vocab, other=float("-inf")).to(tl.float32)
        kept = (x > tl.load(floors + row)) & (x >= peak + least)
        weight = tl.where(kept, tl.exp2((x - peak) * rate), 0.0)
        upto_token = before + tl.cumsum(weight.to(tl.float64), 0)
        has_weight = weight > 0.0
        last = tl.max(tl.where(has_weight, index, -1), 0)  # where rounding leaves none beyond
        token = tl.min(tl.where((upto_token > target) & has_weight, index, last), 0)
        # Broken logits weigh nothing or NaN: no token is found, but what is stored must be one.
        token = tl.minimum(tl.maximum(token, 0), vocab - 1)
        x_token = tl.max(tl.where(index == token, x, float("-inf")), 0)
        sampled = (x_token - peak) * rate * _LN_2 - tl.log(whole.to(tl.float32))
    tl.store(tokens + sample, token)
    tl.store(raw_logprobs + sample, x_token - tl.load(raw_lses + row))
    tl.store(sampled_logprobs + sample, sampled)


def choose(
    logits: torch.Tensor,
    sample_rows: torch.Tensor,
    stream_keys: torch.Tensor,
    positions: torch.Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Drawn[torch.Tensor]:
    """Draw one token for each sample.

    Args:
        logits: `[rows, vocab]` fp16, bf16 or fp32; last dimension contiguous. -inf forbids a token.
        sample_rows: `[samples]` int32, the row each sample draws from; -1 for padding.
        stream_keys: `[samples]` int64, the 64 bits of each sample's Philox key.
        positions: `[samples]` int32, the Philox counter: index of the token in its sample.
        temperature: divides the logits; 0 means greedy (the first of equal logits).
        top_k: keep the k greatest logits; 0 keeps all.
        top_p: keep the greatest logits with at least this mass, in (0, 1].
        min_p: keep tokens at least this fraction as probable as the best one, in [0, 1].

    Raises:
        ValueError: a shape, dtype, stride or setting is wrong.
    """
    rows, vocab = logits.shape
    samples = sample_rows.shape[0]
    _check_tensors(logits, sample_rows, stream_keys, positions)
    if not (temperature >= 0.0 and top_k >= 0 and 0.0 < top_p <= 1.0 and 0.0 <= min_p <= 1.0):
        raise ValueError(f"settings out of range: {temperature=} {top_k=} {top_p=} {min_p=}")

    device = logits.device
    drawn = Drawn(
        torch.empty(samples, dtype=torch.int32, device=device),
        torch.empty(samples, dtype=torch.float32, device=device),
        torch.empty(samples, dtype=torch.float32, device=device),
    )
    if samples == 0:
        return drawn
    greedy = temperature == 0.0
    warmth = temperature or 1.0
    vec = 16 // logits.element_size()
    lanes = min(1024, max(32, triton.next_power_of_2(vocab) // vec))
    parts = max(1, lanes // 128)  # of a block; a draw looks through one
    blocks = triton.cdiv(vocab, lanes * vec)
    floors, peaks, raw_lses = torch.empty(3, rows, dtype=torch.float32, device=device)
    best = torch.empty(rows, dtype=torch.int32, device=device)
    masses = torch.empty(rows, blocks * parts, dtype=torch.float64, device=device)
    rate = _LOG2_E.value / warmth
    least = warmth * math.log(min_p) if min_p > 0.0 else -math.inf
    nucleus = -warmth * (math.log(vocab / (1.0 - top_p)) + 1.0) if top_p < 1.0 else 0.0
    _row_kernel[(rows,)](
        logits,
        logits.stride(0),
        vocab,
        rate,
        top_k,
        top_p,
        least,
        -_WEIGHTLESS * warmth,
        nucleus,
        floors,
        peaks,
        raw_lses,
        best,
        masses,
        TOP_K=0 < top_k < vocab and not greedy,
        TOP_P=top_p < 1.0 and not greedy,
        GREEDY=greedy,
        LANES=lanes,
        VEC=vec,
        PARTS=parts,
        num_warps=lanes // 32,
    )
    _sample_kernel[(samples,)](
        logits,
        logits.stride(0),
        vocab,
        rate,
        least,
        sample_rows,
        stream_keys,
        positions,
        floors,
        peaks,
        raw_lses,
        best,
        masses,
        drawn.tokens,
        drawn.logprobs,
        drawn.sampled_logprobs,
        rows,
        blocks * parts,
        GREEDY=greedy,
        BLOCK=lanes * vec // parts,
        BLOCK_B=triton.next_power_of_2(blocks * parts),
        num_warps=4,
    )
    return drawn


def _check_tensors(
    logits: torch.Tensor,
    sample_rows: torch.Tensor,
    stream_keys: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    samples = sample_rows.shape[0]
    check_last_contiguous("logits", logits)
    check_int32("sample_rows", sample_rows, (samples,))
    check_int32("positions", positions, (samples,))
    check_contiguous("stream_keys", stream_keys, torch.int64, (samples,))
    if logits.dtype not in FLOATS or logits.shape[1] < 1:
        shape = list(logits.shape)
        raise ValueError(f"logits: expected fp16, bf16 or fp32, got {logits.dtype} {shape}")
