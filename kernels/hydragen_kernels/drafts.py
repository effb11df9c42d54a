"""Drafts of a step on the device: which tokens of rows are tried at once.

    propose   a row's next tokens, from a table of what has followed its last ones (`draft_hash.py`)
    share     the surest ones of all rows, as many as the step has queries for

How sure a draft is: the product of how often its source has been right, for it and those before it,
once for each sample of the row, since all have to draw it. In whole numbers, so that the order of
drafts is the same on any device.

`draft_queries.py` has what the model is asked of them, `settle.py` what becomes of them. Bound:
launches; each is one, of a few microseconds.
"""

from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels import draft_hash
from hydragen_kernels.batch_state import BatchState
from hydragen_kernels.context import SOURCES, after, find
from hydragen_kernels.inputs import to_device
from hydragen_kernels.row_fields import CONTEXTS, DRAWN, PROBLEMS, ROWS, STOPS

ROW_QUERIES = 8  # of a row in a step with drafts, at the most: its last token, and drafts
SURE = (1 << 12) - 1  # a draft that is as good as right
_PLACE_BITS, _ROW_BITS = 3, 8  # of a draft's key: earlier places and rows come first
MOST_ROWS = 1 << _ROW_BITS  # of a step with drafts

_ROW_BLOCK, _BLOCK = 32, 128  # rows, and samples, of a program
_POWERS = tl.constexpr(4)  # samples of a row that count at the most
_KEY_BITS = tl.constexpr(SURE.bit_length() + _ROW_BITS + _PLACE_BITS)
_HIGHEST_BIT = tl.constexpr(1 << SURE.bit_length() + _ROW_BITS + _PLACE_BITS - 1)
_SURE = tl.constexpr(SURE)

_TOKEN_BITS = tl.constexpr(draft_hash.TOKEN_BITS)
_SHORT_MASK = tl.constexpr(draft_hash.SHORT_MASK)


# Drafts of each source, and those that held, before anything is known.
_FIRST_MET = [32] * len(draft_hash.SOURCES)
_FIRST_DRAWN = [28, 25, 22, 19, 19, 16, 16, 8]


class DraftState(NamedTuple):
    """What has followed what, and how often that was right.

    Attributes:
        entries: `[2 ** ENTRY_BITS]` int64, see `draft_hash`.
        sources: `[3, sources]` int64: each one's mask of contexts, and the key's factor of the
            problem and its constant term.
        held: `[2, sources]` int64: drafts of each source that samples have met, and those that they
            drew; both with some in advance.
        tallies: `[2, samples]` int64: tokens that were drawn in each sample's place where there
            could be a draft, and those of them that the table named.
        counts: `[3]` int64: steps, drafts proposed, and drafts that rows went on by.
    """

    entries: Tensor
    sources: Tensor
    held: Tensor
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
            to_device(np.array([_FIRST_MET, _FIRST_DRAWN]), device),
            torch.zeros(2, samples, dtype=torch.int64, device=device),
            torch.zeros(3, dtype=torch.int64, device=device),
        )


class Proposals(NamedTuple):
    """Drafts of rows.

    Attributes:
        tokens: `[rows, most]` int32; -1 from where on nothing is known. `most` is
            `ROW_QUERIES - 1`, or 1 in a step without drafts, which looks one up to learn whether it
            is right.
        sources: `[rows, most]` int32, of each.
        chances: `[rows, most]` int32, how sure each is, up to `SURE`; 0: it cannot be taken along.
        counts: `[rows]` int32, those that a row takes along.
        leads: `[rows]` int32, those that it goes on by; `counts` until `settle` knows.
        firsts: `[rows + 1]` int32, the first query of each row, and where the last one's end; dead
            rows have none. Without drafts of no meaning.
    """

    tokens: Tensor
    sources: Tensor
    chances: Tensor
    counts: Tensor
    leads: Tensor
    firsts: Tensor


@triton.jit
def _sharers_kernel(sample_rows, sharers, rows, samples, BLOCK: tl.constexpr):
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(sample_rows + sample, mask=sample < samples, other=-1)
    tl.atomic_add(sharers + row, 1, mask=(row >= 0) & (row < rows))


