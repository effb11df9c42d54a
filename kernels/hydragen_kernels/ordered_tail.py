"""Attention of each row over its own paged tail, in one order of summation: the last launch.

A program a (row, kv head) adds up the states of the chunks before the tail, goes on with the chunk
that its prefix has left open, closes chunks at the same absolute positions as `ordered_segment`,
and writes what comes out. The incomplete group of keys at the end of a row's prefix is read here,
in front of its tail, so that groups begin at the same positions for every row. Groups before a
row's window are passed over: taking in keys of no weight changes no state.

Bound: memory, as of `tail.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.fp8 import readable, widen_as_it_lies
from hydragen_kernels.inputs import check_attention_inputs, check_int32, check_last_contiguous
from hydragen_kernels.ordered_fold import add_sink, add_states, fold_keys, no_keys
from hydragen_kernels.ordered_schedule import CHUNK, KEY_GROUP
from hydragen_kernels.ordered_segment import AS_WRITTEN, States, check_states

_KEY_GROUP = tl.constexpr(KEY_GROUP)


@triton.jit
def _load_state(memory, at_peak, at_acc, is_member, is_element):
    """A row's state in a partial slot; the mass as `[MEMBERS, 16]`."""
    peaks, masses, accs = memory
    peak = tl.load(peaks + at_peak, mask=is_member, other=0.0)
    mass = tl.load(masses + at_peak, mask=is_member, other=0.0)
    acc = tl.load(accs + at_acc, mask=is_element, other=0.0)
    return peak, mass[:, None] + tl.zeros([1, 16], tl.float32), acc


