"""Drafts of a step on the device: several tokens of a row, tried at once.

    propose   a row's next tokens, from a table of what has followed its last ones (`draft_hash.py`)
    queries   the row's last token and its drafts, `width` queries a row, behind each other
    draws     which of them each sample draws from, with the number of each place

`settle.py` has what becomes of them. Bound: launches; each is one, of a few microseconds.
"""

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels import draft_hash
from hydragen_kernels.batch_state import BatchState, StepInputs
from hydragen_kernels.context import SOURCES, after, find
from hydragen_kernels.inputs import to_device
from hydragen_kernels.row_fields import (
    CONTEXTS,
    DRAWN,
    LENGTHS,
    POSITIONS,
    PROBLEMS,
    ROWS,
    STOPS,
    TOKENS,
)

_ROW_BLOCK, _BLOCK = 32, 128  # rows, and samples or queries, of a program

_TOKEN_BITS = tl.constexpr(draft_hash.TOKEN_BITS)
_SHORT_MASK = tl.constexpr(draft_hash.SHORT_MASK)


class DraftState(NamedTuple):
    """What has followed what, and how often that was right.

    Attributes:
        entries: `[2 ** ENTRY_BITS]` int64, see `draft_hash`.
        sources: `[3, sources]` int64: each one's mask of contexts, and the key's factor of the
            problem and its constant term.
        tallies: `[2, samples]` int64: tokens that were drawn in each sample's place where there
            could be a draft, and those of them that the table named.
        counts: `[3]` int64: steps, drafts proposed, and drafts that rows went on by.
    """

    entries: Tensor
    sources: Tensor
    tallies: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, samples: int, device: torch.device) -> "DraftState":
        """Nothing has followed anything."""
        is_own = np.array(draft_hash.IS_OWN)
        owner = np.array([draft_hash.PROBLEM_FACTOR])
        terms = np.arange(is_own.size) * np.array([draft_hash.SOURCE_FACTOR])
        terms = terms + np.where(is_own, 0, owner * draft_hash.ANY_PROBLEM)
        sources = np.stack([np.array(draft_hash.MASKS), np.where(is_own, owner, 0), terms])
        return cls(
            torch.full((1 << draft_hash.ENTRY_BITS,), -1, device=device),
            to_device(sources, device),
            torch.zeros(2, samples, dtype=torch.int64, device=device),
            torch.zeros(3, dtype=torch.int64, device=device),
        )


class Proposals(NamedTuple):
    """Drafts of rows.

    Attributes:
        tokens: `[rows, most]` int32; -1 from where on nothing is known. At least one is looked up,
            to learn whether it is right.
        counts: `[rows]` int32, those that a row takes along.
        leads: `[rows]` int32, those that it goes on by; `counts` until `settle` knows.
    """

    tokens: Tensor
    counts: Tensor
    leads: Tensor