@triton.jit
def _propose_kernel(
    state,
    stride_s,
    control,
    entries,
    sources,
    held,
    sharers,
    step_counts,
    max_tokens,
    page_tokens,
    tokens,
    token_sources,
    chances,
    rows,
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
    source = tl.arange(0, SOURCES)[None, :]
    if sharers is not None:
        shared = tl.load(sharers + row, mask=live, other=0)
    chance = tl.full([BLOCK], _SURE, tl.int64)
    for place in tl.static_range(MOST):
        at, tag = find(sources, problem, context)
        entry = tl.load(entries + at, mask=live[:, None], other=-1)
        is_known = (entry >= 0) & (((entry >> _TOKEN_BITS) & _SHORT_MASK) == tag)
        first = tl.min(tl.where(is_known, source, SOURCES), 1)
        named = tl.where(source == first[:, None], entry & _SHORT_MASK, 0)
        token = tl.sum(named, 1)
        live = live & (first < SOURCES)
        draft = row * MOST + place
        tl.store(tokens + draft, tl.where(live, token, -1).to(tl.int32), mask=inside)
        tl.store(token_sources + draft, tl.where(live, first, 0), mask=inside)
        if sharers is not None:
            met = tl.load(held + first, mask=live, other=1)
            drawn = tl.load(held + SOURCES + first, mask=live, other=0)
            for power in tl.static_range(_POWERS):
                chance = tl.where(shared > power, chance * drawn // met, chance)
            can_go = live & (place < room) & (place < page_tokens)
            tl.store(chances + draft, tl.where(can_go, chance, 0).to(tl.int32), mask=inside)
        context = after(context, token)
    if tl.program_id(0) == 0:
        tl.store(step_counts, tl.load(step_counts) + 1)


@triton.jit
def _share_kernel(
    state,
    stride_s,
    control,
    chances,
    queries,
    counts,
    leads,
    firsts,
    rows,
    ROW_QUERIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The surest drafts: all whose keys are above a bound, found bit by bit. One program."""
    row = tl.arange(0, BLOCK)
    there = (row < rows) & (row < tl.load(control + ROWS))
    live = there & (tl.load(state + STOPS * stride_s + row, mask=there, other=-1) >= 0)
    place = tl.arange(0, ROW_QUERIES)
    is_draft = live[:, None] & (place < ROW_QUERIES - 1)[None, :]
    draft = row[:, None] * (ROW_QUERIES - 1) + place[None, :]
    chance = tl.load(chances + draft, mask=is_draft, other=0)
    order = (BLOCK - 1 - row[:, None]) * ROW_QUERIES + ROW_QUERIES - 1 - place[None, :]
    key = tl.where(chance > 0, chance * (BLOCK * ROW_QUERIES) + order, -1)
    room = queries - tl.sum(live.to(tl.int32), 0)
    bound = room * 0  # the least one that no more than these reach
    step = bound + _HIGHEST_BIT
    for _ in range(_KEY_BITS):
        reach = tl.sum(tl.sum((key >= bound + step - 1).to(tl.int32), 1), 0)
        bound = tl.where(reach > room, bound + step, bound)
        step = step >> 1
    count = tl.sum((key >= bound).to(tl.int32), 1)
    tl.store(counts + row, count, mask=row < rows)
    tl.store(leads + row, count, mask=row < rows)
    ends = tl.cumsum(tl.where(live, count + 1, 0), 0)
    tl.store(firsts + row + 1, ends, mask=row < rows)
    tl.store(firsts, 0)


def propose(
    batch: BatchState, state: DraftState, queries: int, max_tokens: int, page_tokens: int
) -> Proposals:
    """Look up what may follow each row's last tokens, and count the step.

    Args:
        batch: cut to the rows of the step.
        state: what has followed what; `counts` is written.
        queries: of the step; as many as rows: it takes no drafts along.
        max_tokens: that end a sample: drafts are no later ones.
        page_tokens: of a page: a row has no more drafts, see `begin_step`.

    Raises:
        ValueError: more rows than there may be drafts for.
    """
    rows, samples, device = batch.rows.shape[1], len(batch.sample_rows), batch.rows.device
    has_drafts = queries > rows
    if has_drafts and rows > MOST_ROWS:
        raise ValueError(f"queries: expected one a row beyond {MOST_ROWS} rows, got {queries}")
    most = ROW_QUERIES - 1 if has_drafts else 1
    tokens, sources, chances = torch.empty(3, rows, most, dtype=torch.int32, device=device)
    counts, leads = torch.zeros(2, rows, dtype=torch.int32, device=device)
    firsts = torch.empty(rows + 1, dtype=torch.int32, device=device)
    sharers = None
    if has_drafts:
        sharers = torch.zeros(rows, dtype=torch.int32, device=device)
        _sharers_kernel[(triton.cdiv(samples, _BLOCK),)](
            batch.sample_rows, sharers, rows, samples, BLOCK=_BLOCK, num_warps=4
        )
    _propose_kernel[(triton.cdiv(rows, _ROW_BLOCK),)](
        batch.rows,
        batch.rows.stride(0),
        batch.control,
        state.entries,
        state.sources,
        state.held,
        sharers,
        state.counts,
        max_tokens,
        page_tokens,
        tokens,
        sources,
        chances,
        rows,
        MOST=most,
        BLOCK=_ROW_BLOCK,
        num_warps=4,
    )
    if has_drafts:
        _share_kernel[(1,)](
            batch.rows,
            batch.rows.stride(0),
            batch.control,
            chances,
            queries,
            counts,
            leads,
            firsts,
            rows,
            ROW_QUERIES=ROW_QUERIES,
            BLOCK=MOST_ROWS,
            num_warps=4,
        )
    return Proposals(tokens, sources, chances, counts, leads, firsts)
