"""What a step does to try several tokens of a row at once. It runs as `test_attention.py` does."""

import os

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import (  # noqa: E402
    draft_hash,
    draft_queries,
    drafts,
    reference_drafts,
    reference_step,
    settle,
)
from hydragen_kernels.batch_state import BatchState, Control, Ring, RowState  # noqa: E402
from hydragen_kernels.drafts import ROW_QUERIES, DraftState  # noqa: E402
from hydragen_kernels.drawn import Drawn  # noqa: E402
from hydragen_kernels.step import begin_step  # noqa: E402

SIZE = 16  # tokens of a page
VOCABULARY, MAX_TOKENS = 3, 60


def random_batch(rows: int, n_rows: int, seed: int) -> BatchState:
    """Dead rows among live ones, some with several samples; samples without a row, or beyond."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    samples = n_rows + 30
    state = numbers(0, 1 << 40, len(RowState._fields), rows + 5)
    named = RowState(*state)
    named.tokens.copy_(numbers(0, VOCABULARY, rows + 5))
    named.drawn.copy_(numbers(1, MAX_TOKENS, rows + 5))
    named.lengths.copy_(named.drawn - 1)
    named.stops.copy_(numbers(-1, 4, rows + 5))
    named.problems.copy_(numbers(0, 3, rows + 5))
    named.contexts.copy_(numbers(0, 2, rows + 5) << 21 | named.tokens)
    where = torch.full((samples,), -1)
    where[:n_rows] = numbers(0, max(n_rows, 1), n_rows)
    on_dead = (where >= 0) & (named.stops[where.clamp(0, rows + 4)] < 0)
    where = torch.where(on_dead & (where < rows), -1, where)
    is_owned = torch.zeros(rows + 5, dtype=torch.bool)
    is_owned[where[(where >= 0) & (where < rows + 5)]] = True
    named.stops[~is_owned] = -1
    control = Control(begun=1, rows=n_rows, stuck=0, taken=3, given=3 + 2 * rows, computed=7)
    pages = torch.arange(rows * 6).reshape(rows, 6) + 1000
    column = torch.arange(6)[None] * SIZE > named.lengths[:rows, None] - 1
    return BatchState(
        rows=state[:, :rows].to(DEVICE),
        pages=torch.where(column, -1, pages).int().to(DEVICE)[:, :5],
        sample_rows=where.int().to(DEVICE),
        keys=numbers(0, 1 << 60, samples).to(DEVICE),
        control=torch.tensor(control, device=DEVICE),
        queue=torch.randperm(2 * rows + 50, generator=generator).int().to(DEVICE),
    )


def copied(parts: tuple[torch.Tensor, ...], device: str = "cpu") -> list[torch.Tensor]:
    return [part.clone().to(device) for part in parts]


def equal(found: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu(), rtol=0, atol=0, equal_nan=True)


def ring_of(lines: int, samples: int, device: str) -> Ring:
    return Ring(
        torch.full((lines, samples), -77, dtype=torch.int32, device=device),
        torch.full((2, lines, samples), torch.nan, device=device),
    )


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize(("rows", "n_rows"), [(8, 0), (8, 8), (8, 9), (140, 135)])
def test_steps_with_drafts_equal_the_reference(rows: int, n_rows: int, width: int) -> None:
    """Steps on end with one table, of so few tokens that drafts hold often, and rows end."""
    samples, most = n_rows + 30, 1 if width == 1 else ROW_QUERIES
    state = DraftState.empty(samples, torch.device(DEVICE))
    right_state = DraftState(*copied(state))
    table = torch.randint(0, 4, (4, VOCABULARY), generator=torch.Generator().manual_seed(1))
    table[1, 2] = table[3, 0] = -1
    table = table.to(torch.int16)
    proposed = accepted = 0
    for step in range(4):
        batch = random_batch(rows, n_rows, 100 * step + rows)
        right = BatchState(*copied(batch))
        found = drafts.propose(batch, state, rows * width, MAX_TOKENS, SIZE)
        expected = reference_drafts.propose(right, right_state, rows * width, MAX_TOKENS, SIZE)
        if width == 1:
            equal(found[:2], expected[:2])
            equal(found[3:5], expected[3:5])
        else:
            equal(found, expected)
        behind = (found.counts, expected.counts) if width > 1 else (None, None)
        inputs = begin_step(batch, SIZE, behind[0])
        right_inputs = reference_step.begin_step(right, SIZE, behind[1])
        equal(inputs, right_inputs)
        equal(batch, right)
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(0, VOCABULARY, (samples * most,), generator=generator).int()
        logprobs = torch.rand(2, samples * most, generator=generator)
        drawn = Drawn(chosen.to(DEVICE), *logprobs.to(DEVICE))
        right_drawn = Drawn(chosen, *logprobs)
        if width == 1:
            settle.learn(batch, inputs, found, drawn, state)
            reference_drafts.learn(right, right_inputs, expected, right_drawn, right_state)
        else:
            given = SIZE, rows * width
            queries = draft_queries.make_queries(batch, inputs, found, *given)
            equal(queries, reference_drafts.make_queries(right, right_inputs, expected, *given))
            ring, other = (ring_of(3 * (most - 1), samples, d) for d in (DEVICE, "cpu"))
            last, lengths = settle.settle(
                batch, inputs, found, drawn, table.to(DEVICE), state, ring
            )
            right_last, right_lengths = reference_drafts.settle(
                right, right_inputs, expected, right_drawn, table, right_state, other
            )
            moved = [
                sample
                for sample, row in enumerate(right.sample_rows.tolist())
                if 0 <= row < rows and right_inputs.slots[row] >= 0
            ]
            equal([part[moved] for part in last], [part[moved] for part in right_last])
            equal((lengths, *ring, *batch), (right_lengths, *other, *right))
            proposed, accepted = right_state.counts[1:].tolist()
        equal(state, right_state)
    if width > 1 and 0 < n_rows <= rows:
        assert 0 < accepted < proposed


def test_the_surest_drafts_are_taken_along() -> None:
    """As many as there are queries for; those of a row of several samples are less sure."""
    batch = random_batch(8, 8, 5)
    batch.named.stops.fill_(0)
    batch.named.drawn.fill_(1)
    rows = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7], dtype=torch.int32, device=DEVICE)
    batch = batch._replace(sample_rows=rows, keys=batch.keys[:9])
    state = DraftState.empty(9, torch.device(DEVICE))
    batch.named.contexts.fill_(77)
    batch.named.problems.copy_(torch.arange(8) // 4)
    both = [draft_hash.find(np.array([owner]), np.array([77])) for owner in (0, 1)]
    for (places, tags), source in zip(both, (0, 7), strict=True):  # one is sure, one is not
        entry = (int(tags[0, source]) & draft_hash.SHORT_MASK) << draft_hash.TOKEN_BITS | 9
        state.entries[int(places[0, source])] = entry
    for queries, counts in ((16, [1] * 8), (13, [1] * 5 + [0] * 3), (9, [0, 1] + [0] * 6)):
        found = drafts.propose(batch, state, queries, MAX_TOKENS, SIZE)
        assert found.counts.tolist() == counts
        ends = np.cumsum([0, *(count + 1 for count in counts)])
        assert found.firsts.tolist() == ends.tolist()


def test_each_sample_draws_at_every_place_of_its_row() -> None:
    batch = random_batch(8, 8, 5)
    counts = torch.arange(8, dtype=torch.int32, device=DEVICE) % 3
    nothing = counts.new_zeros(8, ROW_QUERIES - 1)
    firsts = torch.arange(9, dtype=torch.int32, device=DEVICE) * 11
    found = drafts.Proposals(nothing, nothing, nothing, counts, counts, firsts)
    drawn = (part.view(-1, ROW_QUERIES) for part in draft_queries.draws(batch, found))
    rows, keys, counters = drawn
    for sample, row in enumerate(batch.sample_rows.tolist()):
        assert rows[sample].tolist() == [
            11 * row + place if row >= 0 and place <= counts[row] else -1
            for place in range(ROW_QUERIES)
        ]
        if row >= 0:
            first = int(batch.named.drawn[row])
            count = int(counts[row]) + 1
            assert counters[sample, :count].tolist() == list(range(first, first + count))
        assert (keys[sample] == batch.keys[sample]).all()


def test_of_several_tokens_for_a_context_the_last_step_is_told() -> None:
    """And of those of one step the greatest."""
    state = DraftState.empty(4, torch.device(DEVICE))
    batch = random_batch(8, 2, 5)
    batch.named.contexts.fill_(77)
    batch.named.problems.fill_(1)
    batch.named.stops.fill_(0)
    batch = batch._replace(
        sample_rows=torch.tensor([0, 1, 1, -1], dtype=torch.int32, device=DEVICE),
        keys=batch.keys[:4],
    )
    for tokens in ([9, 2, 3, 4], [5, 7, 6, 8]):
        found = drafts.propose(batch, state, 8, MAX_TOKENS, SIZE)
        inputs = begin_step(batch, SIZE)
        drawn = Drawn(
            torch.tensor(tokens, dtype=torch.int32, device=DEVICE),
            *torch.zeros(2, 4, device=DEVICE),
        )
        settle.learn(batch, inputs, found, drawn, state)
    assert drafts.propose(batch, state, 8, MAX_TOKENS, SIZE).tokens[:2].tolist() == [[7], [7]]
    assert state.tallies.tolist() == [[2, 2, 2, 0], [0, 0, 0, 0]]
