"""What becomes of a step's drafts: rows go on by those that all their samples have drawn.

A sample that draws a draft would have drawn the same token in a step of its own; one that draws
anything else has drawn its next token there. So a row goes on for as long as all its samples draw
what was proposed and none ends. Behind that the step is what it would be without drafts: every
sample has drawn one more token, with which it ends or its row forks. A step that is stuck for want
of rows has moved them by their drafts all the same, and draws that last token again later.

In every step, with or without drafts, the table takes in what was drawn. Of several tokens for one
entry the greatest stays, whichever comes first: so a run is the same each time.

Bound: launches; one without drafts, else three, of a few microseconds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels import draft_hash
from hydragen_kernels.batch_state import BatchState, Ring, StepInputs
from hydragen_kernels.context import SOURCES, after, find
from hydragen_kernels.drafts import ROW_QUERIES, DraftState, Proposals
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.row_fields import (
    BEGUN,
    COMPUTED,
    CONTEXTS,
    DRAWN,
    LENGTHS,
    POSITIONS,
    PROBLEMS,
    STOPS,
    TOKENS,
)

_BLOCK = 128  # rows or samples of a program

_TOKEN_BITS = tl.constexpr(draft_hash.TOKEN_BITS)
_STEP_SHIFT = tl.constexpr(draft_hash.STEP_SHIFT)


@triton.jit
def _lead_kernel(
    state,
    stride_s,
    sample_rows,
    row_slots,
    drafts,
    counts,
    leads,
    chosen,
    table,
    vocab,
    rows,
    samples,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(sample_rows + sample, mask=sample < samples, other=-1)
    live = (row >= 0) & (row < rows)
    live = live & (tl.load(row_slots + row, mask=live, other=-1) >= 0)
    count = tl.load(counts + row, mask=live, other=0)
    stop = tl.load(state + STOPS * stride_s + row, mask=live, other=0)
    lead = tl.zeros([BLOCK], tl.int32)
    goes = live
    for place in tl.static_range(WIDTH - 1):
        goes = goes & (place < count)
        token = tl.load(chosen + sample * WIDTH + place, mask=goes, other=0)
        draft = tl.load(drafts + row * (WIDTH - 1) + place, mask=goes, other=-1)
        stop = tl.load(table + stop * vocab + token, mask=goes, other=0).to(tl.int64)
        goes = goes & (token == draft) & (stop >= 0)  # who ends does so with the step's last token
        lead += goes.to(tl.int32)
    tl.atomic_min(leads + row, lead, mask=live)


@triton.jit
def _learn_kernel(
    state,
    stride_s,
    sample_rows,
    row_slots,
    drafts,
    draft_sources,
    leads,
    chosen,
    raw_logprobs,
    sampled_logprobs,
    last_tokens,
    last_raw,
    last_sampled,
    control,
    entries,
    sources,
    held,
    tallies,
    step_counts,
    ring_tokens,
    ring_raw,
    ring_sampled,
    stride_t,
    stride_l,
    steps,
    rows,
    samples,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < samples
    row = tl.load(sample_rows + sample, mask=inside, other=-1)
    live = (row >= 0) & (row < rows)
    live = live & (tl.load(row_slots + row, mask=live, other=-1) >= 0)
    lead = tl.load(leads + row, mask=live, other=-1)
    context = tl.load(state + CONTEXTS * stride_s + row, mask=live, other=0)
    problem = tl.load(state + PROBLEMS * stride_s + row, mask=live, other=0)
    stamp = tl.load(step_counts) << _STEP_SHIFT
    at_step = sample * 0 + tl.load(control + BEGUN) - 1
    kept = inside & (at_step >= 0) & (at_step < steps)
    tries = tl.zeros([BLOCK], tl.int64)
    hits = tl.zeros([BLOCK], tl.int64)
    for place in tl.static_range(WIDTH):
        goes = live & (place <= lead)
        draw = sample * WIDTH + place
        token = tl.load(chosen + draw, mask=goes, other=-1)
        if place < MOST:
            draft = tl.load(drafts + row * MOST + place, mask=goes, other=-1)
            is_right = goes & (token == draft)
            tries += goes.to(tl.int64)
            hits += is_right.to(tl.int64)
            source = tl.load(draft_sources + row * MOST + place, mask=goes, other=0)
            tl.atomic_add(held + source, 1, mask=goes & (draft >= 0))
            tl.atomic_add(held + SOURCES + source, 1, mask=is_right)
        at, tag = find(sources, problem, context)
        entry = stamp + (tag << _TOKEN_BITS) + token.to(tl.int64)[:, None]
        tl.atomic_max(entries + at, entry, mask=goes[:, None] & (at >= 0))
        context = after(context, token.to(tl.int64))
        if WIDTH > 1:
            raw = tl.load(raw_logprobs + draw, mask=goes, other=0.0)
            sampled = tl.load(sampled_logprobs + draw, mask=goes, other=0.0)
            is_last = goes & (place == lead)
            tl.store(last_tokens + sample, token, mask=is_last)
            tl.store(last_raw + sample, raw, mask=is_last)
            tl.store(last_sampled + sample, sampled, mask=is_last)
            if place < WIDTH - 1:
                is_draft = goes & (place < lead)
                ring = at_step * (WIDTH - 1) + place
                tl.store(
                    ring_tokens + ring * stride_t + sample,
                    tl.where(is_draft, token, -1),
                    mask=kept,
                )
                tl.store(
                    ring_raw + ring * stride_l + sample, tl.where(is_draft, raw, 0.0), mask=kept
                )
                tl.store(
                    ring_sampled + ring * stride_l + sample,
                    tl.where(is_draft, sampled, 0.0),
                    mask=kept,
                )
    tl.store(tallies + sample, tl.load(tallies + sample, mask=live, other=0) + tries, mask=live)
    tallies += samples
    tl.store(tallies + sample, tl.load(tallies + sample, mask=live, other=0) + hits, mask=live)


@triton.jit
def _advance_kernel(
    state,
    stride_s,
    row_slots,
    row_lengths,
    drafts,
    counts,
    leads,
    table,
    vocab,
    control,
    step_counts,
    lengths,
    rows,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    live = inside & (tl.load(row_slots + row, mask=inside, other=-1) >= 0)
    lead = tl.load(leads + row, mask=live, other=0)
    state += row
    stop = tl.load(state + STOPS * stride_s, mask=live, other=0)
    context = tl.load(state + CONTEXTS * stride_s, mask=live, other=0)
    last = tl.load(state + TOKENS * stride_s, mask=live, other=0)
    for place in tl.static_range(WIDTH - 1):
        goes = live & (place < lead)
        token = tl.load(drafts + row * (WIDTH - 1) + place, mask=goes, other=0).to(tl.int64)
        last = tl.where(goes, token, last)
        following = tl.load(table + stop * vocab + token, mask=goes, other=0).to(tl.int64)
        stop = tl.where(goes, following, stop)
        context = tl.where(goes, after(context, token), context)
    tl.store(state + STOPS * stride_s, stop, mask=live)
    tl.store(state + CONTEXTS * stride_s, context, mask=live)
    tl.store(state + TOKENS * stride_s, last, mask=live)
    position = tl.load(state + POSITIONS * stride_s, mask=live, other=0)
    tl.store(state + POSITIONS * stride_s, position + lead, mask=live)
    length = tl.load(state + LENGTHS * stride_s, mask=live, other=0)
    tl.store(state + LENGTHS * stride_s, length + lead, mask=live)
    drawn = tl.load(state + DRAWN * stride_s, mask=live, other=0)
    tl.store(state + DRAWN * stride_s, drawn + lead, mask=live)
    stored = tl.load(row_lengths + row, mask=inside, other=0)
    tl.store(lengths + row, stored + lead, mask=inside)
    count = tl.load(counts + row, mask=live, other=0)
    accepted = tl.sum(lead.to(tl.int64), 0)
    tl.atomic_add(step_counts + 1, tl.sum(count.to(tl.int64), 0))
    tl.atomic_add(step_counts + 2, accepted)
    tl.atomic_add(control + COMPUTED, accepted)


def learn(
    batch: BatchState,
    inputs: StepInputs,
    proposals: Proposals,
    drawn: Drawn[Tensor],
    state: DraftState,
) -> None:
    """Let the table take in what a step without drafts has drawn, before the rows move on.

    Args:
        batch: cut to the rows of the step.
        inputs: of the step.
        proposals: what the table named.
        drawn: `[samples]` each.
        state: written.
    """
    _learn(batch, inputs, proposals, drawn, drawn, state, None)


def settle(
    batch: BatchState,
    inputs: StepInputs,
    proposals: Proposals,
    drawn: Drawn[Tensor],
    table: Tensor,
    state: DraftState,
    ring: Ring,
) -> tuple[Drawn[Tensor], Tensor]:
    """Move rows on by the drafts that all their samples have drawn.

    Args:
        batch: cut to the rows of the step; rows are written.
        inputs: of the step.
        proposals: of its rows; `leads` are written.
        drawn: `[samples * ROW_QUERIES]` each.
        table: `[states, vocabulary]` of the stop table.
        state: written.
        ring: of drafts: step `begun - 1` of it is written, `ROW_QUERIES - 1` lines of each step.

    Returns:
        What samples draw behind, `[samples]`, and `[rows]` int32 tokens of tails before that.
    """
    rows, samples = batch.rows.shape[1], len(batch.sample_rows)
    device = batch.rows.device
    last = Drawn(
        torch.empty(samples, dtype=torch.int32, device=device),
        torch.empty(samples, dtype=torch.float32, device=device),
        torch.empty(samples, dtype=torch.float32, device=device),
    )
    _lead_kernel[(triton.cdiv(samples, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.sample_rows,
        inputs.slots,
        proposals.tokens,
        proposals.counts,
        proposals.leads,
        drawn.tokens,
        table,
        table.shape[1],
        rows,
        samples,
        WIDTH=ROW_QUERIES,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    _learn(batch, inputs, proposals, drawn, last, state, ring)
    lengths = torch.empty_like(inputs.lengths)
    _advance_kernel[(triton.cdiv(rows, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        inputs.slots,
        inputs.lengths,
        proposals.tokens,
        proposals.counts,
        proposals.leads,
        table,
        table.shape[1],
        batch.control,
        state.counts,
        lengths,
        rows,
        WIDTH=ROW_QUERIES,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return last, lengths


def _learn(
    batch: BatchState,
    inputs: StepInputs,
    proposals: Proposals,
    drawn: Drawn[Tensor],
    last: Drawn[Tensor],
    state: DraftState,
    ring: Ring | None,
) -> None:
    samples, most = len(batch.sample_rows), proposals.tokens.shape[1]
    width = 1 if ring is None else ROW_QUERIES
    rings = (drawn.tokens, drawn.logprobs, drawn.sampled_logprobs, 0, 0, 0)  # not written
    if ring is not None:
        strides = ring.tokens.stride(0), ring.logprobs.stride(1)
        rings = (ring.tokens, *ring.logprobs, *strides, len(ring.tokens) // most)
    _learn_kernel[(triton.cdiv(samples, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.sample_rows,
        inputs.slots,
        proposals.tokens,
        proposals.sources,
        proposals.leads,
        *drawn,
        *last,
        batch.control,
        state.entries,
        state.sources,
        state.held,
        state.tallies,
        state.counts,
        *rings,
        batch.rows.shape[1],
        samples,
        WIDTH=width,
        MOST=most,
        BLOCK=_BLOCK,
        num_warps=4,
    )
