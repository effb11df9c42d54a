"""Branches: distinct histories, each one row of the batch, each carrying one or more samples.

Samples of one branch that draw different tokens fork it. All of it is numpy on small arrays: one
step's forks, retirements and page moves are a handful of vector operations, whatever the number of
rows. Rows stay in depth-first order, because children take their parent's place.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.model.cache import KVCache

Int = NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A branch outside the batch: tokens and samples, no keys and values.

    Attributes:
        leaf: the leaf of the trie it continues.
        drawn: tokens drawn so far, int32.
        samples: numbers of the samples it carries.
    """

    leaf: int
    drawn: Int
    samples: NDArray[np.int64]


class Children(NamedTuple):
    """The branches after one token a sample: distinct (row, token) pairs, depth-first.

    Attributes:
        parent: `[children]` row it came from.
        token: `[children]` the token drawn.
        of_sample: `[samples]` the child of each sample.
    """

    parent: NDArray[np.int64]
    token: NDArray[np.int64]
    of_sample: NDArray[np.int64]


class Batch:
    """The live branches, one row each.

    Attributes:
        leaf: `[rows]` leaf of the trie it continues.
        segment: `[rows]` segment it hangs from: the leaf's, or a frozen tail below it.
        drawn: `[rows, max_tokens]` tokens drawn since the prompt.
        n_drawn: `[rows]`.
        tail: `[rows]` tokens of its tail that are in the cache.
        pages: `[rows, max_pages]` pages of its tail.
        samples: `[samples]` sample numbers, grouped by row.
        row_of: `[samples]` row of each, ascending.
    """

    def __init__(self, max_tokens: int, max_pages: int) -> None:
        self.leaf = np.empty(0, np.int32)
        self.segment = np.empty(0, np.int32)
        self.drawn = np.empty((0, max_tokens), np.int32)
        self.n_drawn = np.empty(0, np.int32)
        self.tail = np.empty(0, np.int32)
        self.pages = np.empty((0, max_pages), np.int32)
        self.samples = np.empty(0, np.int64)
        self.row_of = np.empty(0, np.int32)

    @property
    def size(self) -> int:
        """Rows."""
        return self.leaf.size

    def admit(self, branch: Waiting, segment: int, pages: Int, tail: int) -> None:
        """Adds a branch as the last row; `order` puts rows where they belong."""
        drawn = np.zeros((1, self.drawn.shape[1]), np.int32)
        drawn[0, : branch.drawn.size] = branch.drawn
        table = np.full((1, self.pages.shape[1]), -1, np.int32)
        table[0, : pages.size] = pages
        self.row_of = np.append(self.row_of, np.full(branch.samples.size, self.size, np.int32))
        self.samples = np.append(self.samples, branch.samples)
        self.leaf = np.append(self.leaf, np.int32(branch.leaf))
        self.segment = np.append(self.segment, np.int32(segment))
        self.drawn = np.concatenate([self.drawn, drawn])
        self.n_drawn = np.append(self.n_drawn, np.int32(branch.drawn.size))
        self.tail = np.append(self.tail, np.int32(tail))
        self.pages = np.concatenate([self.pages, table])

    def order(self) -> None:
        """Sorts rows by leaf, keeping the order within one: depth-first again."""
        self.keep(np.argsort(self.leaf, kind="stable"))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keeps these rows, in this order, with their samples."""
        new_row = np.full(self.size, -1, np.int32)
        new_row[rows] = np.arange(rows.size)
        moved = new_row[self.row_of]
        by_row = np.argsort(moved, kind="stable")
        by_row = by_row[moved[by_row] >= 0]
        self.row_of, self.samples = moved[by_row], self.samples[by_row]
        for name in ("leaf", "segment", "drawn", "n_drawn", "tail", "pages"):
            setattr(self, name, getattr(self, name)[rows])

    def park(self, rows: NDArray[np.int64], cache: KVCache) -> list[Waiting]:
        """Takes rows out of the batch and gives up their pages; they can be computed again."""
        parked = []
        for row in rows.tolist():
            self._release(row, cache)
            parked.append(
                Waiting(
                    int(self.leaf[row]),
                    self.drawn[row, : self.n_drawn[row]].copy(),
                    self.samples[self.row_of == row],
                )
            )
        self.keep(np.setdiff1d(np.arange(self.size), rows))
        return parked

    def _release(self, row: int, cache: KVCache) -> None:
        cache.release(self.pages[row, : cache.pages_for(int(self.tail[row]))])

    def children(self, tokens: NDArray[np.int64]) -> Children:
        """The branches that follow when every sample has drawn its token `[samples]`."""
        width = int(tokens.max(initial=0)) + 1
        pairs, of_sample = np.unique(
            self.row_of.astype(np.int64) * width + tokens, return_inverse=True
        )
        return Children(pairs // width, pairs % width, of_sample)

    def grow(self, children: Children, alive: NDArray[np.bool_], cache: KVCache) -> None:
        """Replaces the rows by those of their children that are `alive`.

        A parent's first live child keeps its pages. Each further one shares the full pages and
        gets a copy of the last, half-full one; the caller has made sure that enough are free.
        """
        born = np.flatnonzero(alive)
        parent = children.parent[born]
        heir = np.ones(born.size, np.bool_)
        heir[1:] = parent[1:] != parent[:-1]
        for row in np.setdiff1d(np.arange(self.size), parent).tolist():
            self._release(row, cache)

        pages = self.pages[parent]
        full = self.tail[parent] // cache.page_tokens
        cousins = np.flatnonzero(~heir)
        if cousins.size:
            column = np.arange(pages.shape[1])
            cache.share(pages[cousins][column < full[cousins, None]])
            used = self.tail[parent] % cache.page_tokens
            copied = cousins[used[cousins] != 0]
            if copied.size:
                source = pages[copied, full[copied]]
                target = cache.take(copied.size)
                cache.copy_pages(source, target, used[copied])
                pages[copied, full[copied]] = target

        new_row = np.full(alive.size, -1, np.int32)
        new_row[born] = np.arange(born.size)
        moved = new_row[children.of_sample]
        by_row = np.argsort(moved, kind="stable")
        by_row = by_row[moved[by_row] >= 0]
        self.row_of, self.samples = moved[by_row], self.samples[by_row]
        self.pages = pages
        self.drawn = self.drawn[parent]
        self.n_drawn = self.n_drawn[parent]
        self.drawn[np.arange(born.size), self.n_drawn] = children.token[born]
        self.n_drawn = self.n_drawn + 1
        for name in ("leaf", "segment", "tail"):
            setattr(self, name, getattr(self, name)[parent])

    def copies_needed(self, children: Children, page_tokens: int) -> int:
        """Pages that `grow` would take for these children at the most."""
        part_full = self.tail[children.parent] % page_tokens != 0
        first = np.ones(part_full.size, np.bool_)
        first[1:] = children.parent[1:] != children.parent[:-1]
        return int(np.count_nonzero(part_full & ~first))

    def replace_tails(self, rows: NDArray[np.int64], segment: int, cache: KVCache) -> None:
        """Hangs rows below a frozen segment that now holds their tails."""
        for row in rows.tolist():
            self._release(row, cache)
        self.segment[rows] = segment
        self.tail[rows] = 0
        self.pages[rows] = -1
