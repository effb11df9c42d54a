"""Admission: waiting branches into the batch, and back out where there is no room for them.

The batch is bounded in rows and in pages. What does not fit waits as bare tokens, depth-first, and
is computed when its turn comes, so that the number of samples is bounded by neither. Waiting
branches are a stack: those that were put back are taken first, since their past is computed last.

Two things must hold at any time, or a run could stall:

- A batch that is empty takes any branch, whatever must be given up for it.
- Rows that grow find their pages, or the stepper puts the last ones back; one row always fits.
"""

from dataclasses import replace

import numpy as np
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Admitted, Stepper, Waiting
from hydragen_tree.model.cache import KVCache
from hydragen_tree.trie.trie import Trie

_WORTHWHILE_SHARE = 8  # admitting is worth its prefill pass for an eighth of the rows


class Admission:
    """Fills one batch.

    Args:
        waiting: all branches, the one to take first last.
        stepper: what they come into.
        trie: prompts, after folding.
        residency: of its segments.
        prefill: computes what admitted branches lack.
        cache: where pages come from.
        max_rows: rows of the batch at the most.
        greedy: samples of one row never part, so that they need no rows of their own.
    """

    def __init__(
        self,
        waiting: list[Waiting],
        stepper: Stepper,
        trie: Trie,
        residency: Residency,
        prefill: Prefill,
        cache: KVCache,
        max_rows: int,
        greedy: bool,
    ) -> None:
        self._waiting, self._stepper, self._trie = waiting, stepper, trie
        self._residency, self._prefill, self._cache = residency, prefill, cache
        self._max_rows, self._greedy = max_rows, greedy
        self._start = np.array([trie.end(leaf) for leaf in trie.leaf_segments.tolist()], np.int32)

    @property
    def has_waiting(self) -> bool:
        """Whether branches wait."""
        return bool(self._waiting)

    @property
    def n_waiting(self) -> int:
        """Samples that wait."""
        return sum(branch.samples.size for branch in self._waiting)

    def add(self, branches: list[Waiting]) -> None:
        """Takes more branches, to be admitted after all that wait; the first one last."""
        self._waiting[:0] = branches

    def is_worthwhile(self) -> bool:
        """Whether a branch waits that would fit, and there is room enough to be worth the work."""
        if not self._stepper.n_samples:
            return self.has_waiting
        room = self._room()
        return room >= self._least_room() and self._next(room, first=False) is not None

    def admit(self) -> None:
        """Fills the batch from the waiting branches, as far as rows and pages allow."""
        admitted: list[tuple[Waiting, Int32, int]] = []
        new_segments: list[int] = []
        room = self._room()
        while True:
            first = not self._stepper.n_samples and not admitted
            branch = self._next(room, first)
            if branch is None:
                break
            if first:
                self._make_way(branch.leaf)
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

    def _make_way(self, leaf: int) -> None:
        """Gives up other paths if a branch of this leaf may not come to its end beside them."""
        cache, residency = self._cache, self._residency
        need = residency.pages_missing(leaf) + cache.pages_for(self._stepper.max_tokens) + 1
        if cache.free_pages < need:
            residency.evict_unused(self._trie.leaf_segments[[leaf]].astype(np.int32))

    def put_back(self, branches: list[Waiting]) -> None:
        """Takes back branches that found no room, in the order of the batch."""
        self._waiting += branches[::-1]

    def evict_unused(self) -> None:
        """Gives up segments that no row, and no waiting branch, is below."""
        leaves = np.unique([branch.leaf for branch in self._waiting]).astype(np.int32)
        below = np.append(self._stepper.segments, self._trie.leaf_segments[leaves])
        self._residency.evict_unused(below)

    def _room(self) -> int:
        """Rows that the batch's samples will leave free."""
        return self._max_rows - self._rows_of(self._stepper.n_samples, self._stepper.n_rows)

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
            most = branch.samples.size if self._greedy else self._stepper.max_samples
            return replace(branch, samples=branch.samples[:most])
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
        left = self._stepper.max_tokens - branch.drawn.size
        rows = self._rows_of(branch.samples.size, 1)
        pages_for = self._cache.pages_for
        now = pages_for(branch.drawn.size) + self._residency.pages_missing(branch.leaf)
        later = rows * pages_for(max(1, left // 2))
        return self._cache.free_pages >= now and self._stepper.spare_pages >= now + later

    def _take(self, taken: Waiting) -> None:
        """Takes a branch, or a part of its samples, from those that wait."""
        whole = self._waiting.pop()
        rest = whole.samples[taken.samples.size :]
        if rest.size:
            self._waiting.append(replace(whole, samples=rest))

    def _compute(self, admitted: list[tuple[Waiting, Int32, int]], segments: list[int]) -> None:
        """Computes what admitted branches lack, and makes rows of them."""
        leaf_segments = self._trie.leaf_segments
        ends = {int(segment): leaf for leaf, segment in enumerate(leaf_segments)}
        logits = self._prefill.segments(segments)
        fresh = {ends[segment]: row for segment, row in logits.items()}
        new, back = [], []
        for branch, pages, tail in admitted:
            leaf, segment = branch.leaf, int(leaf_segments[branch.leaf])
            first: Tensor | None = None
            if not branch.drawn.size:
                if leaf not in fresh:  # resident since an earlier admission, whose logits are gone
                    fresh[leaf] = self._prefill.segments([segment])[segment]
                first = fresh[leaf]
            new.append(Admitted(branch, segment, int(self._start[leaf]), pages, tail, first))
            if tail:
                back.append(new[-1])
        if back:
            table = np.full((len(back), max(one.pages.size for one in back)), -1, np.int32)
            for row, one in zip(table, back, strict=True):
                row[: one.pages.size] = one.pages
            self._prefill.tails(
                np.array([one.segment for one in back], np.int32),
                [one.branch.drawn[: one.tail] for one in back],
                table,
                np.array([one.start for one in back], np.int32),
            )
        self._stepper.admit(new)
