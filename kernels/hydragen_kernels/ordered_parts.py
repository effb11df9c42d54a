"""What a row's tail is read from, and what comes out of the states of all of its keys.

A tail whose chunks several programs share leaves a state for each of them (`ordered_tail`): here a
program a (row, kv head) adds these up, in the order in which one program would have.
"""

import triton
import triton.language as tl

from hydragen_kernels.ordered_fold import add_sink, no_keys, total_mass
from hydragen_kernels.ordered_schedule import KEY_GROUP
from hydragen_kernels.ordered_states import add_stored

KEYS = tl.constexpr(KEY_GROUP)  # of a group


@triton.jit
def reach(lengths, prefixes, firsts, row):
    """What is read here for a row.

    Returns:
        how many of these keys are of its prefix, the position of the first, how many there are, and
        how many lie before its window.
    """
    length = tl.load(lengths + row)
    prefix = tl.load(prefixes + row)
    # without a tail the prefix's last group has been met with the others
    lead = tl.where(length > 0, prefix % KEYS, 0)
    hidden = 0
    if firsts is not None:
        hidden = tl.maximum(tl.load(firsts + row) - (prefix - lead), 0)
    return lead, prefix - lead, lead + length, hidden


@triton.jit
def answer(
    out, sinks, flat, head, dims, is_member, is_element, peak, mass, acc,
    HEAD_DIM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write what comes out of the state of all of a row's keys."""
    if sinks is not None:
        sink = tl.load(sinks + head, mask=is_member, other=float("-inf"))
        peak, mass, acc = add_sink(peak, mass, acc, sink, PRECISION)
    total = total_mass(mass)
    result = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    tl.store(out + flat[:, None] * HEAD_DIM + dims[None, :], result, mask=is_element)


@triton.jit
def ordered_parts_kernel(
    lengths,
    prefixes,
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
    stride_s,
    stride_t,
    stride_as,
    stride_at,
    stride_ah,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up a row's states: those before its tail, then those of its tail's chunks."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1).to(tl.int64)
    members = tl.arange(0, BLOCK_G)
    dims = tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + members
    is_member = members < GROUP
    is_element = is_member[:, None] & (dims < HEAD_DIM)[None, :]
    _lead, begin, n, hidden = reach(lengths, prefixes, firsts, row)
    start = hidden // KEYS * KEYS
    chunks = tl.where(start < n, tl.cdiv((begin + start) % CHUNK_K + n - start, CHUNK_K), 0)
    owned = tl.load(counts + row)
    if (begin % CHUNK_K != 0) & (owned > 0) & (chunks > 0):
        owned -= 1  # the tail's first chunk has gone on with it
    at_peak = row * stride_t + head
    at_acc = row * stride_at + head[:, None] * stride_ah + dims[None, :]
    peak, mass, acc = add_stored(
        *no_keys(BLOCK_G, BLOCK_D), (peaks, masses, accs), at_peak, at_acc, stride_s, stride_as,
        owned, is_member, is_element,
    )  # fmt: skip
    heads = tl.num_programs(1) * GROUP
    flat = row * heads + head
    stride = tl.num_programs(0).to(tl.int64) * heads
    peak, mass, acc = add_stored(
        peak, mass, acc, (part_peaks, part_masses, part_accs), flat,
        flat[:, None] * HEAD_DIM + dims[None, :], stride, stride * HEAD_DIM, chunks,
        is_member, is_element,
    )  # fmt: skip
    answer(
        out, sinks, flat, head, dims, is_member, is_element, peak, mass, acc, HEAD_DIM, PRECISION
    )
