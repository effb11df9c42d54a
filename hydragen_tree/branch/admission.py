"""Admission: waiting branches into the batch, and back out where there is no room for them.

The batch is bounded in rows and in pages. What does not fit waits as bare tokens, depth-first, and
is computed when its turn comes, so that the number of samples is bounded by neither. Waiting
branches are a stack: those that were put back are taken first, since their past is computed last.

Two things must hold at any time, or a run could stall:

- A batch that is empty takes any branch, whatever must be given up for it.
- Rows that grow find their pages, or the last rows are parked until they do; one row always fits.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.batch import Batch, Children, Waiting
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.trie.trie import Trie

_WORTHWHILE_SHARE = 8  # admitting is worth its prefill pass for an eighth of the rows


class Admission:
    """Fills one batch.

    Args:
        waiting: all branches, the one to take first last.
        batch: what they come into.
        trie: prompts, after folding.
        residency: of its segments.
        prefill: computes what admitted branches lack.
        cache: where pages come from.
        fresh: leaf to logits `[vocabulary]` of the token after it, for rows that have drawn none;
            filled here, emptied by who draws from them.
        max_rows: rows of the batch at the most.
        greedy: samples of one row never part, so that they need no rows of their own.
    """

    def __init__(
        self,
        waiting: list[Waiting],
        batch: Batch,
        trie: Trie,
        residency: Residency,
        prefill: Prefill,
        cache: KVCache,
        fresh: dict[int, Tensor],
        max_rows: int,
        greedy: bool,
    ) -> None:
        self._waiting, self._batch, self._trie = waiting, batch, trie
        self._residency, self._prefill, self._cache = residency, prefill, cache
        self._fresh = fresh
        self._max_rows, self._greedy = max_rows, greedy
        self._start = np.array([trie.end(leaf) for leaf in trie.leaf_segments.tolist()], np.int32)

    @property
    def has_waiting(self) -> bool:
        """Whether branches wait."""
        return bool(self._waiting)

    def is_worthwhile(self) -> bool:
        """Whether a branch waits that would fit, and there is room enough to be worth the work."""
        if not self._batch.size:
            return self.has_waiting
        room = self._room()
        return room >= self._least_room() and self._next(room, first=False) is not None

    def admit(self) -> None:
        """Fills the batch from the waiting branches, as far as rows and pages allow."""
        admitted: list[tuple[Waiting, Int32, int]] = []
        new_segments: list[int] = []
        room = self._room()
        while True:
            first = not self._batch.size and not admitted
            branch = self._next(room, first)
            if branch is None:
                break
            missing = self._residency.missing(branch.leaf)
            tail = max(0, branch.drawn.size - 1)
            if not self._residency.place(missing):
                if not first:
                    break
                missing = self._residency.place_alone(branch.leaf)
            pages = self._cache.take(self._cache.pages_for(tail))
            self._take(branch)
            admitted.append((branch, pages, tail))
            new_segments += missing
            room -= self._rows_of(branch.samples.size, 1)
        self._compute(admitted, new_segments)

    def make_room(self) -> None:
        """Parks the last rows until every row left can have a page for its next token.

        Raises:
            CapacityError: a single row finds none, which `Residency.check_capacity` rules out.
        """
        while self._batch.pages_due(self._cache.page_tokens).size > self._cache.free_pages:
            size = self._batch.size
            if size == 1:
                raise CapacityError("a single branch found no page for its next token")
            last = np.arange(size - max(1, size // 8), size)
            self._waiting += self._batch.park(last, self._cache)[::-1]
            self.evict_unused()

    def set_aside(self, children: Children, alive: NDArray[np.bool_]) -> None:
        """Takes children beyond the batch's rows and pages out of `alive`; they wait.

        Args:
            children: of the batch, about to take its place.
            alive: `[children]`, which of them go on; changed in place.
        """
        batch = self._batch
        living = np.flatnonzero(alive)
        need = batch.copies_needed(children, self._cache.page_tokens)
        over = max(living.size - self._max_rows, need - self._cache.free_pages, 0)
        over = min(over, living.size - 1)
        surplus = []
        for child in living[living.size - over :].tolist():
            samples = batch.samples[children.of_sample == child]
            leaf = int(batch.leaf[children.parent[child]])
            surplus.append(Waiting(leaf, batch.history(child, children), samples))
            alive[child] = False
        self._waiting += surplus[::-1]

    def evict_unused(self) -> None:
        """Gives up segments that no row, and no waiting branch, is below."""
        leaves = np.unique([branch.leaf for branch in self._waiting]).astype(np.int32)
        below = np.append(self._batch.segment, self._trie.leaf_segments[leaves])
        self._residency.evict_unused(below)

    def _room(self) -> int:
        """Rows that the batch's samples will leave free."""
        return self._max_rows - self._rows_of(self._batch.samples.size, self._batch.size)

    def _least_room(self) -> int:
        return max(1, self._max_rows // _WORTHWHILE_SHARE)

    def _rows_of(self, samples: int, rows: int) -> int:
        """Rows that samples will spread over: one each, unless nothing is left to chance."""
        return rows if self._greedy else samples

    def _next(self, room: int, first: bool) -> Waiting | None:
        """The waiting branch that fits next, or as many of its samples as there is room for.

        Args:
            room: free rows.
            first: the batch is empty; it takes any branch.
        """
        if not self._waiting:
            return None
        branch = self._waiting[-1]
        if first:
            return branch
        if self._rows_of(branch.samples.size, 1) > room:
            if room < self._least_room():
                return None
            branch = replace(branch, samples=branch.samples[:room])
        return branch if self._fits(branch) else None

    def _fits(self, branch: Waiting) -> bool:
        """Whether pages are free for the branch, its missing path, and some growth of all rows.

        Half of what its rows may still draw is reckoned with: fewer would be parked again and
        computed twice, more would leave rows empty for samples that mostly end early.
        """
        left = self._batch.max_tokens - branch.drawn.size
        rows = self._rows_of(branch.samples.size, 1)
        pages_for = self._cache.pages_for
        need = pages_for(branch.drawn.size) + rows * pages_for(left // 2)
        spare = self._cache.free_pages - self._batch.size  # a page for each row's next tokens
        return spare >= need + self._residency.pages_missing(branch.leaf)

    def _take(self, taken: Waiting) -> None:
        """Takes a branch, or a part of its samples, from those that wait."""
        whole = self._waiting.pop()
        rest = whole.samples[taken.samples.size :]
        if rest.size:
            self._waiting.append(replace(whole, samples=rest))

    def _compute(self, admitted: list[tuple[Waiting, Int32, int]], segments: list[int]) -> None:
        """Computes what admitted branches lack, and makes rows of them."""
        batch, leaf_segments = self._batch, self._trie.leaf_segments
        ends = {int(segment): leaf for leaf, segment in enumerate(leaf_segments)}
        logits = self._prefill.segments(segments)
        self._fresh.update({ends[segment]: row for segment, row in logits.items()})
        back = []
        for branch, pages, tail in admitted:
            leaf, segment = branch.leaf, int(leaf_segments[branch.leaf])
            if not branch.drawn.size and leaf not in self._fresh:
                # resident since an earlier admission, whose logits are gone
                self._fresh[leaf] = self._prefill.segments([segment])[segment]
            batch.admit(branch, segment, int(self._start[leaf]), pages, tail)
            if tail:
                back.append(batch.size - 1)
        if back:
            self._prefill.tails(
                batch.segment[back],
                [batch.drawn[row, : batch.tail[row]] for row in back],
                batch.pages[back],
                batch.start[back],
            )
        batch.order()
