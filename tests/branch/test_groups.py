"""Groups of rows: plans with room for what rows may become, in the order of the tree."""

import numpy as np
import pytest

pytest.importorskip("triton")

from hydragen_kernels.items import item_rows
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.groups import RowGroups


def table() -> SegmentTable:
    """Prompts: 0 above 1 and 2; two frozen tails below 1, the later one above another."""
    made = SegmentTable(*(np.array(x, np.int32) for x in ([-1, 0, 0], [0, 1, 1], [8, 4, 4])))
    made.slot[:] = [0, 8, 12]
    return made


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def used(count: int, of: int = 200) -> np.ndarray:
    return np.arange(of) < count


def test_ranks_are_depth_first_whatever_the_numbers() -> None:
    segments = table()
    groups = RowGroups(segments, 200, 9)
    groups.hang(slots(0), 2, 0)
    groups.hang(slots(1, 2), 1, 0)
    late = segments.add(1, 4, 16)
    groups.hang(slots(3), late, 0)
    groups.hang(slots(4), segments.add(late, 4, 20), 0)
    plan = groups.plan(used(5), True, False)
    in_order = [int(np.flatnonzero(plan.rank[:4] == rank)[0]) for rank in range(4)]
    assert groups.segments_of(np.array(in_order)).tolist() == [1, late, late + 1, 2]
    assert plan.room.tolist() == [2, 1, 1, 1]
    assert plan.edges.tolist() == [0, 2, 3, 4, 5]
    [items] = plan.items
    met = {(item.slot_start, item.query_start, item.query_stop) for item in item_rows(items)}
    assert met == {(0, 0, 5), (8, 0, 4), (12, 4, 5), (16, 2, 4), (20, 3, 4)}
    assert sorted(groups.segments(used(5)).tolist()) == [1, 2, late, late + 1]


def test_room_follows_what_was_seen() -> None:
    """All samples at first; then four times the rows, or 32; without forks as many as there are."""
    groups = RowGroups(table(), 200, 9)
    groups.hang(np.arange(200), 1, 0)
    group = groups.number(7)
    assert not groups.fits(used(200), True)
    assert groups.plan(used(200), True, False).room.tolist() == [200]
    groups.seen(np.arange(200), np.full(200, group), np.full(3, group), 0)
    assert not groups.fits(used(200), True), "far too much room"
    assert groups.plan(used(200), True, False).room.tolist() == [32]
    assert groups.fits(used(200), True)
    groups.seen(np.arange(200), np.full(200, group), np.full(17, group), 1)
    assert not groups.fits(used(200), True), "twice the rows would not fit"
    assert groups.plan(used(200), True, False).room.tolist() == [68]
    assert groups.plan(used(200), True, True).room.tolist() == [200]
    groups.seen(np.arange(9), np.full(9, group), np.full(9, group), 2)
    assert groups.plan(used(9), False, False).room.tolist() == [9]
    assert groups.fits(used(9), False)


def test_samples_that_a_chunk_has_not_seen_need_room_for_all() -> None:
    groups = RowGroups(table(), 200, 9)
    groups.hang(np.arange(2), 1, 0)
    group = groups.number(0)
    groups.seen(slots(0, 1), slots(group, group), slots(group, group), 0)
    groups.hang(np.arange(2, 5), 1, 2)
    assert groups.number(4) == group, "one segment, one group"
    for chunk in (0, 1):
        groups.seen(slots(0, 1), slots(group, group), slots(group), chunk)
        assert groups.plan(used(5), False, False).room.tolist() == [5]
    groups.seen(np.arange(5), np.full(5, group), np.full(3, group), 2)
    assert groups.plan(used(5), False, False).room.tolist() == [3]


def test_a_group_without_samples_is_free_for_another_segment() -> None:
    groups = RowGroups(table(), 200, 1)
    groups.hang(slots(0), 1, 0)
    groups.plan(used(1), True, False)
    assert groups.plan(used(0), True, False).room.size == 0
    groups.hang(slots(0), 2, 3)
    assert groups.segments(used(1)).tolist() == [2]
    assert groups.plan(used(1), True, False).room.tolist() == [1]
