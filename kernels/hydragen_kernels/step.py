"""What a decode step does beside the model: where its tokens go, and what is kept of its draw.

One launch before the model and, while no row can fork, one behind it; `fork.py` holds the step's
other end. As torch operations they are dozens of launches, each of which costs a small model as
much as a layer's norm.

A step moves all live rows or none. It moves none, and says why in `Control.stuck`, if there are
more rows than it was made for, or fewer free pages than it needs: what it would have drawn is drawn
again by a later step, since random numbers depend on a sample and its position alone.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.batch_state import (
    TOO_FEW_PAGES,
    TOO_MANY_ROWS,
    BatchState,
    Ring,
    StepInputs,
    check_batch,
    check_drawn,
    check_ring,
)
from hydragen_kernels.context import after
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.inputs import check_int32
from hydragen_kernels.row_fields import (
    BEGUN,
    COMPUTED,
    CONTEXTS,
    DRAWN,
    GIVEN,
    LENGTHS,
    POSITIONS,
    ROWS,
    STOPS,
    STUCK,
    TAKEN,
    TOKENS,
)

_BLOCK = 128  # samples of a program
_ROW_BLOCK = 1024  # rows that the one program before the model takes at a time

_TOO_MANY_ROWS, _TOO_FEW_PAGES = tl.constexpr(TOO_MANY_ROWS), tl.constexpr(TOO_FEW_PAGES)


@triton.jit
def _next_page(state, stride_s, pages, stride_p, max_pages, page_tokens, row, there):
    """Of rows: their tail's length, whether they live, their next token's page and its place."""
    stops = tl.load(state + STOPS * stride_s + row, mask=there, other=-1)
    live = there & (stops >= 0)
    length = tl.load(state + LENGTHS * stride_s + row, mask=live, other=0)
    place = pages + row.to(tl.int64) * stride_p + tl.minimum(length // page_tokens, max_pages - 1)
    return length, live, tl.load(place, mask=live, other=0), place


@triton.jit
def _last_page(drafts, length, live, place, page_tokens, row):
    """Of rows whose drafts reach into another page than their next token: it, and its place."""
    count = tl.load(drafts + row, mask=live, other=0)
    more = (length + count) // page_tokens - length // page_tokens  # 0 or 1
    return live & (more > 0), tl.load(place + more, mask=live & (more > 0), other=0), place + more


@triton.jit
def _begin_kernel(
    state,
    stride_s,
    pages,
    stride_p,
    max_pages,
    page_tokens,
    queue,
    queue_size,
    control,
    drafts,
    slots,
    new_lengths,
    counters,
    rows,
    BLOCK: tl.constexpr,
):
    n_rows = tl.load(control + ROWS)
    stuck = tl.load(control + STUCK)
    taken = tl.load(control + TAKEN)
    due = tl.zeros([1], tl.int64)
    computed = tl.zeros([1], tl.int64)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        there = (row < rows) & (row < n_rows)
        length, live, page, place = _next_page(
            state, stride_s, pages, stride_p, max_pages, page_tokens, row, there
        )
        due += tl.sum((live & (page < 0)).to(tl.int64), 0)
        if drafts is not None:
            reaches, page, _ = _last_page(drafts, length, live, place, page_tokens, row)
            due += tl.sum((reaches & (page < 0)).to(tl.int64), 0)
        computed += tl.sum(live.to(tl.int64), 0)
    lacks = tl.sum(due, 0) > tl.load(control + GIVEN) - taken
    stuck = tl.where((stuck == 0) & lacks, _TOO_FEW_PAGES, stuck)
    stuck = tl.where(n_rows > rows, _TOO_MANY_ROWS, stuck)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = row < rows
        length, live, page, place = _next_page(
            state, stride_s, pages, stride_p, max_pages, page_tokens, row, inside & (row < n_rows)
        )
        goes = live & (row * 0 + stuck == 0)  # of all rows, since masks of one number do not mix
        lacking = goes & (page < 0)
        at = taken + tl.cumsum(lacking.to(tl.int64), 0) - 1
        new = tl.load(queue + at % queue_size, mask=lacking, other=0)
        tl.store(place, new, mask=lacking)
        taken += tl.sum(lacking.to(tl.int64), 0)
        if drafts is not None:
            reaches, last, last_place = _last_page(drafts, length, goes, place, page_tokens, row)
            lacks_last = reaches & (last < 0)
            at = taken + tl.cumsum(lacks_last.to(tl.int64), 0) - 1
            more = tl.load(queue + at % queue_size, mask=lacks_last, other=0)
            tl.store(last_place, more, mask=lacks_last)
            taken += tl.sum(lacks_last.to(tl.int64), 0)
        page = tl.where(lacking, new, page).to(tl.int64)
        slot = tl.where(goes, page * page_tokens + length % page_tokens, -1)
        tl.store(slots + row, slot.to(tl.int32), mask=inside)
        tl.store(new_lengths + row, (length + goes).to(tl.int32), mask=inside)
        drawn = tl.load(state + DRAWN * stride_s + row, mask=live, other=0)
        tl.store(counters + row, drawn.to(tl.int32), mask=inside)
    tl.store(control + BEGUN, tl.load(control + BEGUN) + 1)
    tl.store(control + STUCK, stuck)
    computed = tl.where(stuck == 0, tl.sum(computed, 0), 0)
    tl.store(control + COMPUTED, tl.load(control + COMPUTED) + computed)
    tl.store(control + TAKEN, taken)


@triton.jit
def _end_kernel(
    state,
    stride_s,
    sample_rows,
    slots,
    chosen,
    raw_logprobs,
    sampled_logprobs,
    table,
    vocab,
    max_tokens,
    control,
    ring_tokens,
    ring_raw,
    ring_sampled,
    stride_t,
    stride_l,
    steps,
    rows,
    samples,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = sample < samples
    row = tl.load(sample_rows + sample, mask=inside, other=-1)
    live = (row >= 0) & (row < rows)  # beyond them only where the step is stuck
    live = live & (tl.load(slots + row, mask=live, other=-1) >= 0)
    token = tl.load(chosen + sample, mask=live, other=-1)
    at = sample * 0 + tl.load(control + BEGUN) - 1
    kept = inside & (at >= 0) & (at < steps)
    raw = tl.load(raw_logprobs + sample, mask=live, other=0.0)
    sampled = tl.load(sampled_logprobs + sample, mask=live, other=0.0)
    tl.store(ring_tokens + at * stride_t + sample, token, mask=kept)
    tl.store(ring_raw + at * stride_l + sample, raw, mask=kept)
    tl.store(ring_sampled + at * stride_l + sample, sampled, mask=kept)

    state += row
    stop = tl.load(state + STOPS * stride_s, mask=live, other=0)
    stop = tl.load(table + stop * vocab + token, mask=live, other=0).to(tl.int64)
    drawn = tl.load(state + DRAWN * stride_s, mask=live, other=0) + 1
    ended = (stop < 0) | (drawn >= max_tokens)
    tl.store(sample_rows + sample, -1, mask=live & ended)
    tl.store(state + STOPS * stride_s, tl.where(ended, -1, stop), mask=live)
    tl.store(state + TOKENS * stride_s, token.to(tl.int64), mask=live)
    tl.store(state + DRAWN * stride_s, drawn, mask=live)
    context = tl.load(state + CONTEXTS * stride_s, mask=live, other=0)
    context = after(context, token.to(tl.int64))
    tl.store(state + CONTEXTS * stride_s, context, mask=live)
    position = tl.load(state + POSITIONS * stride_s, mask=live, other=0)
    tl.store(state + POSITIONS * stride_s, position + 1, mask=live)
    length = tl.load(state + LENGTHS * stride_s, mask=live, other=0)
    tl.store(state + LENGTHS * stride_s, length + 1, mask=live)


def begin_step(
    batch: BatchState, page_tokens: int, drafts: torch.Tensor | None = None
) -> StepInputs:
    """Find out where a step's tokens go, give rows the pages they need, and count the step.

    Args:
        batch: cut to the rows of the step; control, and pages of rows that had none, are written.
        page_tokens: tokens of a page.
        drafts: `[rows]` int32, tokens behind the next one, of a page at the most, that get pages as
            well; None: there are none.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows = check_batch(batch)
    if drafts is not None:
        check_int32("drafts", drafts, (rows,))
    slots, lengths, counters = torch.empty(3, rows, dtype=torch.int32, device=batch.pages.device)
    _begin_kernel[(1,)](
        batch.rows,
        batch.rows.stride(0),
        batch.pages,
        batch.pages.stride(0),
        batch.pages.shape[1],
        page_tokens,
        batch.queue,
        len(batch.queue),
        batch.control,
        drafts,
        slots,
        lengths,
        counters,
        rows,
        BLOCK=_ROW_BLOCK,
        num_warps=8,
    )
    return StepInputs(slots, lengths, counters)


