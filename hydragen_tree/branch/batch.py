"""Branches: distinct histories, each one row of the batch, each carrying one or more samples.

Samples of one branch that draw different tokens fork it. All of it is numpy on small arrays: one
step's forks, retirements and page moves are a handful of vector operations, whatever the number of
rows. Rows stay in depth-first order, because children take their parent's place.

The batch is the truth about rows that the host steps: which there are, what they have drawn, which
pages are theirs. A device that steps rows by itself has its own, see `DeviceStepper`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.stepper import Admitted, Waiting
from hydragen_tree.model.cache import KVCache

_ROW_FIELDS = ("leaf", "segment", "start", "drawn", "n_drawn", "tail", "pages", "stops", "state")


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
        start: `[rows]` tokens of its prompt: the position of the first token drawn.
        drawn: `[rows, max_tokens]` tokens drawn since the prompt.
        n_drawn: `[rows]`.
        tail: `[rows]` tokens of its tail that are in the cache.
        pages: `[rows, max_pages]` pages of its tail, -1 where there is none. They may reach
            beyond the tail: the page for the next token.
        stops: `[rows]` int64, the state that decides when its samples end.
        state: `[rows]` place of its running state; -1 of a model that keeps none.
        samples: `[samples]` sample numbers, grouped by row.
        row_of: `[samples]` row of each, ascending.
    """

    def __init__(self, max_tokens: int, max_pages: int) -> None:
        self.leaf = np.empty(0, np.int32)
        self.segment = np.empty(0, np.int32)
        self.start = np.empty(0, np.int32)
        self.drawn = np.empty((0, max_tokens), np.int32)
        self.n_drawn = np.empty(0, np.int32)
        self.tail = np.empty(0, np.int32)
        self.pages = np.empty((0, max_pages), np.int32)
        self.stops = np.empty(0, np.int64)
        self.state = np.empty(0, np.int32)
        self.samples = np.empty(0, np.int64)
        self.row_of = np.empty(0, np.int32)

    @property
    def size(self) -> int:
        """Rows."""
        return self.leaf.size

    @property
    def max_tokens(self) -> int:
        """Tokens that a row draws at the most."""
        return self.drawn.shape[1]

    @property
    def last_token(self) -> Int32:
        """`[rows]` the last token drawn; of no meaning where none was."""
        return self.drawn[np.arange(self.size), self.n_drawn - 1]

    def admit(self, new: Admitted, stop: int) -> None:
        """Adds a branch as the last row; `order` puts rows where they belong."""
        branch = new.branch
        drawn = np.zeros((1, self.drawn.shape[1]), np.int32)
        drawn[0, : branch.drawn.size] = branch.drawn
        table = np.full((1, self.pages.shape[1]), -1, np.int32)
        table[0, : new.pages.size] = new.pages
        self.row_of = np.append(self.row_of, np.full(branch.samples.size, self.size, np.int32))
        self.samples = np.append(self.samples, branch.samples)
        self.leaf = np.append(self.leaf, np.int32(branch.leaf))
        self.segment = np.append(self.segment, np.int32(new.segment))
        self.start = np.append(self.start, np.int32(new.start))
        self.drawn = np.concatenate([self.drawn, drawn])
        self.n_drawn = np.append(self.n_drawn, np.int32(branch.drawn.size))
        self.tail = np.append(self.tail, np.int32(new.tail))
        self.pages = np.concatenate([self.pages, table])
        self.stops = np.append(self.stops, np.int64(stop))
        self.state = np.append(self.state, np.int32(new.state))

    def order(self, table: SegmentTable) -> None:
        """Sorts rows by prompt, keeping the order within one: depth-first again."""
        places = table.order[table.prompt_segments(self.segment)]
        self.keep(np.argsort(places, kind="stable"))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keeps these rows, in this order, with their samples."""
        new_row = np.full(self.size, -1, np.int32)
        new_row[rows] = np.arange(rows.size)
        moved = new_row[self.row_of]
        by_row = np.argsort(moved, kind="stable")
        by_row = by_row[moved[by_row] >= 0]
        self.row_of, self.samples = moved[by_row], self.samples[by_row]
        for name in _ROW_FIELDS:
            setattr(self, name, getattr(self, name)[rows])

    def park(self, rows: NDArray[np.int64], cache: KVCache) -> list[Waiting]:
        """Takes rows out of the batch; what is computed of them is given up, to be made again."""
        parked = [
            Waiting(
                int(self.leaf[row]),
                self.drawn[row, : self.n_drawn[row]].copy(),
                self.samples[self.row_of == row],
            )
            for row in rows.tolist()
        ]
        self._release(rows, cache)
        cache.states.release(self.state[rows])
        self.keep(np.setdiff1d(np.arange(self.size), rows))
        return parked

    def _release(self, rows: NDArray[np.int64], cache: KVCache) -> None:
        pages = self.pages[rows]
        cache.release(pages[pages >= 0])

    def children(self, tokens: NDArray[np.int64]) -> Children:
        """The branches that follow when every sample has drawn its token `[samples]`."""
        if self.samples.size == self.size:  # nothing to tell apart: a sample a row
            rows = np.arange(self.size)
            return Children(rows, tokens, rows)
        width = int(tokens.max(initial=0)) + 1
        pairs, of_sample = np.unique(
            self.row_of.astype(np.int64) * width + tokens, return_inverse=True
        )
        return Children(pairs // width, pairs % width, of_sample)

    def grow(
        self,
        children: Children,
        alive: NDArray[np.bool_],
        stops: NDArray[np.int64],
        cache: KVCache,
    ) -> None:
        """Replaces the rows by those of their children that are `alive`, in these stop states.

        A parent's first live child keeps its pages. Each further one shares the full pages and
        gets a copy of the last, half-full one, and of the running state; the caller has made sure
        that enough are free.
        """
        if children.parent.size == self.size and alive.all():  # each row goes on by one token
            self._append(children.token, stops)
            return
        born = np.flatnonzero(alive)
        parent = children.parent[born]
        gone = np.setdiff1d(np.arange(self.size), parent)
        self._release(gone, cache)
        cache.states.release(self.state[gone])

        new_row = np.full(alive.size, -1, np.int32)
        new_row[born] = np.arange(born.size)
        moved = new_row[children.of_sample]
        by_row = np.argsort(moved, kind="stable")
        by_row = by_row[moved[by_row] >= 0]
        self.row_of, self.samples = moved[by_row], self.samples[by_row]
        for name in _ROW_FIELDS:
            setattr(self, name, getattr(self, name)[parent])
        further = np.flatnonzero(np.diff(parent, prepend=-1) == 0)  # the first child is the heir
        if further.size:
            self._share_pages(further, cache)
            states = cache.states.take_rows(further.size)
            cache.states.copy(self.state[further], states)
            self.state[further] = states
        self._append(children.token[born], stops[born])

    def _append(self, tokens: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Adds a token to each row's history."""
        self.stops = stops
        self.drawn[np.arange(self.size), self.n_drawn] = tokens
        self.n_drawn = self.n_drawn + 1

    def _share_pages(self, rows: NDArray[np.int64], cache: KVCache) -> None:
        """Rows that still name the pages of the row before them share the full ones, copy one."""
        column = np.arange(self.pages.shape[1])
        full, used = np.divmod(self.tail[rows], cache.page_tokens)
        pages = np.where(column < full[:, None], self.pages[rows], -1)
        cache.share(pages[pages >= 0])
        begun = np.flatnonzero(used)
        if begun.size:
            source = self.pages[rows[begun], full[begun]]
            target = cache.take(begun.size)
            cache.copy_pages(source, target, used[begun])
            pages[begun, full[begun]] = target
        self.pages[rows] = pages

    def history(self, child: int, children: Children) -> Int32:
        """All tokens that a child has drawn."""
        parent = children.parent[child]
        drawn = self.drawn[parent, : self.n_drawn[parent]]
        return np.append(drawn, np.int32(children.token[child]))

    def pages_due(self, page_tokens: int) -> NDArray[np.int64]:
        """Rows that have no page for their next token."""
        column = self.tail // page_tokens
        return np.flatnonzero((self.n_drawn > 0) & (self.pages[np.arange(self.size), column] < 0))

    def take_pages(self, cache: KVCache, drafts: NDArray[np.int64] | None = None) -> None:
        """Gives every row a page for its next token; the caller has made sure there are enough.

        Args:
            cache: where they come from.
            drafts: `[rows]` tokens behind that one, of a page at the most, that need room as well.
        """
        due = self.pages_due(cache.page_tokens)
        self.pages[due, self.tail[due] // cache.page_tokens] = cache.take(due.size)
        if drafts is not None:
            column = (self.tail + drafts) // cache.page_tokens
            due = np.flatnonzero((drafts > 0) & (self.pages[np.arange(self.size), column] < 0))
            self.pages[due, column[due]] = cache.take(due.size)

    def advance(self, tokens: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Rows go on by several tokens, which all their samples have drawn and the cache has.

        Args:
            tokens: `[rows, most]`.
            counts: `[rows]` how many of them.
        """
        row, step = np.nonzero(np.arange(tokens.shape[1]) < counts[:, None])
        self.drawn[row, self.n_drawn[row] + step] = tokens[row, step]
        self.n_drawn = (self.n_drawn + counts).astype(np.int32)
        self.tail = (self.tail + counts).astype(np.int32)

    def stored(self) -> None:
        """The last token of every row has gone through the model: its keys are in the tail."""
        self.tail = self.tail + (self.n_drawn > 0)

    def copies_needed(self, children: Children, page_tokens: int) -> int:
        """Pages that `grow` would take for these children at the most."""
        part_full = self.tail[children.parent] % page_tokens != 0
        first = np.ones(part_full.size, np.bool_)
        first[1:] = children.parent[1:] != children.parent[:-1]
        return int(np.count_nonzero(part_full & ~first))

    def replace_tails(self, rows: NDArray[np.int64], segment: int, cache: KVCache) -> None:
        """Hangs rows below a frozen segment that now holds their tails."""
        self._release(rows, cache)
        self.segment[rows] = segment
        self.tail[rows] = 0
        self.pages[rows] = -1
