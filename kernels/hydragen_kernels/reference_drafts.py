"""Drafts of a step row by row: the definition that `drafts.py` and `settle.py` are held to."""

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels import draft_hash
from hydragen_kernels.batch_state import BatchState, Control, Ring, RowState, StepInputs
from hydragen_kernels.draft_hash import SHORT_MASK, STEP_SHIFT, TOKEN_BITS, after
from hydragen_kernels.drafts import DraftState, Proposals, Queries
from hydragen_kernels.drawn import Drawn


def propose(batch: BatchState, state: DraftState, width: int, max_tokens: int) -> Proposals:
    """See `hydragen_kernels.drafts.propose`."""
    rows, most = batch.rows.shape[1], max(width - 1, 1)
    tokens = torch.full((rows, most), -1, dtype=torch.int32)
    counts = torch.zeros(rows, dtype=torch.int32)
    state.counts[0] += 1
    for number in range(min(rows, int(Control(*batch.control).rows))):
        row = RowState(*batch.rows[:, number].tolist())
        context = row.contexts
        for place in range(most if row.stops >= 0 else 0):
            places, tags = _find(row.problems, context)
            entries = [(int(state.entries[at]), tag) for at, tag in zip(places, tags, strict=True)]
            known = [
                entry & SHORT_MASK
                for entry, tag in entries
                if entry >= 0 and entry >> TOKEN_BITS & SHORT_MASK == tag
            ]
            if not known:
                break
            tokens[number, place] = known[0]
            counts[number] += width > 1 and place < max_tokens - 1 - row.drawn
            context = after(context, known[0])
    return Proposals(tokens, counts, counts.clone())


def queries(
    batch: BatchState, inputs: StepInputs, proposals: Proposals, page_tokens: int
) -> Queries:
    """See `hydragen_kernels.drafts.queries`."""
    rows, width = batch.rows.shape[1], proposals.tokens.shape[1] + 1
    made: list[tuple[int, int, int, int]] = []
    for number in range(rows):
        row = RowState(*batch.rows[:, number].tolist())
        for place in range(width):
            goes = inputs.slots[number] >= 0 and place <= proposals.counts[number]
            if not goes:
                made.append((row.tokens, row.positions, -1, 0))
                continue
            token = int(proposals.tokens[number, place - 1]) if place else row.tokens
            length = row.lengths + place
            page = int(batch.pages[number, length // page_tokens])
            slot = page * page_tokens + length % page_tokens
            made.append((token, row.positions + place, slot, length + 1))
    tokens, positions, slots, lengths = torch.tensor(made).T
    pages = batch.pages.repeat_interleave(width, 0)
    return Queries(tokens, positions, slots.int(), lengths.int(), pages)


def settle(
    batch: BatchState,
    inputs: StepInputs,
    proposals: Proposals,
    drawn: Drawn[Tensor],
    table: Tensor,
    state: DraftState,
    ring: Ring,
) -> tuple[Drawn[Tensor], Tensor]:
    """See `hydragen_kernels.settle.settle`."""
    width, control = proposals.tokens.shape[1] + 1, Control(*batch.control.split(1))
    owners = _owners(batch, inputs)
    for sample, number in owners.items():
        lead, stop = 0, int(batch.named.stops[number])
        for place in range(int(proposals.counts[number])):
            token = int(drawn.tokens[sample * width + place])
            stop = int(table[stop, token])
            if token != proposals.tokens[number, place] or stop < 0:
                break
            lead += 1
        proposals.leads[number] = min(int(proposals.leads[number]), lead)
    leads = proposals.leads.tolist()
    _learn(batch, owners, proposals, drawn, width, state)
    last = Drawn(*(part[::width].clone() for part in drawn))
    first = (int(control.begun) - 1) * (width - 1)
    for part, into in ((drawn.tokens, ring.tokens), *zip(drawn[1:], ring.logprobs, strict=True)):
        into[first : first + width - 1] = -1 if into is ring.tokens else 0.0
        for sample, number in owners.items():
            own = part[sample * width : sample * width + leads[number]]
            into[first : first + leads[number], sample] = own
    for sample, number in owners.items():
        for part, whole in zip(last, drawn, strict=True):
            part[sample] = whole[sample * width + leads[number]]
    lengths = inputs.lengths.clone()
    for number in (inputs.slots >= 0).nonzero()[:, 0].tolist():
        row, lead = RowState(*batch.rows[:, number]), leads[number]
        for token in proposals.tokens[number, :lead].tolist():
            row.tokens.fill_(token)
            row.stops.copy_(table[row.stops, token])
            row.contexts.fill_(after(int(row.contexts), token))
        for field in (row.positions, row.lengths, row.drawn):
            field += lead
        lengths[number] += lead
        state.counts[1] += proposals.counts[number]
        state.counts[2] += lead
        control.computed.add_(lead)
    return last, lengths


def learn(
    batch: BatchState,
    inputs: StepInputs,
    proposals: Proposals,
    drawn: Drawn[Tensor],
    state: DraftState,
) -> None:
    """See `hydragen_kernels.settle.learn`."""
    _learn(batch, _owners(batch, inputs), proposals, drawn, 1, state)


def _owners(batch: BatchState, inputs: StepInputs) -> dict[int, int]:
    """The row of each sample that draws."""
    rows = enumerate(batch.sample_rows.tolist())
    n = batch.rows.shape[1]
    return {sample: row for sample, row in rows if 0 <= row < n and inputs.slots[row] >= 0}


def _learn(
    batch: BatchState,
    owners: dict[int, int],
    proposals: Proposals,
    drawn: Drawn[Tensor],
    width: int,
    state: DraftState,
) -> None:
    for sample, number in owners.items():
        row = RowState(*batch.rows[:, number].tolist())
        context = row.contexts
        for place in range(int(proposals.leads[number]) + 1):
            token = int(drawn.tokens[sample * width + place])
            if place < proposals.tokens.shape[1]:
                state.tallies[0, sample] += 1
                state.tallies[1, sample] += int(proposals.tokens[number, place]) == token
            for at, tag in zip(*_find(row.problems, context), strict=True):
                entry = int(state.counts[0]) << STEP_SHIFT | tag << TOKEN_BITS | token
                state.entries[at] = max(int(state.entries[at]), entry)
            context = after(context, token)


def _find(problem: int, context: int) -> tuple[list[int], list[int]]:
    places, tags = draft_hash.find(np.array([problem]), np.array([context]))
    return places[0].tolist(), (tags[0] & SHORT_MASK).tolist()
