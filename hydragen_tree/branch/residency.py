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
        sharing: as given.
    """

    def __init__(self, trie: Trie, cache: KVCache, sharing: Sharing = ALL_KNOWN) -> None:
        self.trie, self._cache, self.sharing = LiveTrie(trie), cache, sharing
        self.table = self.trie.table

    def join(self, prompts: Iterable[Int32]) -> list[int]:
        """Takes prompts into the tree, and shares what it has of them.

        Args:
            prompts: `[tokens]` each.

        Returns:
            The leaf of each.
        """
        leaves, size = [], self._cache.page_tokens
        for prompt in prompts:
            leaf, parted = self.trie.insert(prompt, self.sharing)
            leaves.append(leaf)
            slot = -1 if parted is None else int(self.table.slot[parted])
            if slot >= 0 and slot % size:
                self._cache.share(np.array([slot // size], np.int32))
        self.trie.put_in_order()
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

    @property
    def pages(self) -> int:
        """Pages that segments take up."""
        table, size = self.table, self._cache.page_tokens
        resident = np.flatnonzero(table.slot[: table.size] >= 0)
        slot = table.slot[resident]
        stop = self._cache.pages_for(slot + table.n_tokens[resident])
        # the first page of one that begins within it has been counted for the one above
        return int((stop - slot // size - (slot % size > 0)).sum())

    def pages_missing(self, leaf: int) -> int:
        """Pages that `place` would take for a leaf's path."""
        sizes = self.table.n_tokens[self.missing(leaf)].tolist()
        return sum(map(self._cache.pages_for, sizes))

    def place(self, segments: list[int]) -> bool:
        """Reserves what segments need; False, and nothing reserved, if they do not fit."""
        placed: list[int] = []
        for index in segments:
            slot = self._cache.take_run(int(self.table.n_tokens[index]))
            if slot is not None:
                self.table.slot[index] = slot
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

    def freeze(self, segment: int, pages: Int32, n_tokens: int) -> int | None:
        """Copies a tail into a new segment below `segment`; None if no run is free for it."""
        slot = self._cache.take_run(n_tokens)
        if slot is None:
            return None
        self._cache.copy_to_run(pages, n_tokens, slot)
        return self.table.add(segment, n_tokens, slot)

    def evict(self, segment: int) -> None:
        """Gives up a segment's slots, and the state at its end."""
        self._cache.release_run(int(self.table.slot[segment]), int(self.table.n_tokens[segment]))
        self._cache.states.release(self.table.state[[segment]])
        self.table.slot[segment] = self.table.state[segment] = -1
        self.table.n_computed[segment] = 0

    def evict_unused(self, segments: Int32) -> None:
        """Gives up every resident segment that is not on the path of one of these."""
        resident = self.table.slot[: self.table.size] >= 0
        for index in np.flatnonzero(resident & ~self.table.live(segments)).tolist():
            self.evict(index)

    def check_capacity(self, max_tokens: int) -> None:
        """Makes sure that any one branch fits to its end.

        Args:
            max_tokens: tokens of a tail at the most.

        Raises:
            CapacityError: it does not; the message carries the numbers.
        """
        cache, trie, table = self._cache, self.trie, self.table
        needs = np.zeros(table.size + 1, np.int64)  # pages down to each end; the last: above roots
        for segment in np.argsort(table.depth[: table.size], kind="stable").tolist():
            pages = cache.pages_for(int(table.n_tokens[segment]))
            needs[segment] = needs[table.parent[segment]] + pages
        ends = trie.leaf_segments
        last = int(ends[needs[ends].argmax()])
        worst, longest = int(needs[last]) + cache.pages_for(max_tokens) + 1, trie.end(last)
        if worst > cache.n_pages:
            needed, there_is = (n * cache.page_bytes / 2**20 for n in (worst, cache.n_pages))
            raise CapacityError(
                f"one branch needs {needed:.1f} MiB of keys and values ({longest} prompt tokens + "
                f"{max_tokens} new), but ",
                Setting("memory_bytes"),
                f" leaves {there_is:.1f} MiB; give more or lower ",
                Setting("max_tokens"),
            )
