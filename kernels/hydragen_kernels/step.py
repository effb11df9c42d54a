"""What a decode step does beside the model: where its tokens go, and what is kept of its draw.

One launch before the model and one behind it. As torch operations they are two dozen launches,
each of which costs a small model as much as a layer's norm.

A row is live while its tail is shorter than its limit and the page of its next token is there;
others stand still: their tokens are stored nowhere and their state stays.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from hydragen_kernels.drawn import Drawn
from hydragen_kernels.inputs import check_contiguous, check_int32, check_last_contiguous

_BLOCK = 128  # rows of a program


class RowState(NamedTuple):
    """Where each row stands; every field `[rows]` int64, contiguous.

    Attributes:
        tokens: the last token drawn.
        positions: its position.
        lengths: tokens of the tail in the cache, without this one.
        limits: the length at which the row stops.
        drawn: tokens drawn so far.
        keys: stream keys of the row's random numbers.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    lengths: torch.Tensor
    limits: torch.Tensor
    drawn: torch.Tensor
    keys: torch.Tensor


class StepInputs(NamedTuple):
    """What a step's kernels read; every field `[rows]` int32.

    Attributes:
        slots: where each row's token is stored; -1: nowhere.
        lengths: tokens of the tail once it is.
        counters: index of the token to draw.
    """

    slots: torch.Tensor
    lengths: torch.Tensor
    counters: torch.Tensor


@triton.jit
def _begin_kernel(
    lengths,
    limits,
    drawn,
    pages,
    stride_p,
    max_pages,
    page_tokens,
    begun,
    slots,
    new_lengths,
    counters,
    rows,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    length = tl.load(lengths + row, mask=inside, other=0)
    limit = tl.load(limits + row, mask=inside, other=0)
    index = tl.minimum(length // page_tokens, max_pages - 1)
    page = tl.load(pages + row.to(tl.int64) * stride_p + index, mask=inside, other=-1).to(tl.int64)
    live = (length < limit) & (page >= 0)
    slot = tl.where(live, page * page_tokens + length % page_tokens, -1)
    tl.store(slots + row, slot.to(tl.int32), mask=inside)
    tl.store(new_lengths + row, (length + live).to(tl.int32), mask=inside)
    tl.store(counters + row, tl.load(drawn + row, mask=inside, other=0).to(tl.int32), mask=inside)
    if tl.program_id(0) == 0:
        tl.store(begun, tl.load(begun) + 1)


@triton.jit
def _end_kernel(
    tokens,
    positions,
    lengths,
    drawn,
    slots,
    chosen,
    raw_logprobs,
    sampled_logprobs,
    begun,
    ring_tokens,
    ring_raw,
    ring_sampled,
    stride_t,
    stride_l,
    steps,
    rows,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    at = tl.load(begun) - 1
    token = tl.load(chosen + row, mask=inside)
    if (at >= 0) & (at < steps):
        raw = tl.load(raw_logprobs + row, mask=inside)
        sampled = tl.load(sampled_logprobs + row, mask=inside)
        tl.store(ring_tokens + at * stride_t + row, token, mask=inside)
        tl.store(ring_raw + at * stride_l + row, raw, mask=inside)
        tl.store(ring_sampled + at * stride_l + row, sampled, mask=inside)

    live = inside & (tl.load(slots + row, mask=inside, other=-1) >= 0)
    tl.store(tokens + row, token.to(tl.int64), mask=live)
    tl.store(positions + row, tl.load(positions + row, mask=live) + 1, mask=live)
    tl.store(lengths + row, tl.load(lengths + row, mask=live) + 1, mask=live)
    tl.store(drawn + row, tl.load(drawn + row, mask=live) + 1, mask=live)


def begin_step(
    state: RowState, pages: torch.Tensor, page_tokens: int, begun: torch.Tensor
) -> StepInputs:
    """Find out where a step's tokens go, and count the step.

    Args:
        state: the rows.
        pages: `[rows, max_pages]` int32, last dimension contiguous; below 0 where there is none.
        page_tokens: tokens of a page.
        begun: `[1]` int64, steps begun since the ring was at its start; one more afterwards.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows = state.lengths.shape[0]
    _check_state(state, rows)
    check_contiguous("begun", begun, torch.int64, (1,))
    if (
        pages.dtype != torch.int32
        or pages.ndim != 2
        or pages.shape[0] != rows
        or not pages.shape[1]
    ):
        raise ValueError(
            f"pages: expected int32 [{rows}, max_pages], got {pages.dtype} {list(pages.shape)}"
        )
    check_last_contiguous("pages", pages)
    slots, lengths, counters = torch.empty(3, rows, dtype=torch.int32, device=pages.device)
    _begin_kernel[(max(1, triton.cdiv(rows, _BLOCK)),)](
        state.lengths,
        state.limits,
        state.drawn,
        pages,
        pages.stride(0),
        pages.shape[1],
        page_tokens,
        begun,
        slots,
        lengths,
        counters,
        rows,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return StepInputs(slots, lengths, counters)


def end_step(
    state: RowState,
    slots: torch.Tensor,
    drawn: Drawn[torch.Tensor],
    begun: torch.Tensor,
    ring_tokens: torch.Tensor,
    ring_logprobs: torch.Tensor,
) -> None:
    """Keep what a step has drawn, and move its live rows on.

    Args:
        state: the rows; tokens, positions, lengths and counts of live ones are written.
        slots: `[rows]` int32, as `begin_step` returned them.
        drawn: what was drawn, `[rows]` each.
        begun: `[1]` int64; the draw goes to step `begun - 1` of the ring, or nowhere if there is
            none.
        ring_tokens: `[steps, width]` int32, written, no narrower than rows; last dimension
            contiguous.
        ring_logprobs: `[2, steps, width]` fp32, written: under the model's own distribution,
            and under the one drawn from; last dimension contiguous.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows = slots.shape[0]
    _check_state(state, rows)
    check_contiguous("begun", begun, torch.int64, (1,))
    check_int32("slots", slots, (rows,))
    check_int32("drawn.tokens", drawn.tokens, (rows,))
    for name in ("logprobs", "sampled_logprobs"):
        check_contiguous(f"drawn.{name}", getattr(drawn, name), torch.float32, (rows,))
    steps, width = ring_tokens.shape
    if ring_tokens.dtype != torch.int32 or width < rows:
        raise ValueError(
            f"ring_tokens: expected int32 [steps, >= {rows}], got {ring_tokens.dtype} "
            f"{[steps, width]}"
        )
    if ring_logprobs.dtype != torch.float32 or list(ring_logprobs.shape) != [2, steps, width]:
        raise ValueError(
            f"ring_logprobs: expected fp32 {[2, steps, width]}, got {ring_logprobs.dtype} "
            f"{list(ring_logprobs.shape)}"
        )
    check_last_contiguous("ring_tokens", ring_tokens)
    check_last_contiguous("ring_logprobs", ring_logprobs)
    if rows == 0:
        return
    _end_kernel[(triton.cdiv(rows, _BLOCK),)](
        state.tokens,
        state.positions,
        state.lengths,
        state.drawn,
        slots,
        drawn.tokens,
        drawn.logprobs,
        drawn.sampled_logprobs,
        begun,
        ring_tokens,
        *ring_logprobs,
        ring_tokens.stride(0),
        ring_logprobs.stride(1),
        steps,
        rows,
        BLOCK=_BLOCK,
        num_warps=4,
    )


def _check_state(state: RowState, rows: int) -> None:
    for name, field in state._asdict().items():
        check_contiguous(name, field, torch.int64, (rows,))