@triton.jit
def _sum_states(
    memory,
    at_peak,
    at_acc,
    stride_s,
    stride_as,
    n,
    is_member,
    is_element,
    peak,
    mass,
    acc,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The sum of the states in a row's first n slots, and of the one given behind them."""
    sum_peak, sum_mass, sum_acc = no_keys(BLOCK_G, BLOCK_D)
    for _ in range(n):
        one_peak, one_mass, one_acc = _load_state(memory, at_peak, at_acc, is_member, is_element)
        sum_peak, sum_mass, sum_acc = add_states(
            sum_peak, sum_mass, sum_acc, one_peak, one_mass, one_acc
        )
        at_peak += stride_s
        at_acc += stride_as
    return add_states(sum_peak, sum_mass, sum_acc, peak, mass, acc)


@triton.jit
def _ordered_tail_kernel(
    queries,
    keys,
    values,
    page_table,
    lengths,
    prefixes,
    leads,
    counts,
    peaks,
    masses,
    accs,
    sinks,
    firsts,
    out,
    stride_qt,
    stride_qh,
    stride_kh,
    stride_ks,
    stride_vh,
    stride_vs,
    stride_pt,
    stride_s,
    stride_t,
    stride_as,
    stride_at,
    stride_ah,
    scale,
    cap,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE: tl.constexpr,
    CHUNK_K: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    members = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    cols = tl.arange(0, BLOCK_K)
    head = kv_head * GROUP + members
    is_member = members < GROUP
    is_element = is_member[:, None] & (dims < HEAD_DIM)[None, :]
    q_ptr = queries + row * stride_qt + head[:, None] * stride_qh + dims[None, :]
    q = tl.load(q_ptr, mask=is_element, other=0.0)  # [BLOCK_G, BLOCK_D]

    length = tl.load(lengths + row)
    prefix = tl.load(prefixes + row)
    # without a tail the prefix's last group has been met with the others
    lead = tl.where(length > 0, prefix % _KEY_GROUP, 0)
    lead_slot = tl.load(leads + row).to(tl.int64)
    begin = prefix - lead  # where the keys that are read here begin
    n = lead + length

    memory = (peaks, masses, accs)
    at_peak = row * stride_t + head
    at_acc = row * stride_at + head[:, None] * stride_ah + dims[None, :]
    owned = tl.load(counts + row)  # states of chunks before the one under way
    peak, mass, acc = no_keys(BLOCK_G, BLOCK_D)
    if (begin % CHUNK_K != 0) & (owned > 0):
        owned -= 1
        peak, mass, acc = _load_state(
            memory, at_peak + owned * stride_s, at_acc + owned * stride_as, is_member, is_element
        )

    k_base = keys + kv_head * stride_kh
    v_base = values + kv_head * stride_vh
    page_row = page_table + row * stride_pt
    last_page = tl.maximum(length - 1, 0) // PAGE
    start = 0
    if firsts is not None:
        hidden = tl.load(firsts + row) - begin  # keys read here that lie before the row's window
        start = tl.maximum(hidden, 0) // _KEY_GROUP * _KEY_GROUP
    while start < n:
        stop = tl.minimum(n, start + CHUNK_K - (begin + start) % CHUNK_K)
        for at in range(start, stop, BLOCK_K):
            key = at + cols
            is_key = key < stop
            if firsts is not None:
                is_key = is_key & (key >= hidden)
            own = key - lead  # place in the tail; a block's keys lie in two of its pages at most
            first = tl.maximum(at - lead, 0) // PAGE
            page = tl.load(page_row + first).to(tl.int64) * PAGE
            next_page = tl.load(page_row + tl.minimum(first + 1, last_page)).to(tl.int64) * PAGE
            slots = tl.where(own // PAGE > first, next_page, page) + own % PAGE
            slots = tl.where(own < 0, lead_slot + key, slots)
            inside = is_key[:, None] & (dims < HEAD_DIM)[None, :]
            k_ptr = k_base + slots[:, None] * stride_ks + dims[None, :]
            v_ptr = v_base + slots[:, None] * stride_vs + dims[None, :]
            k = widen_as_it_lies(tl.load(k_ptr, mask=inside, other=0.0), q.dtype)
            v = widen_as_it_lies(tl.load(v_ptr, mask=inside, other=0.0), q.dtype)
            peak, mass, acc = fold_keys(
                peak, mass, acc, q, k, v, is_key[None, :], scale, cap, CAPPED, PRECISION
            )
        if stop < n:  # the sum so far waits in the row's first slot: registers are for the keys
            peak, mass, acc = _sum_states(
                memory, at_peak, at_acc, stride_s, stride_as, owned, is_member, is_element,
                peak, mass, acc, BLOCK_G, BLOCK_D,
            )  # fmt: skip
            tl.debug_barrier()
            tl.store(peaks + at_peak, peak, mask=is_member)
            tl.store(masses + at_peak, tl.max(mass, 1), mask=is_member)
            tl.store(accs + at_acc, acc, mask=is_element)
            tl.debug_barrier()
            owned = 1
            peak, mass, acc = no_keys(BLOCK_G, BLOCK_D)
        start = stop
    sum_peak, sum_mass, sum_acc = _sum_states(
        memory, at_peak, at_acc, stride_s, stride_as, owned, is_member, is_element,
        peak, mass, acc, BLOCK_G, BLOCK_D,
    )  # fmt: skip
    if sinks is not None:
        sink = tl.load(sinks + head, mask=is_member, other=float("-inf"))
        sum_peak, sum_mass, sum_acc = add_sink(sum_peak, sum_mass, sum_acc, sink, PRECISION)
    total = tl.max(sum_mass, 1)
    result = sum_acc / tl.where(total > 0.0, total, 1.0)[:, None]
    flat = row * (tl.num_programs(1) * GROUP) + head
    tl.store(out + flat[:, None] * HEAD_DIM + dims[None, :], result, mask=is_element)


def ordered_tails(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    page_tokens: int,
    prefixes: Tensor,
    leads: Tensor,
    states: States,
    counts: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Attend to every row's tail, behind the states of the row's prefix.

    Args:
        queries: `[rows, q_heads, head_dim]` fp16, bf16 or fp32; last dimension contiguous.
        keys: `[kv_heads, slots, head_dim]`, same dtype or fp8; last dimension contiguous.
        values: like `keys`.
        page_table: `[rows, max_pages]` int32; page p covers slots p * page_tokens to
            (p + 1) * page_tokens - 1.
        lengths: `[rows]` int32, tokens of each tail; 0 where a row has none.
        page_tokens: slots of a page, a power of two, at least `KEY_GROUP`.
        prefixes: `[rows]` int32, keys that each row meets before its tail.
        leads: `[rows]` int32, the first slot of the incomplete group at the end of these.
        states: of the prefixes, but for that group where there is a tail; at least one slot. The
            first one may be written.
        counts: `[rows]` int32, partial slots each row owns (the first ones).
        scale: factor of the scores, positive.
        softcap: bound c of scores -> c tanh(scores / c), or None.
        sinks: `[q_heads]`, a score every softmax of that head also counts, or None.
        first: `[rows]` int32, the first position of its sequence that each row sees, its last key
            or one before; None: all.

    Returns:
        `[rows, q_heads, head_dim]` in the query dtype; 0 for a row without keys.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows, q_heads, head_dim = queries.shape
    group = check_attention_inputs(queries, keys, values, scale, softcap)
    check_states(states, rows, q_heads, head_dim)
    named = {"lengths": lengths, "prefixes": prefixes, "leads": leads, "counts": counts}
    if first is not None:
        named["first"] = first
    for name, tensor in named.items():
        check_int32(name, tensor, (rows,))
    check_last_contiguous("page_table", page_table)
    if page_table.dtype != torch.int32 or page_table.shape[0] != rows:
        raise ValueError(f"page_table: expected int32 [{rows}, max_pages], got {page_table.dtype}")
    if page_tokens < KEY_GROUP or page_tokens & (page_tokens - 1):
        raise ValueError(
            f"page_tokens: expected a power of two, at least {KEY_GROUP}, got {page_tokens}"
        )
    out = torch.empty(rows, q_heads, head_dim, dtype=queries.dtype, device=queries.device)
    if rows == 0:
        return out
    _ordered_tail_kernel[(rows, q_heads // group)](
        queries,
        readable(keys),
        readable(values),
        page_table,
        lengths,
        prefixes,
        leads,
        counts,
        *states,
        sinks,
        first,
        out,
        *queries.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        page_table.stride(0),
        *states.peak.stride()[:2],
        *states.acc.stride()[:3],
        scale,
        softcap or 1.0,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_G=max(16, triton.next_power_of_2(group)),
        BLOCK_K=min(page_tokens, tail_block(head_dim, rows * (q_heads // group))),
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        PAGE=page_tokens,
        CHUNK_K=CHUNK,
        CAPPED=softcap is not None,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        num_warps=1 if head_dim <= 128 else 2,
        num_stages=2,
        **AS_WRITTEN,
    )
    return out


def tail_block(head_dim: int, programs: int) -> int:
    """Keys of a step: many small programs keep memory busiest, few need longer steps.

    Args:
        head_dim: elements of a head.
        programs: of the launch.
    """
    return 16 if programs > 528 or head_dim > 128 else 32
