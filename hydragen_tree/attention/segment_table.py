"""The growing tree as arrays: what plans are made from."""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, table_of_columns


class SegmentTable:
    """The growing tree as arrays: where each segment hangs, and where its keys and values are.

    Prompt segments come first, numbered as in the trie; frozen tails are added while sampling.

    Attributes:
        parent: `[capacity]` int32, -1 for a root.
        depth: `[capacity]` int32.
        n_tokens: `[capacity]` int32.
        slot: `[capacity]` int64, first slot, or -1 while not in the cache.
        n_computed: `[capacity]` int32, tokens from the first on whose keys and values are there.
        state: `[capacity]` int32, place of the running state at its end; -1 where none is kept.
    """

    def __init__(self, parent: Int32, depth: Int32, n_tokens: Int32) -> None:
        self.size = parent.size
        self.parent = parent.astype(np.int32)
        self.depth = depth.astype(np.int32)
        self.n_tokens = n_tokens.astype(np.int32)
        self.slot = np.full(parent.size, -1, np.int64)
        self.n_computed = np.zeros(parent.size, np.int32)
        self.state = np.full(parent.size, -1, np.int32)

    def add(self, parent: int, n_tokens: int, slot: int) -> int:
        """Appends a segment below `parent` that is computed; returns its number."""
        if self.size == self.parent.size:
            for name in ("parent", "depth", "n_tokens", "slot", "n_computed", "state"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.empty(max(64, old.size), old.dtype)]))
        index = self.size
        self.parent[index] = parent
        self.depth[index] = self.depth[parent] + 1
        self.n_tokens[index] = self.n_computed[index] = n_tokens
        self.slot[index] = slot
        self.state[index] = -1
        self.size += 1
        return index

    def live(self, segments: Int32) -> NDArray[np.bool_]:
        """Marks the given segments and all above them: `[size]` bool."""
        marked = np.zeros(self.size, np.bool_)
        current = np.unique(segments)
        while current.size:
            marked[current] = True
            above = np.unique(self.parent[current])
            current = above[above >= 0]
            current = current[~marked[current]]
        return marked

    def path_items(self, segments: Int32, counts: Int32) -> Int32:
        """Items for groups of queries that hang from `segments`, `counts` queries each.

        Neighbouring groups below one segment become one item, which is what makes their attention
        a matrix-matrix product.

        Args:
            segments: `[groups]` int32; -1 hangs from nothing.
            counts: `[groups]` int32.

        Returns:
            a table of `hydragen_kernels.items.Item`, levels ascending.
        """
        runs = _runs(segments, counts)
        depths = self.depth[runs[:, _OWNER]]
        deepest_first = np.argsort(-depths, kind="stable")
        levels = range(int(depths.max(initial=-1)), -1, -1)
        bounds = np.searchsorted(-depths[deepest_first], -np.arange(levels.start, -2, -1))
        found = [np.empty((0, 3), np.int64)]
        below = found[0]  # runs of the level under way, which have come up from deeper ones
        for depth, start, stop in zip(levels, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                below = np.concatenate([below, runs[deepest_first[start:stop]]])
                below = below[below[:, _FIRST].argsort(kind="stable")]
            below = _joined(below)
            found.append(below)
            if depth:
                below = below.copy()
                below[:, _OWNER] = self.parent[below[:, _OWNER]]
        owners, first, stop = np.concatenate(found[::-1]).T
        columns = Item(
            query_start=first,
            query_count=stop - first,
            slot_start=self.slot[owners],
            slot_count=self.n_tokens[owners],
            causal=np.zeros_like(first),
            level=self.depth[owners],
        )
        return table_of_columns(columns)


_OWNER, _FIRST, _STOP = range(3)  # columns of runs: a segment, and the queries that hang from it


def _runs(segments: Int32, counts: Int32) -> NDArray[np.int64]:
    """`[groups, 3]`: the queries of each group that hangs from a segment."""
    stops = np.cumsum(counts, dtype=np.int64)
    runs = np.stack([segments.astype(np.int64), stops - counts, stops], axis=1)
    return _joined(runs[segments >= 0])


def _joined(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Makes one run of neighbours below the same segment; runs are in the order of queries."""
    if len(runs) < 2:
        return runs
    before, after = runs[:-1], runs[1:]
    parted = (before[:, _OWNER] != after[:, _OWNER]) | (before[:, _STOP] != after[:, _FIRST])
    last = np.append(parted, True)
    joined = runs[np.roll(last, 1)]  # the first of each
    joined[:, _STOP] = runs[last, _STOP]
    return joined
