"""The growing tree as arrays: what plans are made from."""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, item_table, table_of_columns


class SegmentTable:
    """The growing tree as arrays: where each segment hangs, and where its keys and values are.

    Prompt segments come first, numbered as in the trie; frozen tails are added while sampling.

    Attributes:
        parent: `[capacity]` int32, -1 for a root.
        depth: `[capacity]` int32.
        n_tokens: `[capacity]` int32.
        slot: `[capacity]` int64, first slot, or -1 while not in the cache.
    """

    def __init__(self, parent: Int32, depth: Int32, n_tokens: Int32) -> None:
        self.size = parent.size
        self.parent = parent.astype(np.int32)
        self.depth = depth.astype(np.int32)
        self.n_tokens = n_tokens.astype(np.int32)
        self.slot = np.full(parent.size, -1, np.int64)

    def add(self, parent: int, n_tokens: int, slot: int) -> int:
        """Appends a segment below `parent`; returns its number."""
        if self.size == self.parent.size:
            for name in ("parent", "depth", "n_tokens", "slot"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.empty(max(64, old.size), old.dtype)]))
        index = self.size
        self.parent[index] = parent
        self.depth[index] = self.depth[parent] + 1
        self.n_tokens[index] = n_tokens
        self.slot[index] = slot
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
        starts = np.concatenate([[0], np.cumsum(counts)])
        current = segments.copy()
        levels: list[Int32] = []
        for depth in range(int(self.depth[current].max(initial=-1, where=current >= 0)), -1, -1):
            here = (current >= 0) & (self.depth[current] == depth)
            owner = np.where(here, current, -1)
            edge = np.flatnonzero(np.diff(owner, prepend=-2))
            owners, stops = owner[edge], np.append(edge[1:], owner.size)
            keep = owners >= 0
            owners, first, stop = owners[keep], starts[edge[keep]], starts[stops[keep]]
            columns = Item(
                query_start=first,
                query_count=stop - first,
                slot_start=self.slot[owners],
                slot_count=self.n_tokens[owners],
                causal=np.zeros_like(first),
                level=np.full_like(first, depth),
            )
            levels.append(table_of_columns(columns))
            current = np.where(here, self.parent[current], current)
        return np.concatenate([item_table(), *levels[::-1]])
