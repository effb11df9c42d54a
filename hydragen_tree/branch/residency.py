"""Which segments of the tree are in the cache, and where.

A segment is *resident* while its keys and values have slots. Segments of prompts are placed when
the turn of a branch below them comes near, computed piece by piece, and given up when no row and no
waiting branch needs them; frozen tails become segments here, and are given up the same way. What
was given up is computed again.

Prompts may join the tree while it is in use. Where one goes on from the middle of a segment, that
becomes two, whose keys stay where they are: the page in which the one ends and the other begins is
used by both.
"""

from collections.abc import Iterable

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.live_trie import ALL_KNOWN, LiveTrie, Sharing
from hydragen_tree.errors import CapacityError, Setting
from hydragen_tree.model.cache import KVCache
from hydragen_tree.trie.trie import Trie


class Residency:
    """Places segments of one trie in one cache, and gives them up.

    Args:
        trie: prompts, after folding.
        cache: an arena big enough for any one path and its tail.
        sharing: what prompts that come late share.

    Attributes:
        trie: grows as prompts join it.
        table: where each segment hangs and lies; plans are made from it.
    """

    def __init__(self, trie: Trie, cache: KVCache, sharing: Sharing = ALL_KNOWN) -> None:
        self.trie, self._cache = LiveTrie(trie, sharing), cache
        self.table = self.trie.table
        self._most_pages, _ = self._deepest_leaf()  # of any leaf's path, at the most
        self._idle: set[int] = set()  # segments with nothing below them that no leaf needs

    def join(self, prompts: Iterable[Int32]) -> list[int]:
        """Takes prompts into the tree, and shares what it has of them.

        Args:
            prompts: `[tokens]` each.

        Returns:
            The leaf of each.
        """
        leaves, size = [], self._cache.page_tokens
        for prompt in prompts:
            leaf, parted = self.trie.insert(prompt)
            leaves.append(leaf)
            # of the two parts of a segment each may need a page that is not full
            most = self._most_pages + (parted is not None)
            self._most_pages = max(most, self._pages_of_path(leaf))
            slot = -1 if parted is None else int(self.table.slot[parted])
            if slot >= 0 and slot % size:
                self._cache.arenas[0].share_run(np.array([slot // size], np.int32))
        return leaves

    def missing(self, leaf: int) -> list[int]:
        """Segments on a leaf's path that are not resident, from the root."""
        missing: list[int] = []
        segment = int(self.trie.leaf_segments[leaf])
        while segment >= 0 and self.table.slot[segment] < 0:  # above a resident one all are
            missing.append(segment)
            segment = int(self.table.parent[segment])
        return missing[::-1]

    def uncomputed(self, leaf: int) -> list[int]:
        """Segments on a leaf's path that are not computed to their end, from the root."""
        table, found = self.table, []
        segment = int(self.trie.leaf_segments[leaf])
        while segment >= 0 and table.n_computed[segment] < table.n_tokens[segment]:
            found.append(segment)
            segment = int(table.parent[segment])  # above a computed one all are
        return found[::-1]

    def pages_missing(self, leaf: int) -> int:
        """Pages that `place` would take for a leaf's path."""
        sizes = self.table.n_tokens[self.missing(leaf)].tolist()
        return sum(map(self._cache.pages_for, sizes))

    def place(self, segments: list[int]) -> bool:
        """Reserves what segments need; False, and nothing reserved, if they do not fit."""
        placed: list[int] = []
        for index in segments:
            found = self._cache.take_run(int(self.table.n_tokens[index]))
            if found is not None:
                self.table.put(index, *found)
                placed.append(index)
                state = self._cache.states.take_segment()
                if state is not None:
                    self.table.state[index] = state
                    continue
            for done in placed:
                self.evict(done)
            return False
        return True

    def place_alone(self, leaf: int) -> None:
        """Places a leaf's path when nothing else is needed: all that is in its way is given up.

        Raises:
            CapacityError: not even so does it fit, which `check_capacity` rules out.
        """
        own = self.trie.leaf_segments[[leaf]].astype(np.int32)
        for keep in (own, np.empty(0, np.int32)):  # what is resident of the path may be in the way
            self.evict_unused(keep)
            if self.place(self.missing(leaf)):
                return
        raise CapacityError("a path that fits into the cache found no room in it")

    def freeze(self, segment: int, pages: Int32, n_tokens: int, lead: int = 0) -> int | None:
        """Copies a tail into a new segment below `segment`.

        Args:
            segment: what it hangs from.
            pages: of the tail.
            n_tokens: of the tail, so many from its first on.
            lead: tokens at the end of `segment` that are copied in front of it; none of them may
                have been dropped.

        Returns:
            The new segment; None if no run is free for it.
        """
        found = self._cache.take_run(lead + n_tokens)
        if found is None:
            return None
        leads = [np.arange(stop - lead, stop) for stop in self.table.stops(segment)]
        self._cache.copy_to_run(leads, pages, n_tokens, found)
        return self.table.add(segment, lead + n_tokens, *found, lead=lead)

    def evict(self, segment: int) -> None:
        """Gives up a segment's slots, and the state at its end."""
        table, arenas = self.table, self._cache.arenas
        n_tokens = int(table.n_tokens[segment])
        for arena, (slot, gone) in zip(arenas, table.begins(segment), strict=False):
            arena.release_run(int(slot), n_tokens - int(gone))
        self._cache.states.release(table.state[[segment]])
        table.put(segment, -1)
        table.state[segment] = -1
        table.n_computed[segment] = table.n_dropped[segment] = 0

    def evict_unused(self, segments: Int32) -> None:
        """Gives up every resident segment that is not on the path of one of these.

        Frozen tails among them leave the tree, and so does what only finished leaves needed.
        """
        table = self.table
        unused = np.flatnonzero((table.slot[: table.size] >= 0) & ~table.live(segments))
        for index in unused.tolist():
            self.evict(index)
        tails = unused[table.is_tail[unused]]
        self._remove([*self._idle, *tails.tolist()])

    def finish(self, leaf: int) -> None:
        """Nothing more is drawn of a leaf: it leaves the tree when it leaves the cache."""
        self._remove([self.trie.finish(leaf)])

    def _remove(self, segments: list[int]) -> None:
        """Takes out of the tree what nobody needs of these segments and of those above them."""
        gone: set[int] = set()  # one may be above another of them
        for segment in segments:
            while segment >= 0 and segment not in gone and not self._is_needed(segment):
                if self.table.slot[segment] >= 0:
                    self._idle.add(segment)  # the next prompt may share it
                    break
                above = int(self.table.parent[segment])
                self._idle.discard(segment)
                self.trie.remove(segment)
                gone.add(segment)
                segment = above

    def _is_needed(self, segment: int) -> bool:
        """Whether anything hangs from a segment, or a leaf that is not finished ends with it."""
        if self.table.has_below(segment):
            return True
        return not self.table.is_tail[segment] and self.trie.segments[segment].ends_prompt

    def _pages_of_path(self, leaf: int) -> int:
        """Pages that all of a leaf's path takes up."""
        segment, pages = int(self.trie.leaf_segments[leaf]), 0
        while segment >= 0:
            pages += self._cache.pages_for(int(self.table.n_tokens[segment]))
            segment = int(self.table.parent[segment])
        return pages

    def _deepest_leaf(self) -> tuple[int, int]:
        """The pages of the path that takes up most, and its last segment."""
        table, ends = self.table, self.trie.leaf_segments
        needs = np.zeros(table.size + 1, np.int64)  # down to each end; the last: above roots
        for segment in np.argsort(table.depth[: table.size], kind="stable").tolist():
            pages = self._cache.pages_for(int(table.n_tokens[segment]))
            needs[segment] = needs[table.parent[segment]] + pages
        ends = ends[ends >= 0]
        last = int(ends[needs[ends].argmax()])
        return int(needs[last]), last

    def _has_room(self, own: int) -> bool:
        """Whether the largest path fits, and so many pages of a tail beside it."""
        cache, path = self._cache, self._most_pages
        return path <= cache.run_pages and path + own <= cache.n_pages

    def check_capacity(self, max_tokens: int) -> None:
        """Makes sure that any one branch fits to its end.

        Args:
            max_tokens: tokens of a tail at the most.

        Raises:
            CapacityError: it does not; the message carries the numbers.
        """
        cache, own = self._cache, self._cache.pages_for(max_tokens) + 1
        if self._has_room(own):
            return
        self._most_pages, last = self._deepest_leaf()  # it may have been less
        longest = self.trie.end(last)
        if not self._has_room(own):
            runs = min(cache.run_pages, cache.n_pages)
            paths = (self._most_pages, own), (runs, cache.n_pages - runs)
            needed, there_is = (
                (runs * cache.page_bytes + tails * cache.tail_page_bytes) / 2**20
                for runs, tails in paths
            )
            raise CapacityError(
                f"one branch needs {needed:.1f} MiB of keys and values ({longest} prompt tokens + "
                f"{max_tokens} new), but ",
                Setting("memory_bytes"),
                f" leaves {there_is:.1f} MiB; give more or lower ",
                Setting("max_tokens"),
            )
