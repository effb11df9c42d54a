"""How many drafts the steps of a chunk take along on a device."""

import numpy as np
import pytest

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import Control
from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch import draft_widths
from hydragen_tree.branch.budget import MOST_QUERIES, padded_rows
from hydragen_tree.branch.chunk import Chunk
from hydragen_tree.branch.draft_widths import DraftWidths

SLOTS = 2048


class Told:
    """What a table has been told of prompts."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, list[int]]] = []

    def add_text(self, problem: int, tokens: Int32) -> None:
        self.texts.append((problem, tokens.tolist()))


class Device:
    """Counts that only grow, as a device keeps them."""

    def __init__(self) -> None:
        self.tallies, self.counts = np.zeros((2, SLOTS), np.int64), np.zeros(3, np.int64)
        self.computed = 0

    def chunk(
        self, tries: int, hits: int, rows: int = 0, proposed: int = 0, drawn: int = 0
    ) -> Chunk:
        """One in which the first four slots have met so many drafts each, and rows moved."""
        self.tallies[:, :4] += [[tries], [hits]]
        self.counts += [8, proposed, drawn]
        self.computed += rows + drawn
        control = np.array(Control(0, 0, 0, 0, 0, self.computed), np.int64)
        nothing = np.empty((0, 0), np.int32)
        drawn_tokens = Drawn(nothing, nothing, nothing)
        state = np.empty(0, np.int32), nothing, nothing, control
        return Chunk(drawn_tokens, *state, 4, self.tallies.copy(), self.counts.copy())


def made(told: Told | None = None, patience: int = 0) -> DraftWidths:
    texts = [np.array([5, -1, 7], np.int32), np.array([8], np.int32)]
    return DraftWidths(np.array([0, 1]), texts.__getitem__, SLOTS, told or Told(), patience)


def learned(hits: int, of: int = 100) -> DraftWidths:
    widths = made()
    widths.seen(Device().chunk(of, hits), np.arange(4), np.zeros(4, np.int32))
    return widths


@pytest.mark.parametrize(
    ("hits", "rows", "expected"),
    [(99, 8, 8), (60, 32, 4), (40, 64, 2), (0, 8, 1), (99, 1024, 1), (40, 256, 1)],
)
def test_surer_drafts_of_fewer_rows_are_more(hits: int, rows: int, expected: int) -> None:
    assert learned(hits).choose(np.zeros(rows, np.int32), rows) == expected


@pytest.mark.parametrize("rows", [1, 40, 70, 130, 300, 600])
def test_a_step_has_no_more_queries_than_there_is_room_for(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little they cost, and however many samples share a row."""
    widths = learned(100)
    monkeypatch.setattr(draft_widths, "step_cost", lambda queries: 1.0)
    for shared in (1, 2):
        width = widths.choose(np.zeros(rows * shared, np.int32), rows)
        assert width == 1 or padded_rows(rows * shared) * width <= MOST_QUERIES


def test_wider_steps_cost_more_the_more_queries_they_have() -> None:
    costs = [draft_widths.step_cost(queries) for queries in (1, 8, 64, 100, 128, 200, 512)]
    assert costs == sorted(costs)
    assert costs[0] == 1.0


def test_drafts_wait_until_they_would_have_paid_for_a_while() -> None:
    widths = made(patience=20)
    widths.seen(Device().chunk(100, 99), np.arange(4), np.zeros(4, np.int32))
    assert [widths.choose(np.zeros(1024, np.int32), 1024) for _ in range(9)] == [1] * 9
    chosen = [widths.choose(np.zeros(8, np.int32), 8) for _ in range(5)]
    assert chosen == [1, 1, 1, 8, 8]


def test_all_samples_of_a_row_have_to_draw_a_draft() -> None:
    widths = learned(70)
    assert widths.choose(np.zeros(8, np.int32), 8) > 1
    assert widths.choose(np.zeros(40, np.int32), 2) == 1


def test_each_problem_has_chances_of_its_own() -> None:
    widths, device = made(), Device()
    for _ in range(9):
        device.tallies[1, 2:4] -= 99  # nothing is right in the other
        widths.seen(device.chunk(100, 99), np.arange(4), np.array([0, 0, 1, 1]))
    assert widths.choose(np.zeros(8, np.int32), 8) == 8
    assert widths.choose(np.ones(8, np.int32), 8) == 1


def test_what_a_chunk_says_is_counted_once() -> None:
    widths, device = made(), Device()
    slots, leaves = np.arange(4), np.zeros(4, np.int32)
    assert widths.seen(device.chunk(5, 3, rows=20, proposed=60, drawn=10), slots, leaves) == (
        60,
        10,
    )
    assert widths.pace == 1.5
    assert widths.seen(device.chunk(5, 3, rows=20), slots, leaves) == (0, 0)
    assert widths.pace == 1.0


def test_a_prompt_is_told_once() -> None:
    told = Told()
    widths = made(told)
    widths.join(np.array([2]), np.array([1]))
    widths._problems._text = lambda leaf: np.array([leaf, -3], np.int32)
    assert [widths.problem(leaf) for leaf in (1, 0, 1, 2)] == [1, 0, 1, 1]
    assert told.texts == [(1, [1]), (0, [0]), (1, [2])]
