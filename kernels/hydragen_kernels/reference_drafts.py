"""Drafts of a step row by row: what `drafts.py`, `draft_queries.py` and `settle.py` are held to."""

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels import draft_hash
from hydragen_kernels.batch_state import BatchState, Control, Ring, RowState, StepInputs
from hydragen_kernels.draft_hash import SHORT_MASK, STEP_SHIFT, TOKEN_BITS, after
from hydragen_kernels.draft_queries import Queries
from hydragen_kernels.drafts import ROW_QUERIES, SURE, DraftState, Proposals
from hydragen_kernels.drawn import Drawn


def propose(
    batch: BatchState, state: DraftState, queries: int, max_tokens: int, page_tokens: int
) -> Proposals:
    """See `hydragen_kernels.drafts.propose`."""
    rows = batch.rows.shape[1]
    has_drafts = queries > rows
    most = ROW_QUERIES - 1 if has_drafts else 1
    tokens, sources, chances = torch.zeros(3, rows, most, dtype=torch.int32)
    tokens.fill_(-1)
    counts, firsts = torch.zeros(rows, dtype=torch.int32), torch.zeros(rows + 1, dtype=torch.int32)
    met, drawn = state.held.tolist()
    live = []
    state.counts[0] += 1
    for number in range(min(rows, int(Control(*batch.control).rows))):
        row = RowState(*batch.rows[:, number].tolist())
        if row.stops < 0:
            continue
        live.append(number)
        context, chance = row.contexts, SURE
        shared = min(int((batch.sample_rows == number).sum()), 4)
        for place in range(most):
            places, tags = _find(row.problems, context)
            entries = [(int(state.entries[at]), tag) for at, tag in zip(places, tags, strict=True)]
            known = [
                (entry & SHORT_MASK, source)
                for source, (entry, tag) in enumerate(entries)
                if entry >= 0 and entry >> TOKEN_BITS & SHORT_MASK == tag
            ]
            if not known:
                break
            token, source = known[0]
            tokens[number, place], sources[number, place] = token, source
            for _ in range(shared):
                chance = chance * drawn[source] // met[source]
            if has_drafts and place < min(max_tokens - 1 - row.drawn, page_tokens):
                chances[number, place] = chance
            context = after(context, token)
    if has_drafts:
        ranked = sorted((-int(chances[number, at]), number, at) for number, at in _taken(chances))
        for _, number, _ in ranked[: queries - len(live)]:
            counts[number] += 1
        sizes = torch.zeros(rows, dtype=torch.int32)
        sizes[live] = counts[live] + 1
        firsts[1:] = sizes.cumsum(0)
    return Proposals(tokens, sources, chances, counts, counts.clone(), firsts)


def _taken(chances: Tensor) -> list[list[int]]:
    """Rows and places of drafts that can be taken along."""
    places: list[list[int]] = chances.nonzero().tolist()
    return places


def make_queries(
    batch: BatchState, inputs: StepInputs, proposals: Proposals, page_tokens: int, queries: int
) -> Queries:
    """See `hydragen_kernels.draft_queries.make_queries`."""
    made: list[tuple[int, int, int, int, int]] = []
    for number in range(batch.rows.shape[1]):
        row = RowState(*batch.rows[:, number].tolist())
        assert len(made) == proposals.firsts[number]
        for place in range(int(proposals.firsts[number + 1]) - len(made)):
            token = int(proposals.tokens[number, place - 1]) if place else row.tokens
            length = row.lengths + place
            page = int(batch.pages[number, length // page_tokens])
            stored = page * page_tokens + length % page_tokens, length + 1
            stored = stored if inputs.slots[number] >= 0 else (-1, 0)
            made.append((token, row.positions + place, *stored, number))
    made += [(0, 0, -1, 0, 0)] * (queries - len(made))
    tokens, positions, slots, lengths, owners = torch.tensor(made).T
    return Queries(tokens, positions, slots.int(), lengths.int(), batch.pages[owners])


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
    width, control = ROW_QUERIES, Control(*batch.control.split(1))
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
                draft = int(proposals.tokens[number, place])
                state.tallies[:, sample] += torch.tensor([1, draft == token])
                if draft >= 0:
                    source = int(proposals.sources[number, place])
                    state.held[:, source] += torch.tensor([1, draft == token])
            for at, tag in zip(*_find(row.problems, context), strict=True):
                entry = int(state.counts[0]) << STEP_SHIFT | tag << TOKEN_BITS | token
                state.entries[at] = max(int(state.entries[at]), entry)
            context = after(context, token)


def _find(problem: int, context: int) -> tuple[list[int], list[int]]:
    places, tags = draft_hash.find(np.array([problem]), np.array([context]))
    return places[0].tolist(), (tags[0] & SHORT_MASK).tolist()