def end_step(
    batch: BatchState,
    slots: torch.Tensor,
    drawn: Drawn[torch.Tensor],
    table: torch.Tensor,
    max_tokens: int,
    ring: Ring,
) -> None:
    """Keep what a step has drawn, and move its rows on, where each has one sample.

    Args:
        batch: cut to the rows of the step; rows and sample_rows are written. A sample that ends
            loses its row, and the row is dead.
        slots: `[rows]` int32, as `begin_step` returned them.
        drawn: what was drawn, `[samples]` each.
        table: `[states, vocabulary]` int16 or int32, the next state of a stop table; below 0: the
            token ends its sample.
        max_tokens: tokens that end a sample, whatever they are.
        ring: step `begun - 1` of it is written, or nothing if it has none.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows, samples = check_batch(batch), len(batch.sample_rows)
    check_int32("slots", slots, (rows,))
    check_drawn(drawn, samples)
    check_ring(ring, samples)
    if table.ndim != 2 or table.dtype not in (torch.int16, torch.int32):
        raise ValueError(f"table: expected int16 or int32 [states, vocabulary], got {table.dtype}")
    if samples == 0:
        return
    _end_kernel[(triton.cdiv(samples, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.sample_rows,
        slots,
        *drawn,
        table,
        table.shape[1],
        max_tokens,
        batch.control,
        ring.tokens,
        *ring.logprobs,
        ring.tokens.stride(0),
        ring.logprobs.stride(1),
        len(ring.tokens),
        rows,
        samples,
        BLOCK=_BLOCK,
        num_warps=4,
    )
