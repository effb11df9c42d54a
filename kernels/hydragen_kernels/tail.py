"""Attention of each row over its own paged tail, with the merge of its partials as epilogue.

Same equations as `segment.py`; one program a (row, kv head) keeps the running maximum, sum and
output in registers, folds in the partials of the row's segments and its sink, and writes the final
output: no merge launch, nothing written twice.

With grouped heads the scores come from a 16-row tensor-core product. With one query head a kv head
every lane of keys runs an online softmax of its own, so that the loop needs no exchange between
lanes; they are merged once at the end.

Bound: memory. Each key and value is read once, 4 head_dim bytes a token, head and layer in bf16,
half of that in fp8.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.fp8 import readable, widen
from hydragen_kernels.inputs import (
    check_attention_inputs,
    check_int32,
    check_pages,
    check_partials,
)
from hydragen_kernels.merge import finish, fold, merge
from hydragen_kernels.segment import soft_cap

_LOG2_E = tl.constexpr(1.4426950408889634)
_FEW_PROGRAMS = 528


@triton.jit
def _slots(page_row, start, cols, end, PAGE: tl.constexpr, BLOCK_K: tl.constexpr):
    """Return the arena slots of tail positions start + cols; those past `end` are arbitrary."""
    if PAGE % BLOCK_K == 0:  # the block lies within one page
        page = tl.load(page_row + start // PAGE).to(tl.int64)
        return page * PAGE + start % PAGE + cols
    else:
        position = start + cols
        page = tl.load(page_row + position // PAGE, mask=position < end, other=0).to(tl.int64)
        return page * PAGE + position % PAGE


@triton.jit
def _skipped(first, positions, row, length):
    """Tokens at the beginning of a row's tail that it does not see through its window."""
    seen = tl.load(first + row) - (tl.load(positions + row) + 1 - length)
    return tl.minimum(tl.maximum(seen, 0), tl.maximum(length - 1, 0))


