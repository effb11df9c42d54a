"""Index tables that tell attention which queries meet which keys.

A step's queries are packed: all rows of a decode step, or the new tokens of some segments. Every
query hangs from a segment and sees all segments on its path. As rows are in depth-first order,
the queries below a segment are one contiguous range, and one table row says it all:

    queries query_start .. + query_count   meet   slots slot_start .. + slot_count

Rows of one level (depth) have disjoint query ranges. Causal rows are square: the i-th query sees
the first i + 1 slots.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.reference import Node

Int = NDArray[np.int32]


class Item(NamedTuple):
    """Columns of the item table, by name."""

    query_start: int
    query_count: int
    slot_start: int
    slot_count: int
    causal: int
    level: int


@dataclass(frozen=True, eq=False, slots=True)
class Tails:
    """The tail of each row: pages of slots that no other row reads through it.

    Attributes:
        pages: `[rows, max_pages]` int32 page numbers; entries past a row's length are ignored.
        lengths: `[rows]` int32, tokens in each tail, this step's own token included.
        page_tokens: slots a page.
    """

    pages: Int
    lengths: Int
    page_tokens: int


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What one attention step reads.

    Attributes:
        n_queries: queries in the step.
        items: `[items, 6]` int32, columns as in `Item`, levels ascending.
        tails: one tail a query in a decode step; None in a prefill step.
    """

    n_queries: int
    items: Int
    tails: Tails | None = None

    def nodes(self) -> tuple[Node, ...]:
        """The item table as the forest that the recursive reference walks."""
        kids: dict[int, list[int]] = {-1: []}
        open_at: list[
            tuple[int, int, int]
        ] = []  # (query_start, query_stop, item) of the levels above
        for index, row in enumerate(self.items.tolist()):
            item = Item(*row)
            start, stop = item.query_start, item.query_start + item.query_count
            parent = -1
            for above_start, above_stop, above in reversed(open_at):
                if above_start <= start and stop <= above_stop:
                    parent = above
                    break
            kids[parent].append(index)
            kids[index] = []
            open_at.append((start, stop, index))
        return tuple(self._node(index, kids) for index in kids[-1])

    def _node(self, index: int, kids: dict[int, list[int]]) -> Node:
        item = Item(*self.items[index].tolist())
        return Node(
            item.query_start,
            item.query_start + item.query_count,
            item.slot_start,
            item.slot_start + item.slot_count,
            bool(item.causal),
            tuple(self._node(child, kids) for child in kids[index]),
        )


class SegmentTable:
    """The growing tree as arrays: where each segment hangs, and where its keys and values are.

    Prompt segments come first, numbered as in the trie; frozen tails are added while sampling.

    Attributes:
        parent: `[capacity]` int32, -1 for a root.
        depth: `[capacity]` int32.
        n_tokens: `[capacity]` int32.
        slot: `[capacity]` int64, first slot, or -1 while not in the cache.
    """

    def __init__(self, parent: Int, depth: Int, n_tokens: Int) -> None:
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

    def live(self, segments: Int) -> NDArray[np.bool_]:
        """Marks the given segments and all above them: `[size]` bool."""
        marked = np.zeros(self.size, np.bool_)
        current = np.unique(segments)
        while current.size:
            marked[current] = True
            above = np.unique(self.parent[current])
            current = above[above >= 0]
            current = current[~marked[current]]
        return marked

    def path_items(self, segments: Int, counts: Int) -> Int:
        """Items for groups of queries that hang from `segments`, `counts` queries each.

        Neighbouring groups below one segment become one item, which is what makes their attention
        a matrix-matrix product.

        Args:
            segments: `[groups]` int32; -1 hangs from nothing.
            counts: `[groups]` int32.

        Returns:
            `[items, 6]` int32, levels ascending.
        """
        starts = np.concatenate([[0], np.cumsum(counts)])
        current = segments.copy()
        levels: list[Int] = []
        for depth in range(int(self.depth[current].max(initial=-1, where=current >= 0)), -1, -1):
            here = (current >= 0) & (self.depth[current] == depth)
            owner = np.where(here, current, -1)
            edge = np.flatnonzero(np.diff(owner, prepend=-2))
            owners, stops = owner[edge], np.append(edge[1:], owner.size)
            keep = owners >= 0
            owners, first, stop = owners[keep], starts[edge[keep]], starts[stops[keep]]
            columns = [first, stop - first, self.slot[owners], self.n_tokens[owners]]
            flags = [np.zeros_like(first), np.full_like(first, depth)]
            levels.append(np.stack(columns + flags, axis=1).astype(np.int32))
            current = np.where(here, self.parent[current], current)
        if not levels:
            return np.empty((0, 6), np.int32)
        return np.concatenate(levels[::-1])
