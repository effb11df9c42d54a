"""Schedules that follow the rows of a batch: tiles moved on the device are those of a new plan."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, item_table
from hydragen_kernels.schedule import TILE_FIELDS, Schedule, TileConfig, schedule_segments
from hydragen_kernels.segment_tiles import SegmentTiles

SPAN = 4  # queries of a tile: a group of many rows takes several


def items_of(counts: list[int], root: int, long: int) -> Int32:
    """A root above the first ranks but the last, a segment of its own below it for each rank."""
    edges = np.concatenate([[0], np.cumsum(counts)]).tolist()
    under = edges[max(1, len(counts) - 1)]
    items = [Item(0, under, 7, root, 0, 0)]
    for rank, (start, stop) in enumerate(pairwise(edges)):
        level = 1 if stop <= under else 0
        items.append(Item(start, stop - start, 5000 * (rank + 1), long + rank, 0, level))
    return item_table(items)


def schedule(counts: list[int], root: int, long: int) -> Schedule:
    return schedule_segments(
        items_of(counts, root, long),
        sum(counts),
        q_heads=4,
        kv_heads=2,
        head_dim=16,
        multiprocessors=2,
        config=TileConfig(2 * SPAN, 32, 4, 2, 1),
    )


def met(tiles: np.ndarray, counts: np.ndarray) -> tuple[Counter[tuple[int, ...]], list[set[int]]]:
    """How often each query meets each key with each head, and the partial slots it fills."""
    pairs: Counter[tuple[int, ...]] = Counter()
    slots: list[set[int]] = [set() for _ in counts]
    for tile in tiles.tolist():
        of = dict(zip(TILE_FIELDS, tile, strict=True))
        if not of["n_q"] or not of["n_kv"]:
            continue
        assert of["n_q"] <= SPAN
        for query in range(of["q0"], of["q0"] + of["n_q"]):
            assert of["reach"] >= of["n_kv"] - 1
            place = query, of["kv_head"], of["kv0"], of["n_kv"]
            pairs[place] += 1
            if of["kv_head"] == 0:
                assert of["partial_slot"] not in slots[query], "two tiles fill one partial"
                slots[query].add(of["partial_slot"])
    return pairs, slots


def keys_met(pairs: Counter[tuple[int, ...]]) -> Counter[tuple[int, int, int]]:
    """The same key by key, however they are split."""
    return Counter(
        (query, head, key)
        for (query, head, first, count), times in pairs.items()
        for key in range(first, first + count)
        for _ in range(times)
    )


@given(
    room=st.lists(st.integers(1, 11), min_size=1, max_size=5),
    shares=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
    root=st.sampled_from([1, 100, 1500]),
    long=st.sampled_from([3, 700]),
)
def test_placed_tiles_are_those_of_the_rows_there_are(
    room: list[int], shares: list[float], root: int, long: int
) -> None:
    """Groups without rows too; long segments are split otherwise, but every key is met once."""
    counts = [round(share * most) for share, most in zip(shares, room, strict=False)]
    made = schedule(room, root, long)
    edges = np.concatenate([[0], np.cumsum(room)]).astype(np.int32)
    tables = SegmentTiles(made, "cpu", capacity=len(made.tiles) + 3, rows=sum(room) + 4)
    tables.load(made, edges)
    n = sum(counts)
    starts = np.concatenate([[0], np.cumsum(counts), [n] * 3]).astype(
        np.int32
    )  # more ranks than used
    for _ in range(2):  # what has been moved can be moved again
        tables.place(torch.from_numpy(starts), sum(room) + 4)
        owned = tables.counts.numpy()
        assert not owned[n:].any()
        pairs, slots = met(tables.tiles.numpy(), owned)
        assert slots == [set(range(count)) for count in owned.tolist()]
        there = [count for count in counts if count]
        # of ranks without rows nothing is left, so that others keep their segments' numbers
        full = items_of(room, root, long)
        expected: Counter[tuple[int, int, int]] = Counter()
        for item in full.tolist():
            of = Item(*item)
            first, last = np.searchsorted(edges, [of.query_start, of.query_stop])
            for query in range(starts[first], starts[last]):
                for key in range(of.slot_start, of.slot_stop):
                    for head in range(2):
                        expected[query, head, key] += 1
        assert keys_met(pairs) == expected
        if len(there) == len(counts) and max(root, long) < 256:
            new = schedule(counts, root, long)
            assert met(new.tiles, new.counts) == (pairs, slots[:n])
        tables.place(torch.from_numpy(np.minimum(edges, 1)), sum(room))


@pytest.mark.parametrize("rows", [1, 5, 8, 13, 18])
def test_tiles_end_with_the_rows_of_the_step(rows: int) -> None:
    """A step may be for fewer rows than there are: it is stuck, and reads no queries beyond."""
    room = [9, 1, 8]
    made = schedule(room, 100, 700)
    edges = np.concatenate([[0], np.cumsum(room)]).astype(np.int32)
    tables = SegmentTiles(made, "cpu", rows=sum(room))
    tables.load(made, edges)
    tables.place(torch.from_numpy(edges), rows)
    pairs, _ = met(tables.tiles.numpy(), tables.counts.numpy())
    assert {query for query, *_ in pairs} == set(range(rows))


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    made = schedule([9, 9], 100, 3)
    tables = SegmentTiles(schedule([1], 100, 3), "cpu", rows=40)
    with pytest.raises(ValueError, match="room for"):
        tables.load(made)
