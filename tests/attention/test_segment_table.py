"""Items made from the growing tree: by the definition, and quick in trees of any depth."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.items import Item, item_rows
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.segment_table import SegmentTable


def table_of(parents: list[int]) -> SegmentTable:
    """A table in which segment i has i + 1 tokens from slot 100 i on."""
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    sizes = np.arange(1, len(parents) + 1, dtype=np.int32)
    table = SegmentTable(np.array(parents, np.int32), np.array(depths, np.int32), sizes)
    table.slot[:] = 100 * np.arange(len(parents))
    return table


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Parents of segments, and the segment and the queries of each group, in any order."""
    parents = [draw(st.integers(-1, index - 1)) for index in range(draw(st.integers(1, 12)))]
    groups = draw(st.lists(st.tuples(st.integers(-1, len(parents) - 1), st.integers(1, 3))))
    return parents, [segment for segment, _ in groups], [count for _, count in groups]


@given(cases())
def test_items_are_the_runs_of_queries_below_each_segment(
    case: tuple[list[int], list[int], list[int]],
) -> None:
    parents, segments, counts = case
    table = table_of(parents)
    hung = [segment for segment, n in zip(segments, counts, strict=True) for _ in range(n)]
    expected: list[Item[int]] = []
    for level in range(len(parents)):
        above: list[int] = []  # of each query, its segment of this level
        for segment in hung:
            while segment >= 0 and table.depth[segment] > level:
                segment = parents[segment]
            above.append(segment if segment >= 0 and table.depth[segment] == level else -1)
        start = 0
        for query in range(1, len(above) + 1):
            if query == len(above) or above[query] != above[start]:
                if (owner := above[start]) >= 0:
                    expected.append(Item(start, query - start, 100 * owner, owner + 1, 0, level))
                start = query
    found = table.path_items(np.array(segments, np.int32), np.array(counts, np.int32))
    assert item_rows(found) == expected


@pytest.mark.parametrize("shape", ["nested", "wide", "comb"])
def test_a_hundred_thousand_segments_make_a_plan_in_seconds(shape: str) -> None:
    n = 100_000
    parents = {
        "nested": range(-1, n - 1),
        "wide": [-1] + [0] * (n - 1),
        "comb": [-1, *(index - 2 + index % 2 for index in range(1, n))],  # a leaf a level
    }[shape]
    table = table_of(list(parents))
    segments = np.arange(n, dtype=np.int32)
    if shape == "comb":
        # depth-first: down the spine, then the leaves from the deepest up
        segments = np.concatenate([segments[::2], segments[1::2][::-1]])
    began = time.process_time()
    items = table.path_items(segments, np.ones_like(segments))
    Plan(n, items).check(101 * n)
    assert time.process_time() - began < 20
    assert len(items) == n
