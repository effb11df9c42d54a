"""Rows that fork on the device, against lists of Python's: plain torch, on any device.

The arena's slots are simulated as well: what a row would read of its tail must be the history of
its samples, whoever has written to pages since.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from hydragen_kernels.batch_state import (
    TOO_FEW_PAGES,
    TOO_MANY_ROWS,
)
from tests.kernels.simulated_batch import PAGE, Row, Simulated

ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", *([ON_GPU] if torch.cuda.is_available() else [])]


def draws(key: int, count: int, vocabulary: int, together: int) -> list[int]:
    """Tokens of one sample; mostly those of the others, the larger `together` is."""
    generator = torch.Generator().manual_seed(key)
    own = torch.randint(0, vocabulary, (count,), generator=generator).tolist()
    parts = torch.randint(0, together + 1, (count,), generator=generator).tolist()
    return [mine if part == 0 else 0 for mine, part in zip(own, parts, strict=True)]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    per_group=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    rows=st.integers(1, 20),
    max_tokens=st.integers(1, 14),
    vocabulary=st.integers(1, 4),
    together=st.integers(0, 5),
    room=st.integers(1, 7),
)
def test_rows_become_what_lists_do(
    seed: int,
    per_group: list[int],
    rows: int,
    max_tokens: int,
    vocabulary: int,
    together: int,
    room: int,
) -> None:
    """Rows, group room and pages are as few as they may be, and more are given when stuck."""
    n, everyone = sum(per_group), list(range(sum(per_group)))
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-1, 3, (3, vocabulary), generator=generator).tolist()
    start = torch.cumsum(torch.tensor([0, *per_group]), 0).tolist()
    first = [
        Row(3 * group, everyone[start[group] : start[group + 1]], [], 0, 0, True, [])
        for group in range(len(per_group))
    ]
    tokens = [draws(seed + sample, max_tokens, vocabulary, together) for sample in everyone]
    sim = Simulated(
        first,
        n_rows=max(rows, n),
        n_pages=n * (-(-max_tokens // PAGE) + 1),
        table=table,
        max_tokens=max_tokens,
    )
    sim.groups.room.clamp_(max=room)
    sim.set_control(taken=seed, given=seed)  # the queue begins anywhere in its ring
    opens, most = True, min(rows, n)  # rows of the graph
    attempts = 0
    while sim.rows:
        attempts += 1
        assert attempts < 40 * max_tokens, "it does not end"
        sim.set_control(begun=attempts % 5, stuck=0)
        drawn = {sample: len(row.history) for row in sim.rows for sample in row.samples}
        next_tokens = [
            tokens[sample][drawn[sample]] if sample in drawn else 0 for sample in everyone
        ]
        due_rows, due_room, due_copies = sim.due(next_tokens, opens)
        stuck = sim.step(next_tokens, most, opens=opens)
        if stuck == TOO_MANY_ROWS:
            assert max(due_rows, len(sim.rows)) > most or due_room > int(sim.groups.room.max())
            most = min(most + 1, n)
            sim.groups.room[: len(sim.rank)] += 1
            continue
        if stuck == TOO_FEW_PAGES:
            waiting = len(sim.queue)
            assert due_copies > waiting or any(
                len(row.pages) * PAGE == row.length for row in sim.rows
            )
            sim.give(1)
            assert len(sim.queue) == waiting + 1, "pages have been lost"
            continue
        assert opens or due_rows <= most
        assert due_room <= int(sim.groups.room.max())
        opens = False
    sim.give(0)
    assert len(sim.free) + len(sim.queue) == len(sim.batch.queue)


@pytest.mark.parametrize("device", DEVICES)
def test_a_fork_written_out(device: str) -> None:
    """Five samples of two rows: one ends, three go on with token 0, one forks off with a copy."""
    table = [[0, 0, -1]]
    rows = [Row(0, [0, 1, 4], [], 0, 0, True, []), Row(1, [2, 3], [], 0, 0, True, [])]
    sim = Simulated(rows, n_rows=6, n_pages=9, table=table, max_tokens=9, device=device)
    sim.give(9)
    assert sim.step([0, 0, 1, 1, 0], 6, opens=True) == 0
    assert [row.samples for row in sim.rows] == [[2, 3], [0, 1, 4]]  # group 1 is of rank 0
    assert sim.step([1, 0, 0, 2, 0], 6) == 0
    assert sim.batch.sample_rows.tolist() == [2, 1, 0, -1, 1]
    assert sim.batch.pages[:4].tolist() == [
        [8, -1, -1, -1],
        [7, -1, -1, -1],
        [6, -1, -1, -1],
        [-1, -1, -1, -1],
    ]
    assert sim.groups.starts.tolist() == [0, 1, 3, 3]


def test_rows_that_do_not_move_stay_as_they_are() -> None:
    """A prompt's row draws its first tokens; others, of several samples too, wait in between."""
    rows = [Row(0, [0, 1], [], 0, 0, True, []), Row(1, [2, 3], [], 0, 0, True, [])]
    sim = Simulated(rows, n_rows=6, n_pages=9, table=[[0, 0, 0]], max_tokens=9)
    sim.rows[1].is_fresh = False  # of rank 1: group 0's
    sim.rows[1].history, sim.rows[1].length = [2], 0
    sim.load()
    sim.give(9)
    assert sim.step([0, 1, 2, 0], 6, opens=True) == 0
    assert [(row.samples, row.history) for row in sim.rows] == [
        ([3], [0]),
        ([2], [2]),
        ([0, 1], [2]),
    ]


@pytest.mark.parametrize(("given_pages", "rows", "room"), [(2, 4, 9), (9, 3, 9), (9, 4, 3)])
def test_a_step_is_stuck_by_one_page_row_or_place(given_pages: int, rows: int, room: int) -> None:
    """One row becomes four, with three copies: with one less of anything nothing happens."""
    sim = Simulated(
        [Row(0, [0, 1, 2, 3], [], 0, 0, True, [])],
        n_rows=6,
        n_pages=9,
        table=[[0, 0, 0, 0]],
        max_tokens=9,
    )
    assert sim.step([1, 1, 1, 1], 4, opens=True) == 0
    sim.give(given_pages + 1)
    sim.groups.room.fill_(room)
    few = given_pages < 3
    assert sim.step([3, 2, 1, 0], rows) == (TOO_FEW_PAGES if few else TOO_MANY_ROWS)
    assert sim.step([3, 2, 1, 0], rows) == sim.control.stuck, "stuck until it is cleared"
    sim.groups.room.fill_(4)
    sim.give(3 - given_pages)
    sim.set_control(stuck=0)
    assert sim.step([3, 2, 1, 0], 4) == 0
    assert [row.samples for row in sim.rows] == [[3], [2], [1], [0]]
