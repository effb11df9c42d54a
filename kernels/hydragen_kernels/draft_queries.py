"""What the model is asked in a step with drafts, and what samples draw from its answers.

    queries   the row's last token and its drafts, row behind row
    draws     which of them each sample draws from, with the number of each place

Bound: launches; each is one, of a few microseconds.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.batch_state import BatchState, StepInputs
from hydragen_kernels.drafts import ROW_QUERIES, Proposals
from hydragen_kernels.row_fields import DRAWN, LENGTHS, POSITIONS, TOKENS

_BLOCK = 128  # samples or queries of a program


class Queries(NamedTuple):
    """The queries of a step; every field `[queries]`, or with columns behind.

    Attributes:
        tokens: int64.
        positions: int64.
        slots: int32, where the token is stored; -1: nowhere.
        lengths: int32, tokens of the query's tail, its own among them; 0 where there is none.
        pages: `[queries, max_pages]` int32, of the query's tail.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    lengths: Tensor
    pages: Tensor

    @classmethod
    def without_drafts(cls, batch: BatchState, inputs: StepInputs) -> "Queries":
        """The last token of each row."""
        named = batch.named
        return cls(named.tokens, named.positions, inputs.slots, inputs.lengths, batch.pages)


@triton.jit
def _queries_kernel(
    state,
    stride_s,
    pages,
    stride_p,
    page_tokens,
    row_slots,
    drafts,
    counts,
    firsts,
    tokens,
    positions,
    slots,
    lengths,
    query_rows,
    rows,
    queries,
    ROW_QUERIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    nobody = (number < queries) & (number >= tl.load(firsts + rows))
    tl.store(tokens + number, 0, mask=nobody)
    tl.store(positions + number, 0, mask=nobody)
    tl.store(slots + number, -1, mask=nobody)
    tl.store(lengths + number, 0, mask=nobody)
    tl.store(query_rows + number, 0, mask=nobody)
    row, place = number // ROW_QUERIES, number % ROW_QUERIES
    inside = row < rows
    first = tl.load(firsts + row, mask=inside, other=0)
    there = inside & (first + place < tl.load(firsts + row + 1, mask=inside, other=0))
    goes = there & (tl.load(row_slots + row, mask=there, other=-1) >= 0)
    query = first + place
    last = tl.load(state + TOKENS * stride_s + row, mask=there, other=0)
    draft = drafts + row * (ROW_QUERIES - 1) + place - 1
    draft = tl.load(draft, mask=there & (place > 0), other=0)
    tl.store(tokens + query, tl.where(place > 0, draft.to(tl.int64), last), mask=there)
    position = tl.load(state + POSITIONS * stride_s + row, mask=there, other=0)
    tl.store(positions + query, position + place, mask=there)
    length = tl.load(state + LENGTHS * stride_s + row, mask=goes, other=0) + place
    page = tl.load(pages + row.to(tl.int64) * stride_p + length // page_tokens, mask=goes, other=0)
    slot = page.to(tl.int64) * page_tokens + length % page_tokens
    tl.store(slots + query, tl.where(goes, slot, -1).to(tl.int32), mask=there)
    tl.store(lengths + query, tl.where(goes, length + 1, 0).to(tl.int32), mask=there)
    tl.store(query_rows + query, row, mask=there)


@triton.jit
def _draws_kernel(
    state,
    stride_s,
    sample_rows,
    keys,
    counts,
    firsts,
    draw_rows,
    draw_keys,
    draw_counters,
    rows,
    draws,
    ROW_QUERIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    draw = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = draw < draws
    sample, place = draw // ROW_QUERIES, draw % ROW_QUERIES
    row = tl.load(sample_rows + sample, mask=inside, other=-1)
    there = (row >= 0) & (row < rows)
    there = there & (place <= tl.load(counts + row, mask=there, other=0))
    query = tl.load(firsts + row, mask=there, other=0) + place
    tl.store(draw_rows + draw, tl.where(there, query, -1), mask=inside)
    tl.store(draw_keys + draw, tl.load(keys + sample, mask=inside, other=0), mask=inside)
    drawn = tl.load(state + DRAWN * stride_s + row, mask=there, other=0)
    tl.store(draw_counters + draw, (drawn + place).to(tl.int32), mask=inside)


def make_queries(
    batch: BatchState, inputs: StepInputs, proposals: Proposals, page_tokens: int, queries: int
) -> Queries:
    """Put each row's drafts behind its last token, and rows behind each other.

    Args:
        batch: cut to the rows of the step, with pages for all of it.
        inputs: of the step.
        proposals: of its rows.
        page_tokens: tokens of a page.
        queries: of the step; the last ones may be nobody's.
    """
    rows, device = len(proposals.counts), batch.rows.device
    tokens, positions = torch.empty(2, queries, dtype=torch.int64, device=device)
    slots, lengths, owners = torch.empty(3, queries, dtype=torch.int32, device=device)
    _queries_kernel[(triton.cdiv(rows * ROW_QUERIES, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.pages,
        batch.pages.stride(0),
        page_tokens,
        inputs.slots,
        proposals.tokens,
        proposals.counts,
        proposals.firsts,
        tokens,
        positions,
        slots,
        lengths,
        owners,
        rows,
        queries,
        ROW_QUERIES=ROW_QUERIES,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return Queries(tokens, positions, slots, lengths, batch.pages.index_select(0, owners))


def draws(batch: BatchState, proposals: Proposals) -> tuple[Tensor, Tensor, Tensor]:
    """Say what is drawn from queries, `[samples * ROW_QUERIES]` each, as `choose` takes it.

    Args:
        batch: cut to the rows of the step.
        proposals: of its rows.

    Returns:
        The query of each draw, int32, -1 for none; the stream's key; and the counter, int32.
    """
    samples, device = len(batch.sample_rows), batch.rows.device
    n = samples * ROW_QUERIES
    rows, counters = torch.empty(2, n, dtype=torch.int32, device=device)
    keys = torch.empty(n, dtype=torch.int64, device=device)
    _draws_kernel[(triton.cdiv(n, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.sample_rows,
        batch.keys,
        proposals.counts,
        proposals.firsts,
        rows,
        keys,
        counters,
        batch.rows.shape[1],
        n,
        ROW_QUERIES=ROW_QUERIES,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return rows, keys, counters
