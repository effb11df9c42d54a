"""The growing tree as arrays: what plans are made from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, table_of_columns

_FIELDS = (
    *("parent", "depth", "n_tokens", "slot", "n_computed", "state", "is_tail", "lead", "order"),
    *("windowed_slot", "n_dropped"),
)


class SegmentTable:
    """The growing tree as arrays: where each segment hangs, and where its keys and values are.

    The segments of the prompts that a run begins with come first, numbered as in the trie. Frozen
    tails are added while sampling, and segments of prompts that come late. While a segment is there
    its number does not change; the number of one that was removed is given to another.

    Attributes:
        size: numbers that have been given.
        parent: `[capacity]` int32, -1 for a root.
        depth: `[capacity]` int32.
        n_tokens: `[capacity]` int32.
        slot: `[capacity]` int64, first slot, or -1 while not in the cache.
        n_computed: `[capacity]` int32, tokens from the first on whose keys and values are there.
        state: `[capacity]` int32, place of the running state at its end; -1 where none is kept.
        windowed_slot: `[capacity]` int64, first slot in the arena of windowed layers, if there is
            one: where its first token would be.
        n_dropped: `[capacity]` int32, tokens from the first on that are not kept there any more.
        is_tail: `[capacity]` bool, a frozen tail.
        lead: `[capacity]` int32, of a frozen tail: tokens that it begins with and the segment above
            ends with, both. Who hangs from the tail meets them there.
        order: `[capacity]` int64, of segments of prompts: numbers that grow in depth-first order.
    """

    def __init__(self, parent: Int32, depth: Int32, n_tokens: Int32) -> None:
        self.size = parent.size
        self.parent = parent.astype(np.int32)
        self.depth = depth.astype(np.int32)
        self.n_tokens = n_tokens.astype(np.int32)
        self.slot = np.full(parent.size, -1, np.int64)
        self.n_computed = np.zeros(parent.size, np.int32)
        self.state = np.full(parent.size, -1, np.int32)
        self.windowed_slot = np.full(parent.size, -1, np.int64)
        self.n_dropped = np.zeros(parent.size, np.int32)
        self.is_tail = np.zeros(parent.size, np.bool_)
        self.lead = np.zeros(parent.size, np.int32)
        self.order = np.arange(parent.size)
        self._below: list[set[int]] = [set() for _ in range(parent.size)]  # next to each
        for segment, above in enumerate(parent.tolist()):
            if above >= 0:
                self._below[above].add(segment)
        self._unused: list[int] = []  # numbers of those that were removed

    def add(self, parent: int, n_tokens: int, *slots: int, lead: int = 0) -> int:
        """Appends a frozen tail below `parent`, computed; returns its number.

        Args:
            parent: what it hangs from.
            n_tokens: `lead` included.
            slots: the first in each arena.
            lead: see there.
        """
        index = self.add_prompt(parent, n_tokens)
        self.put(index, *slots)
        self.n_computed[index] = n_tokens
        self.is_tail[index], self.lead[index] = True, lead
        return index

    def put(self, segment: int, slot: int, windowed_slot: int = -1) -> None:
        """Notes where a segment is, in each arena."""
        self.slot[segment], self.windowed_slot[segment] = slot, windowed_slot

    def begins(self, segments: int | Int32 | NDArray[np.int64]) -> list[tuple[Any, Any]]:
        """Where segments begin: of each arena, first slots, and how many tokens are gone before."""
        gone = self.n_dropped[segments]
        whole = self.slot[segments], np.zeros_like(gone)
        return [whole, (self.windowed_slot[segments] + gone, gone)]

    def stops(self, segment: int) -> list[int]:
        """One past the last slot of a segment, in each arena."""
        n_tokens = self.n_tokens[segment]
        return [int(slot[segment] + n_tokens) for slot in (self.slot, self.windowed_slot)]

    def add_prompt(self, parent: int, n_tokens: int) -> int:
        """Appends a segment of a prompt below `parent`, -1 for a root; returns its number."""
        index = self._unused.pop() if self._unused else self._number()
        self.parent[index] = parent
        if parent >= 0:
            self._below[parent].add(index)
        self.depth[index] = self.depth[parent] + 1 if parent >= 0 else 0
        self.n_tokens[index], self.n_computed[index] = n_tokens, 0
        self.slot[index] = self.state[index] = self.windowed_slot[index] = -1
        self.n_dropped[index] = 0
        self.is_tail[index], self.lead[index], self.order[index] = False, 0, index
        return index

    def _number(self) -> int:
        """A number that no segment has had."""
        if self.size == self.parent.size:
            for name in _FIELDS:
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.empty(max(64, old.size), old.dtype)]))
        self._below.append(set())
        self.size += 1
        return self.size - 1

    def remove(self, segment: int) -> None:
        """Takes out a segment that is not in the cache and has none below it."""
        if (above := int(self.parent[segment])) >= 0:
            self._below[above].remove(segment)
        self.parent[segment], self.depth[segment], self.n_tokens[segment] = -1, 0, 0
        self.is_tail[segment] = False
        self._unused.append(segment)

    def has_below(self, segment: int) -> bool:
        """Whether a segment has others below it."""
        return bool(self._below[segment])

    def split(self, segment: int, n_tokens: int) -> int:
        """Makes the first tokens of a segment one of its own, above the rest; moves no key.

        The rest keeps the number, and with it what hangs from it.

        Args:
            segment: its number; no state is kept at its end, and none of its keys are dropped.
            n_tokens: of the upper part, fewer than it has.

        Returns:
            The number of the upper part.
        """
        self.depth[self.below(segment)] += 1
        above = int(self.parent[segment])
        upper = self.add_prompt(above, n_tokens)
        if above >= 0:
            self._below[above].remove(segment)
        self._below[upper].add(segment)
        self.parent[segment] = upper
        self.n_tokens[segment] -= n_tokens
        self.n_computed[upper] = min(int(self.n_computed[segment]), n_tokens)
        self.n_computed[segment] -= self.n_computed[upper]
        self.slot[upper] = self.slot[segment]
        if self.slot[segment] >= 0:
            self.slot[segment] += n_tokens
        return upper

    def below(self, segment: int) -> list[int]:
        """A segment and all below it."""
        found = [segment]
        for number in found:
            found += self._below[number]
        return found

    def prompt_segments(self, segments: Int32) -> Int32:
        """The segments of prompts that given ones hang from, or are."""
        above = segments.copy()
        while (tails := self.is_tail[above]).any():
            above[tails] = self.parent[above[tails]]
        return above

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
        return self.items_in_arenas(segments, counts, 1)[0]

    def items_in_arenas(self, segments: Int32, counts: Int32, arenas: int) -> list[Int32]:
        """`path_items` in the first arena and, if there are two, in that of windowed layers.

        Args:
            segments: see `path_items`.
            counts: likewise.
            arenas: how many there are.
        """
        owners, first, stop, cut = self._met(segments, counts)
        items = []
        for slot, gone in self.begins(owners)[:arenas]:
            columns = Item(
                query_start=first,
                query_count=stop - first,
                slot_start=slot,
                slot_count=self.n_tokens[owners] - gone - cut,
                causal=np.zeros_like(first),
                level=self.depth[owners],
                gap=gone,
            )
            items.append(table_of_columns(columns))
        return items

    def _met(self, segments: Int32, counts: Int32) -> NDArray[np.int64]:
        """`[4, items]`: runs of queries, and of the segments that they meet, see below."""
        runs = _runs(segments, counts)
        depths = self.depth[runs[:, _OWNER]]
        deepest_first = np.argsort(-depths, kind="stable")
        levels = range(int(depths.max(initial=-1)), -1, -1)
        bounds = np.searchsorted(-depths[deepest_first], -np.arange(levels.start, -2, -1))
        found = [np.empty((0, 4), np.int64)]
        below = found[0]  # runs of the level under way, which have come up from deeper ones
        for depth, start, stop in zip(levels, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                below = np.concatenate([below, runs[deepest_first[start:stop]]])
                below = below[below[:, _FIRST].argsort(kind="stable")]
            below = _joined(below)
            found.append(below)
            if depth:
                below = below.copy()
                below[:, _CUT] = self.lead[below[:, _OWNER]]
                below[:, _OWNER] = self.parent[below[:, _OWNER]]
        return np.concatenate(found[::-1]).T


# columns of runs: a segment, the queries that hang from it, and tokens at its end that they meet
# in a frozen tail below
_OWNER, _FIRST, _STOP, _CUT = range(4)


def _runs(segments: Int32, counts: Int32) -> NDArray[np.int64]:
    """`[groups, 4]`: the queries of each group that hangs from a segment."""
    stops = np.cumsum(counts, dtype=np.int64)
    runs = np.stack([segments, stops - counts, stops, np.zeros_like(stops)], axis=1)
    return _joined(runs[segments >= 0])


def _joined(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Makes one run of neighbours that meet the same of a segment; runs are in queries' order."""
    if len(runs) < 2:
        return runs
    before, after = runs[:-1], runs[1:]
    parted = (before[:, [_OWNER, _CUT]] != after[:, [_OWNER, _CUT]]).any(1)
    parted |= before[:, _STOP] != after[:, _FIRST]
    last = np.append(parted, True)
    joined = runs[np.roll(last, 1)]  # the first of each
    joined[:, _STOP] = runs[last, _STOP]
    return joined