@triton.jit
def _attend_lanes(
    q,
    keys,
    values,
    page_row,
    stride_ks,
    stride_vs,
    begin,
    start,
    end,
    scale,
    cap,
    HEAD_DIM: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """One query against keys start .. end - 1, from begin on; each lane is an online softmax."""
    cols = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    lane_peak = tl.full([BLOCK_K], float("-inf"), tl.float32)
    lane_total = tl.zeros([BLOCK_K], tl.float32)
    lane_acc = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for at in range(start, end, BLOCK_K):
        slots = _slots(page_row, at, cols, end, PAGE, BLOCK_K)
        is_key = at + cols < end
        if begin is not None:
            is_key = is_key & (at + cols >= begin)
        inside = is_key[:, None] & (dims < HEAD_DIM)[None, :]
        k = tl.load(keys + slots[:, None] * stride_ks + dims[None, :], mask=inside, other=0.0)
        v = tl.load(values + slots[:, None] * stride_vs + dims[None, :], mask=inside, other=0.0)
        scores = tl.sum(q * widen(k, tl.float32), 1) * scale  # [BLOCK_K]
        if CAPPED:
            scores = soft_cap(scores, cap)
        scores = tl.where(is_key, scores * _LOG2_E, float("-inf"))
        new_peak = tl.maximum(lane_peak, scores)
        shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        decay = tl.exp2(lane_peak - shift)
        weight = tl.exp2(scores - shift)
        lane_total = lane_total * decay + weight
        lane_acc = lane_acc * decay[:, None] + weight[:, None] * widen(v, tl.float32)
        lane_peak = new_peak
    peak = tl.max(lane_peak, 0)
    weight = tl.exp2(lane_peak - tl.where(peak == float("-inf"), 0.0, peak))
    total = tl.sum(lane_total * weight, 0)
    acc = tl.sum(lane_acc * weight[:, None], 0)
    one = tl.zeros([1], tl.float32)
    return one + peak, one + total, acc[None, :]


@triton.jit
def _attend_group(
    q,
    keys,
    values,
    page_row,
    stride_ks,
    stride_vs,
    begin,
    start,
    end,
    scale,
    cap,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The grouped queries of a kv head against keys start .. end - 1, seen from begin on."""
    cols = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    peak = tl.full([BLOCK_G], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    for at in range(start, end, BLOCK_K):
        slots = _slots(page_row, at, cols, end, PAGE, BLOCK_K)
        is_key = at + cols < end
        if begin is not None:
            is_key = is_key & (at + cols >= begin)
        inside = is_key[:, None] & (dims < HEAD_DIM)[None, :]
        k = tl.load(keys + slots[:, None] * stride_ks + dims[None, :], mask=inside, other=0.0)
        v = tl.load(values + slots[:, None] * stride_vs + dims[None, :], mask=inside, other=0.0)
        k, v = widen(k, q.dtype), widen(v, q.dtype)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale  # [BLOCK_G, BLOCK_K]
        if CAPPED:
            scores = soft_cap(scores, cap)
        scores = tl.where(is_key[None, :], scores * _LOG2_E, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))  # finite: a block has at least one key
        decay = tl.exp2(peak - new_peak)
        weights = tl.exp2(scores - new_peak[:, None])
        total = total * decay + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
        peak = new_peak
    return peak, total, acc


@triton.jit
def _tail_kernel(
    queries,
    keys,
    values,
    page_table,
    lengths,
    partial_out,
    partial_lse,
    counts,
    sinks,
    first,
    positions,
    out,
    lse,
    stride_qt,
    stride_qh,
    stride_kh,
    stride_ks,
    stride_vh,
    stride_vs,
    stride_pt,
    stride_ps,
    stride_po,
    stride_ph,
    stride_ls,
    stride_lt,
    scale,
    cap,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr,
    SPLITS: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    members = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + members
    is_member = members < GROUP
    is_element = is_member[:, None] & (dims < HEAD_DIM)[None, :]

    length = tl.load(lengths + row)
    owned = tl.load(counts + row)
    begin = None
    start = 0
    if first is not None:
        begin = _skipped(first, positions, row, length)
        start = begin // BLOCK_K * BLOCK_K
    chunk = tl.cdiv(tl.cdiv(length - start, SPLITS), BLOCK_K) * BLOCK_K
    start += split * chunk
    end = tl.minimum(start + chunk, length)
    k_base = keys + kv_head * stride_kh
    v_base = values + kv_head * stride_vh
    page_row = page_table + row * stride_pt
    q_ptr = queries + row * stride_qt + head[:, None] * stride_qh + dims[None, :]
    q = tl.load(q_ptr, mask=is_element, other=0.0)  # [BLOCK_G, BLOCK_D]
    if BLOCK_G == 1:
        peak, total, acc = _attend_lanes(
            q.to(tl.float32), k_base, v_base, page_row, stride_ks, stride_vs,
            begin, start, end, scale, cap, HEAD_DIM, BLOCK_K, BLOCK_D, PAGE, CAPPED,
        )  # fmt: skip
    else:
        peak, total, acc = _attend_group(
            q, k_base, v_base, page_row, stride_ks, stride_vs, begin,
            start, end, scale, cap, HEAD_DIM, BLOCK_G, BLOCK_K, BLOCK_D, PAGE, CAPPED, PRECISION,
        )  # fmt: skip

    if split == 0:
        o_ptr = partial_out + row * stride_po + head[:, None] * stride_ph + dims[None, :]
        l_ptr = partial_lse + row * stride_lt + head
        for _ in range(owned):
            one_lse = tl.load(l_ptr, mask=is_member, other=float("-inf"))
            one_out = tl.load(o_ptr, mask=is_element, other=0.0)
            peak, total, acc = fold(peak, total, acc, one_lse, one_out)
            o_ptr += stride_ps
            l_ptr += stride_ls
        if sinks is not None:
            sink = tl.load(sinks + head, mask=is_member, other=float("-inf")).to(tl.float32)
            peak, total, acc = fold(peak, total, acc, sink, tl.zeros_like(acc))

    result, result_lse = finish(peak, total, acc)
    flat = (split * tl.num_programs(0) + row) * (tl.num_programs(1) * GROUP) + head
    tl.store(out + flat[:, None] * HEAD_DIM + dims[None, :], result, mask=is_element)
    tl.store(lse + flat, result_lse, mask=is_member)


def block_shape(head_dim: int, group: int, programs: int) -> tuple[int, int, int]:
    """Choose keys a step, warps and pipeline stages; measured on an H200.

    Many small programs keep memory busiest. Few programs need more warps to shorten their loops.
    """
    warps = 1 if head_dim <= 128 else 2
    if group == 1:  # lanes keep 32 fp32 accumulators a thread
        return 8, warps, 2
    if programs > _FEW_PROGRAMS:
        return 16, warps, 2
    return 64, 4, 2


def tail_splits(
    rows: int, kv_heads: int, longest: int, multiprocessors: int = 132, group: int = 1
) -> int:
    """Choose into how many programs a tail is split, from what the host knows of the plan.

    Args:
        rows: rows of the batch.
        kv_heads: key/value heads.
        longest: tokens the longest tail may have.
        multiprocessors: of the device.
        group: query heads that share a kv head.

    Returns:
        1 when the rows alone fill the device: more costs a second launch, for the merge.
    """
    programs = max(1, rows * kv_heads)
    full = (24 if group == 1 else 4) * multiprocessors  # ungrouped programs are the smaller ones
    return max(1, min(-(-full // programs), longest // 128, 64))


def tail_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    page_tokens: int,
    partial_out: torch.Tensor,
    partial_lse: torch.Tensor,
    counts: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    splits: int = 1,
    first: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to every row's tail and merge with the row's partials.

    Args:
        queries: `[rows, q_heads, head_dim]` fp16, bf16 or fp32; last dimension contiguous.
        keys: `[kv_heads, slots, head_dim]`, same dtype or fp8; last dimension contiguous.
        values: like `keys`.
        page_table: `[rows, max_pages]` int32; page p covers slots p * page_tokens to
            (p + 1) * page_tokens - 1.
        lengths: `[rows]` int32, tokens of each tail; 0 leaves the merge of the partials.
        page_tokens: slots of a page, a power of two.
        partial_out: `[partial_slots, rows, q_heads, head_dim]` fp32; last dimension contiguous.
        partial_lse: `[partial_slots, rows, q_heads]` fp32, natural logarithm.
        counts: `[rows]` int32, partial slots each row owns (the first ones).
        scale: factor of the scores, positive.
        softcap: bound c of scores -> c tanh(scores / c), or None.
        sinks: `[q_heads]`, a score every softmax of that head also counts, or None.
        splits: programs a tail is split into, as `tail_splits` chooses.
        first: `[rows]` int32, the first position of its sequence that each row sees; None: all.
        positions: `[rows]` int32, each row's own; given where `first` is.

    Returns:
        `(out, lse)`: `[rows, q_heads, head_dim]` in the query dtype and `[rows, q_heads]` fp32
        with the sink counted; (0, -inf) for a row without keys and sinks.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows, q_heads, head_dim = queries.shape
    group = check_attention_inputs(queries, keys, values, scale, softcap)
    check_partials(partial_out, partial_lse, rows, q_heads, head_dim)
    check_int32("lengths", lengths, (rows,))
    check_int32("counts", counts, (rows,))
    check_pages(page_table, page_tokens, rows, splits)
    if (first is None) != (positions is None):
        raise ValueError("first and positions: expected both or neither")
    if first is not None and positions is not None:
        check_int32("first", first, (rows,))
        check_int32("positions", positions, (rows,))

    whole = splits == 1
    shape = (rows, q_heads) if whole else (splits, rows, q_heads)
    dtype = queries.dtype if whole else torch.float32
    out = torch.empty(*shape, head_dim, dtype=dtype, device=queries.device)
    lse = torch.empty(shape, dtype=torch.float32, device=queries.device)
    if rows == 0:
        return queries.new_empty(queries.shape), lse.new_empty(0, q_heads)
    block_d = max(16, triton.next_power_of_2(head_dim))
    block_k, num_warps, num_stages = block_shape(
        head_dim, group, rows * (q_heads // group) * splits
    )
    _tail_kernel[(rows, q_heads // group, splits)](
        queries,
        readable(keys),
        readable(values),
        page_table,
        lengths,
        partial_out,
        partial_lse,
        counts,
        sinks,
        first,
        positions,
        out,
        lse,
        *queries.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        page_table.stride(0),
        *partial_out.stride()[:3],
        *partial_lse.stride()[:2],
        scale,
        softcap or 1.0,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_G=1 if group == 1 else max(16, triton.next_power_of_2(group)),
        BLOCK_K=block_k,
        BLOCK_D=block_d,
        PAGE=page_tokens,
        SPLITS=splits,
        CAPPED=softcap is not None,
        PRECISION="tf32x3" if queries.dtype == torch.float32 else "tf32",
        num_warps=num_warps,
        num_stages=num_stages,
    )
    if whole:
        return out, lse
    return merge(out, lse, dtype=queries.dtype)