class Queries(NamedTuple):
    """The queries of a step, `width` a row; every field `[rows * width]`, or with columns behind.

    Attributes:
        tokens: int64.
        positions: int64.
        slots: int32, where the token is stored; -1: nowhere.
        lengths: int32, tokens of the query's tail, its own among them; 0 where there is none.
        pages: `[rows * width, max_pages]` int32, of the query's tail.
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
def _propose_kernel(
    state,
    stride_s,
    control,
    entries,
    sources,
    step_counts,
    max_tokens,
    tokens,
    counts,
    leads,
    rows,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    there = inside & (row < tl.load(control + ROWS))
    state += row
    live = there & (tl.load(state + STOPS * stride_s, mask=there, other=-1) >= 0)
    context = tl.load(state + CONTEXTS * stride_s, mask=live, other=0)
    problem = tl.load(state + PROBLEMS * stride_s, mask=live, other=0)
    room = max_tokens - 1 - tl.load(state + DRAWN * stride_s, mask=live, other=0)
    count = tl.zeros([BLOCK], tl.int32)
    source = tl.arange(0, SOURCES)[None, :]
    for place in tl.static_range(MOST):
        at, tag = find(sources, problem, context)
        entry = tl.load(entries + at, mask=live[:, None], other=-1)
        is_known = (entry >= 0) & (((entry >> _TOKEN_BITS) & _SHORT_MASK) == tag)
        first = tl.min(tl.where(is_known, source, SOURCES), 1)
        named = tl.where(source == first[:, None], entry & _SHORT_MASK, 0)
        token = tl.sum(named, 1)
        live = live & (first < SOURCES)
        tl.store(tokens + row * MOST + place, tl.where(live, token, -1).to(tl.int32), mask=inside)
        if WIDTH > 1:
            count += (live & (place < room)).to(tl.int32)
        context = after(context, token)
    tl.store(counts + row, count, mask=inside)
    tl.store(leads + row, count, mask=inside)
    if tl.program_id(0) == 0:
        tl.store(step_counts, tl.load(step_counts) + 1)


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
    tokens,
    positions,
    slots,
    lengths,
    queries,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = query < queries
    row, place = query // WIDTH, query % WIDTH
    goes = inside & (tl.load(row_slots + row, mask=inside, other=-1) >= 0)
    there = goes & (place <= tl.load(counts + row, mask=goes, other=0))
    last = tl.load(state + TOKENS * stride_s + row, mask=inside, other=0)
    draft = tl.load(drafts + row * (WIDTH - 1) + place - 1, mask=there & (place > 0), other=0)
    tl.store(tokens + query, tl.where(there & (place > 0), draft.to(tl.int64), last), mask=inside)
    position = tl.load(state + POSITIONS * stride_s + row, mask=inside, other=0)
    tl.store(positions + query, position + tl.where(there, place, 0), mask=inside)
    length = tl.load(state + LENGTHS * stride_s + row, mask=there, other=0) + place
    page = tl.load(pages + row.to(tl.int64) * stride_p + length // page_tokens, mask=there, other=0)
    slot = page.to(tl.int64) * page_tokens + length % page_tokens
    tl.store(slots + query, tl.where(there, slot, -1).to(tl.int32), mask=inside)
    tl.store(lengths + query, tl.where(there, length + 1, 0).to(tl.int32), mask=inside)


@triton.jit
def _draws_kernel(
    state,
    stride_s,
    sample_rows,
    keys,
    counts,
    draw_rows,
    draw_keys,
    draw_counters,
    rows,
    draws,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    draw = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = draw < draws
    sample, place = draw // WIDTH, draw % WIDTH
    row = tl.load(sample_rows + sample, mask=inside, other=-1)
    there = (row >= 0) & (row < rows)
    there = there & (place <= tl.load(counts + row, mask=there, other=0))
    tl.store(draw_rows + draw, tl.where(there, row * WIDTH + place, -1), mask=inside)
    tl.store(draw_keys + draw, tl.load(keys + sample, mask=inside, other=0), mask=inside)
    drawn = tl.load(state + DRAWN * stride_s + row, mask=there, other=0)
    tl.store(draw_counters + draw, (drawn + place).to(tl.int32), mask=inside)


def propose(batch: BatchState, state: DraftState, width: int, max_tokens: int) -> Proposals:
    """Look up what may follow each row's last tokens, and count the step.

    Args:
        batch: cut to the rows of the step.
        state: what has followed what; `counts` is written.
        width: queries of a row; 1: it takes no drafts along.
        max_tokens: that end a sample: drafts are no later ones.
    """
    rows, most = batch.rows.shape[1], max(width - 1, 1)
    tokens = torch.empty(rows, most, dtype=torch.int32, device=batch.rows.device)
    counts, leads = torch.empty(2, rows, dtype=torch.int32, device=batch.rows.device)
    _propose_kernel[(triton.cdiv(rows, _ROW_BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.control,
        state.entries,
        state.sources,
        state.counts,
        max_tokens,
        tokens,
        counts,
        leads,
        rows,
        WIDTH=width,
        MOST=most,
        BLOCK=_ROW_BLOCK,
        num_warps=4,
    )
    return Proposals(tokens, counts, leads)


def queries(
    batch: BatchState, inputs: StepInputs, proposals: Proposals, page_tokens: int
) -> Queries:
    """Put each row's drafts behind its last token.

    Args:
        batch: cut to the rows of the step, with pages for all of it.
        inputs: of the step.
        proposals: of its rows.
        page_tokens: tokens of a page.
    """
    rows, width = len(proposals.counts), proposals.tokens.shape[1] + 1
    n, device = rows * width, batch.rows.device
    tokens, positions = torch.empty(2, n, dtype=torch.int64, device=device)
    slots, lengths = torch.empty(2, n, dtype=torch.int32, device=device)
    _queries_kernel[(triton.cdiv(n, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.pages,
        batch.pages.stride(0),
        page_tokens,
        inputs.slots,
        proposals.tokens,
        proposals.counts,
        tokens,
        positions,
        slots,
        lengths,
        n,
        WIDTH=width,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    pages = batch.pages[:, None].expand(-1, width, -1).reshape(n, -1)
    return Queries(tokens, positions, slots, lengths, pages)


def draws(batch: BatchState, proposals: Proposals) -> tuple[Tensor, Tensor, Tensor]:
    """Say what is drawn from queries, `[samples * width]` each, as `choose` takes it.

    Args:
        batch: cut to the rows of the step.
        proposals: of its rows.

    Returns:
        The query of each draw, int32, -1 for none; the stream's key; and the counter, int32.
    """
    samples, width = len(batch.sample_rows), proposals.tokens.shape[1] + 1
    n, device = samples * width, batch.rows.device
    rows, counters = torch.empty(2, n, dtype=torch.int32, device=device)
    keys = torch.empty(n, dtype=torch.int64, device=device)
    _draws_kernel[(triton.cdiv(n, _BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.sample_rows,
        batch.keys,
        proposals.counts,
        rows,
        keys,
        counters,
        batch.rows.shape[1],
        n,
        WIDTH=width,
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return rows, keys, counters
