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
from hydragen_kernels.inputs import check_attention_inputs, check_int32, check_pages
from hydragen_kernels.ordered_fold import add_states, fold_keys, no_keys
from hydragen_kernels.ordered_parts import KEYS, answer, ordered_parts_kernel, reach
from hydragen_kernels.ordered_schedule import CHUNK, KEY_GROUP
from hydragen_kernels.ordered_segment import AS_WRITTEN
from hydragen_kernels.ordered_states import (
    States,
    add_stored,
    check_states,
    load_state,
    store_state,
)


@triton.jit
def _two_pages(page_row, place, last_page, PAGE: tl.constexpr):
    """The page of a place in a tail, and the one behind it, as far as there are any."""
    first = tl.maximum(place, 0) // PAGE
    page = tl.load(page_row + tl.minimum(first, last_page)).to(tl.int64)
    return page, tl.load(page_row + tl.minimum(first + 1, last_page)).to(tl.int64)


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
    part_peaks,
    part_masses,
    part_accs,
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
    SPLITS: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    members = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    cols = tl.arange(0, BLOCK_K)
    head = kv_head * GROUP + members
    is_member = members < GROUP
    is_element = is_member[:, None] & (dims < HEAD_DIM)[None, :]
    q_ptr = queries + row * stride_qt + head[:, None] * stride_qh + dims[None, :]
    q = tl.load(q_ptr, mask=is_element, other=0.0)  # [BLOCK_G, BLOCK_D]
    heads = tl.num_programs(1) * GROUP
    flat = row * heads + head

    lead, begin, n, hidden = reach(lengths, prefixes, firsts, row)
    lead_slot = tl.load(leads + row).to(tl.int64)
    memory = (peaks, masses, accs)
    at_peak = row * stride_t + head
    at_acc = row * stride_at + head[:, None] * stride_ah + dims[None, :]
    owned = tl.load(counts + row)  # states of chunks before the one under way
    peak, mass, acc = no_keys(BLOCK_G, BLOCK_D)
    if (begin % CHUNK_K != 0) & (owned > 0) & (split == 0):
        owned -= 1
        peak, mass, acc = load_state(
            memory, at_peak + owned * stride_s, at_acc + owned * stride_as, is_member, is_element
        )

    k_base = keys + kv_head * stride_kh
    v_base = values + kv_head * stride_vh
    page_row = page_table + row * stride_pt
    last_page = tl.maximum(n - lead - 1, 0) // PAGE
    start = hidden // KEYS * KEYS
    page, next_page = _two_pages(page_row, start - lead, last_page, PAGE)
    chunk = 0
    while start < n:
        stop = tl.minimum(n, start + CHUNK_K - (begin + start) % CHUNK_K)
        if SPLITS > 1:  # of others' chunks no key is read
            start = tl.where(chunk % SPLITS == split, start, stop)
            page, next_page = _two_pages(page_row, start - lead, last_page, PAGE)
        for at in range(start, stop, BLOCK_K):
            key = at + cols
            is_key = key < stop
            if firsts is not None:
                is_key = is_key & (key >= hidden)
            own = key - lead  # place in the tail; a block's keys lie in two of its pages at most
            first = tl.maximum(at - lead, 0) // PAGE
            slots = tl.where(own // PAGE > first, next_page, page) * PAGE + own % PAGE
            slots = tl.where(own < 0, lead_slot + key, slots)
            inside = is_key[:, None] & (dims < HEAD_DIM)[None, :]
            k_ptr = k_base + slots[:, None] * stride_ks + dims[None, :]
            v_ptr = v_base + slots[:, None] * stride_vs + dims[None, :]
            # one block ahead, so that loads of keys wait for nothing
            later = tl.minimum(at + BLOCK_K, stop) - lead
            page, next_page = _two_pages(page_row, later, last_page, PAGE)
            k = widen_as_it_lies(tl.load(k_ptr, mask=inside, other=0.0), q.dtype)
            v = widen_as_it_lies(tl.load(v_ptr, mask=inside, other=0.0), q.dtype)
            peak, mass, acc = fold_keys(
                peak, mass, acc, q, k, v, is_key[None, :], scale, cap, CAPPED, PRECISION
            )
        if SPLITS > 1:
            if chunk % SPLITS == split:
                place = flat + chunk * (tl.num_programs(0).to(tl.int64) * heads)
                store_state(
                    (part_peaks, part_masses, part_accs), place,
                    place[:, None] * HEAD_DIM + dims[None, :], is_member, is_element,
                    peak, mass, acc,
                )  # fmt: skip
                peak, mass, acc = no_keys(BLOCK_G, BLOCK_D)
        elif stop < n:  # the sum so far waits in the row's first slot: registers are for the keys
            sum_peak, sum_mass, sum_acc = add_stored(
                *no_keys(BLOCK_G, BLOCK_D), memory, at_peak, at_acc, stride_s, stride_as, owned,
                is_member, is_element,
            )  # fmt: skip
            peak, mass, acc = add_states(sum_peak, sum_mass, sum_acc, peak, mass, acc)
            tl.debug_barrier()
            store_state(memory, at_peak, at_acc, is_member, is_element, peak, mass, acc)
            tl.debug_barrier()
            owned = 1
            peak, mass, acc = no_keys(BLOCK_G, BLOCK_D)
        start = stop
        chunk += 1
    if SPLITS == 1:
        sum_peak, sum_mass, sum_acc = add_stored(
            *no_keys(BLOCK_G, BLOCK_D), memory, at_peak, at_acc, stride_s, stride_as, owned,
            is_member, is_element,
        )  # fmt: skip
        peak, mass, acc = add_states(sum_peak, sum_mass, sum_acc, peak, mass, acc)
        answer(
            out, sinks, flat, head, dims, is_member, is_element, peak, mass, acc,
            HEAD_DIM, PRECISION,
        )  # fmt: skip


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
    splits: int = 1,
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
        splits: programs that share the chunks of a tail, as `ordered_splits` chooses.
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
    check_pages(page_table, page_tokens, rows, splits, KEY_GROUP)
    out = torch.empty(rows, q_heads, head_dim, dtype=queries.dtype, device=queries.device)
    if rows == 0:
        return out
    n_parts = 0 if splits == 1 else 2 + (page_table.shape[1] * page_tokens + KEY_GROUP) // CHUNK
    parts = States.empty(n_parts, rows, q_heads, head_dim, queries.device)
    grid = rows, q_heads // group
    block_k, num_warps = tail_shape(head_dim, queries.dtype, grid[0] * grid[1] * splits)
    sizes = {
        "GROUP": group,
        "HEAD_DIM": head_dim,
        "BLOCK_G": max(16, triton.next_power_of_2(group)),
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "CHUNK_K": CHUNK,
        "PRECISION": "ieee" if queries.dtype == torch.float32 else "tf32",
        "num_warps": num_warps,
        **AS_WRITTEN,
    }
    _ordered_tail_kernel[(*grid, splits)](
        queries,
        readable(keys),
        readable(values),
        page_table,
        lengths,
        prefixes,
        leads,
        counts,
        *states,
        *parts,
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
        BLOCK_K=min(page_tokens, block_k),
        PAGE=page_tokens,
        SPLITS=splits,
        CAPPED=softcap is not None,
        num_stages=3,
        **sizes,
    )
    if splits > 1:
        ordered_parts_kernel[grid](
            lengths,
            prefixes,
            counts,
            *states,
            *parts,
            sinks,
            first,
            out,
            *states.peak.stride()[:2],
            *states.acc.stride()[:3],
            **sizes,
        )
    return out


def ordered_splits(rows: int, kv_heads: int, longest: int, multiprocessors: int = 132) -> int:
    """Choose how many programs share the chunks of a tail.

    Args:
        rows: rows of the batch.
        kv_heads: key/value heads.
        longest: tokens the longest tail may have.
        multiprocessors: of the device.

    Returns:
        a power of two; 1 when the rows alone fill the device, or when tails have a chunk or two.
    """
    if longest < 2 * CHUNK:
        return 1
    most = min(-(-4 * multiprocessors // max(1, rows * kv_heads)), longest // CHUNK + 1, 64)
    return 1 << (most - 1).bit_length()


def tail_shape(head_dim: int, dtype: torch.dtype, programs: int) -> tuple[int, int]:
    """Choose keys a step and warps; measured on an H200 in bf16.

    Many small programs keep memory busiest, few need more warps or longer steps.

    Args:
        head_dim: elements of a head.
        dtype: of queries.
        programs: of the launch.
    """
    if head_dim > 128:
        return 16, 2
    if programs > 528:
        return 16, 1
    return (16, 2) if dtype == torch.bfloat16 else (32, 1)
