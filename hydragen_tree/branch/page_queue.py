"""Pages that a device hands out to rows by itself, and how they come back.

The host puts free pages into a queue; steps take them in its order. A page is in use for as long as
a row's table names it. What the host gets to see are the tables as they were after a chunk: a page
that the device had then taken, and that no living row names, is free. No chunk that was launched
since can use it either, since rows only take pages from the queue or from rows before them.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.device_batch import DeviceBatch
from hydragen_tree.model.cache import KVCache


class PageQueue:
    """The pages of one batch on a device.

    Args:
        cache: where pages come from, and go back to.
        batch: holds the queue.
    """

    def __init__(self, cache: KVCache, batch: DeviceBatch) -> None:
        self._cache, self._batch = cache, batch
        self._order = np.zeros(cache.n_pages, np.int32)  # pages in the queue's ring
        self._given = self._taken = 0
        self._in_tables = np.zeros(cache.n_pages, np.bool_)
        self._admitted: list[tuple[int, Int32]] = []

    @property
    def waiting(self) -> int:
        """Pages in the queue, as far as is known."""
        return self._given - self._taken

    def fill(self, most: int) -> None:
        """Puts free pages into the queue until it holds so many, or none are left."""
        count = min(most - self.waiting, self._cache.free_pages)
        if count > 0:
            pages = self._cache.take(count)
            self._order[(self._given + np.arange(count)) % self._order.size] = pages
            self._given += count
            self._batch.give(pages)

    def need(self, rows: int, lengths: NDArray[np.int64], tokens: int, max_tokens: int) -> int:
        """Pages that rows will need.

        Args:
            rows: that there may be.
            lengths: of the tails of those there are.
            tokens: that each may become longer by.
            max_tokens: of a tail.
        """
        pages_for = self._cache.pages_for
        need = int((pages_for(np.minimum(lengths + tokens, max_tokens)) - pages_for(lengths)).sum())
        each = 1 + pages_for(tokens)  # of a row that forks: a copy, and what follows it
        return need + (rows - min(rows, lengths.size)) * each

    def admit(self, pages: Int32, chunk: int) -> None:
        """Pages that rows bring along, which are there from a chunk on."""
        self._admitted.append((chunk, pages))

    @property
    def taken(self) -> int:
        """Pages that had been taken out of the queue when it was last seen."""
        return self._taken

    def seen(self, tables: NDArray[np.int32], taken: int, chunk: int) -> None:
        """Takes back what is free.

        Args:
            tables: pages that living rows named after a chunk; below 0 for none.
            taken: pages that had been taken out of the queue by then.
            chunk: its number.
        """
        popped = self._order[np.arange(self._taken, taken) % self._order.size]
        self._in_tables[popped] = True
        self._taken = taken
        for _, pages in (one for one in self._admitted if one[0] <= chunk):
            self._in_tables[pages] = True
        self._admitted = [one for one in self._admitted if one[0] > chunk]
        in_use = np.zeros_like(self._in_tables)
        in_use[tables[tables >= 0]] = True
        self._cache.release(np.flatnonzero(self._in_tables & ~in_use).astype(np.int32))
        self._in_tables &= in_use

    def drain(self) -> None:
        """Takes back all that waits in the queue; nothing is in flight."""
        left = np.arange(self._taken, self._given) % self._order.size
        self._cache.release(self._order[left])
        self._given = self._taken
        self._batch.take_back(self._taken)
