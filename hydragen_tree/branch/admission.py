"""Admission: waiting branches into the batch, and back out where there is no room for them.

The batch is bounded in rows and in pages. What does not fit waits as bare tokens, depth-first, and
is computed when its turn comes, so that the number of samples is bounded by neither. How many pages
rows will need is guessed from how long others have become (`lengths.py`). Waiting branches are a
stack: those that were put back are taken first, since their past is computed last.

Prompts of the branches that are next are computed before there is room for them, a few tokens
between one round of steps and the next. So rows that end are followed at once by others, and no row
waits long for a prompt that is not its own.

Two things must hold at any time, or a run could stall:

- A batch that is empty takes any branch, whatever must be given up for it.
- Rows that grow find their pages: first prompts that no row needs yet are given up, then the
  stepper puts the last rows back; one row always fits.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.lengths import LengthForecast
from hydragen_tree.branch.page_forecast import PageForecast
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Admitted, Progress, Stepper, Waiting
from hydragen_tree.model.cache import KVCache

_WORTHWHILE_SHARE = 8  # an eighth of the rows is worth the work of admitting
_FULL = 0.75  # of the rows in use: a batch whose steps are not held up
_AHEAD_SHARE = 4  # prompts are computed ahead for a quarter of the rows
# Prompt tokens that take no longer than a step of one row: it reads all weights, and waits for
# memory meanwhile, on a GPU far longer than on a CPU.
_FREE_TOKENS, _FREE_TOKENS_CPU = 256, 16


class Admission:
    """Fills one batch.

    Args:
        waiting: all branches, the one to take first last.
        stepper: what they come into.
        residency: of the segments of its prompts.
        prefill: computes what admitted branches lack.
        cache: where pages come from.
        max_rows: rows of the batch at the most.
        greedy: samples of one row never part, so that they need no rows of their own.

    Attributes:
        n_waiting: samples that wait.
        lengths: how long samples are thought to become.
        keeps_segments: those that nobody needs stay while memory is ample: prompts may come that
            share them, and prompts all of whose samples have ended are forgotten.
    """

    def __init__(
        self,
        waiting: list[Waiting],
        stepper: Stepper,
        residency: Residency,
        prefill: Prefill,
        cache: KVCache,
        max_rows: int,
        greedy: bool,
    ) -> None:
        self._waiting, self._stepper, self._trie = waiting, stepper, residency.trie
        self._residency, self._prefill, self._cache = residency, prefill, cache
        self._max_rows, self._greedy = max_rows, greedy
        self.n_waiting = 0
        self._undrawn: Counter[int] = Counter()  # by leaf, branches that wait and have no tokens
        self._left: Counter[int] = Counter()  # by leaf, samples that have not ended
        self._count(waiting)
        self._count_left(waiting)
        self._logits: dict[int, Tensor] = {}  # after prompts, by leaf, while branches wait for them
        self.lengths = LengthForecast(stepper.max_tokens)
        self.keeps_segments = False
        self._is_short = False  # of pages, for a branch that waits
        self._affordable = 0  # tokens to compute until the next round of steps

    @property
    def has_waiting(self) -> bool:
        """Whether branches wait."""
        return bool(self._waiting)

    def add(self, branches: list[Waiting]) -> None:
        """Takes more branches, to be admitted after all that wait; the first one last."""
        self._waiting[:0] = branches
        self._count(branches)
        self._count_left(branches)

    def _count(self, branches: list[Waiting]) -> None:
        """Counts branches that wait from now on."""
        self.n_waiting += sum(branch.samples.size for branch in branches)
        self._undrawn.update(branch.leaf for branch in branches if not branch.drawn.size)

    def _count_left(self, branches: list[Waiting]) -> None:
        """Counts samples that are to be drawn."""
        for branch in branches:
            self._left[branch.leaf] += branch.samples.size

    # -- prompts, ahead of the rows ------------------------------------------------------------

    def prefetch(self) -> None:
        """Computes prompts of the branches that are next, as far as memory and time allow.

        For as many rows as may soon be free, and in no more time than a round of steps takes.
        """
        segments: dict[int, None] = {}
        pages = self._pages()
        ahead, wanted = 0, max(self._room(), self._max_rows // _AHEAD_SHARE)
        for branch in reversed(self._waiting):
            if ahead >= wanted:
                break
            missing = self._residency.missing(branch.leaf)
            part = self._part(branch, wanted - ahead)
            if missing and not (self._fits(part, pages) and self._place(missing)):
                break
            segments.update(dict.fromkeys(self._lacking(branch)))
            rows = self._rows_of(part.samples.size, 1)
            pages.add(part, rows)
            ahead += rows
        self._compute(list(segments), self._affordable)

    def follow(self, progress: Progress) -> None:
        """Takes back branches that found no room, and gives up segments that nobody needs."""
        self._affordable = self._tokens_beside(progress)
        for ended in progress.ended:
            self.lengths.ended(ended.leaf, ended.samples, ended.tokens.size)
            self._left[ended.leaf] -= ended.samples.size
        self._waiting += progress.parked[::-1]
        self._count(progress.parked)
        if self.keeps_segments:
            for leaf in {ended.leaf for ended in progress.ended if not self._left[ended.leaf]}:
                self._finish(leaf)
        if (progress.ended or progress.parked) and not self._may_keep(progress):
            self._evict_unused([branch.leaf for branch in self._waiting])

    def _place(self, missing: list[int]) -> bool:
        """Reserves what segments need; where that fails, those that nobody needs have to go."""
        is_placed = self._residency.place(missing)
        self._is_short |= not is_placed
        return is_placed

    def _finish(self, leaf: int) -> None:
        """All samples of a leaf have ended."""
        del self._left[leaf], self._undrawn[leaf]
        self.lengths.forget(leaf)
        self._residency.finish(leaf)

    def _may_keep(self, progress: Progress) -> bool:
        """Whether segments may stay that nobody needs: nobody lacks their pages, and half are free.

        What is decided from is what has been so far; the next round gives them up if need be.
        """
        is_short, self._is_short = self._is_short or bool(progress.parked), False
        ample = 2 * self._cache.free_pages >= self._cache.n_pages
        return self.keeps_segments and ample and not is_short

    def _tokens_beside(self, progress: Progress) -> int:
        """Tokens that may be computed between a round of steps and the next.

        As many as rows were computed in the round, or as a step computes in the time in which it
        reads the weights: so a round takes about twice as long as its steps, at the most. Where
        prompts do not keep up with rows that end, a whole pass: empty rows cost more than a wait.
        """
        if self._stepper.n_samples < _FULL * self._max_rows:
            return self._prefill.max_tokens
        is_cpu = self._cache.keys.device.type == "cpu"
        free = _FREE_TOKENS_CPU if is_cpu else _FREE_TOKENS
        return max(progress.rows, max(progress.steps, 1) * free)

    def give_up_prefetched(self) -> None:
        """Gives up what is computed of prompts that no row has needed yet."""
        self._evict_unused([branch.leaf for branch in self._waiting if branch.drawn.size])

    def _lacking(self, branch: Waiting) -> list[int]:
        """Segments on a branch's path, placed, that have to be computed before it can enter.

        The last token of a prompt is computed again where its logits are gone; after running states
        that have that token in them, its last segment.
        """
        lacking, table = self._residency.uncomputed(branch.leaf), self._residency.table
        if not lacking and not branch.drawn.size and branch.leaf not in self._logits:
            lacking = [int(self._trie.leaf_segments[branch.leaf])]
            table.n_computed[lacking] -= (
                table.n_tokens[lacking] if self._cache.states.is_kept else 1
            )
        return lacking

    def _compute(self, segments: list[int], tokens: int) -> None:
        """Computes placed segments as far as so many tokens go, and keeps prompts' logits."""
        if segments:
            for segment, logits in self._prefill.advance(segments, tokens).items():
                self._logits[self._trie.leaf_of(segment)] = logits

    def _is_ready(self, branch: Waiting) -> bool:
        """Whether a branch's path is computed, and what its first token is drawn from is there."""
        segment, table = self._trie.leaf_segments[branch.leaf], self._residency.table
        is_computed = table.n_computed[segment] == table.n_tokens[segment]
        return bool(is_computed) and (branch.drawn.size > 0 or branch.leaf in self._logits)

    # -- rows ----------------------------------------------------------------------------------

    def admit(self) -> None:
        """Takes waiting branches into the batch whose prompts are computed.

        As far as rows and pages allow, and if it is worth the work; into an empty batch at least
        one.
        """
        if not self._waiting:
            return
        first, room = not self._stepper.n_samples, self._room()
        if first:
            self._open()
        elif room < self._least_room():
            return
        admitted: list[tuple[Waiting, Int32, int, int]] = []
        needed = self._pages()
        states = self._cache.states
        while states.has_room and (branch := self._next(room, first, needed)) is not None:
            tail = max(0, branch.drawn.size - 1)
            if tail > self._affordable and not first:
                break
            pages = self._cache.take(self._cache.pages_for(tail))
            (state,) = states.take_rows(1).tolist()
            admitted.append((branch, pages, tail, state))
            self._take(branch)
            self._affordable -= tail
            rows = self._rows_of(branch.samples.size, 1)
            needed.add(branch, rows)
            room -= rows
            first = False
        if admitted:
            self._enter(admitted)

    def _open(self) -> None:
        """Computes the next branch's path, which an empty batch waits for, and others with it."""
        branch, cache, residency = self._waiting[-1], self._cache, self._residency
        need = residency.pages_missing(branch.leaf)
        if cache.free_pages < need + cache.pages_for(self._stepper.max_tokens) + 1:
            # it may not come to its end beside the paths of others
            self._evict_unused([branch.leaf])
        if not residency.place(residency.missing(branch.leaf)):
            residency.place_alone(branch.leaf)
            self._forget_logits()
        own = self._lacking(branch)
        self._compute(own, int(residency.table.n_tokens[own].sum()))
        self._affordable = self._prefill.max_tokens
        if not branch.drawn.size:  # else its tail needs the pages
            self.prefetch()

    def _evict_unused(self, leaves: list[int]) -> None:
        """Gives up segments that no row is below, and none of these leaves."""
        below = self._trie.leaf_segments[np.unique(np.array(leaves, np.int64))]
        self._residency.evict_unused(np.append(self._stepper.segments, below).astype(np.int32))
        self._forget_logits()

    def _forget_logits(self) -> None:
        """Gives up logits of prompts that are given up, or that nobody draws from any more."""
        if self._logits:
            slots, segments = self._residency.table.slot, self._trie.leaf_segments
            for leaf in list(self._logits):
                if not self._undrawn[leaf] or slots[segments[leaf]] < 0:
                    del self._logits[leaf]

    def _room(self) -> int:
        """Rows that the batch's samples will leave free."""
        return self._max_rows - self._rows_of(self._stepper.n_samples, self._stepper.n_rows)

    def _least_room(self) -> int:
        """Rows for which it is worth admitting anything: all that wait need no more.

        A device draws first tokens in a chunk of their own; on the host one branch is enough.
        """
        least, rows = max(1, self._max_rows // _WORTHWHILE_SHARE), 0
        for branch in reversed(self._waiting):
            rows += self._rows_of(branch.samples.size, 1)
            if rows >= least or not self._stepper.is_ahead:
                break
        return min(least, rows)

    def _rows_of(self, samples: int, rows: int) -> int:
        """Rows that samples will spread over: one each, unless nothing is left to chance."""
        return rows if self._greedy else samples

    def _part(self, branch: Waiting, room: int) -> Waiting:
        """As many of a branch's samples as there is room for."""
        if self._rows_of(branch.samples.size, 1) > room:
            return replace(branch, samples=branch.samples[:room])
        return branch

    def _next(self, room: int, first: bool, pages: PageForecast) -> Waiting | None:
        """The waiting branch that fits next, or as many of its samples as there is room for.

        Args:
            room: free rows.
            first: the batch is empty; it takes any branch.
            pages: that its rows will need.
        """
        if not self._waiting:
            return None
        branch = self._waiting[-1]
        if first:
            most = branch.samples.size if self._greedy else self._stepper.max_samples
            return replace(branch, samples=branch.samples[:most])
        if not self._is_ready(branch):
            return None
        least = max(1, self._max_rows // _WORTHWHILE_SHARE)
        if room < min(self._rows_of(branch.samples.size, 1), least):
            return None
        branch = self._part(branch, room)
        return branch if self._fits(branch, pages) else None

    def _fits(self, branch: Waiting, among: PageForecast) -> bool:
        """Whether pages are free for the branch and its path, and likely to be for all rows.

        Where not even samples of the full length can run out of them, nothing has to be guessed.
        """
        residency, pages_for = self._residency, self._cache.pages_for
        path = residency.pages_missing(branch.leaf)
        now = path + pages_for(branch.drawn.size)
        spare = self._stepper.spare_pages - among.added  # a page for each that has entered since
        if self._cache.free_pages < now or spare < max(now, 1):
            self._is_short = True
            return False
        room = self._cache.n_pages - self._cache.segment_pages - path
        rows = self._rows_of(branch.samples.size, 1)
        if (among.rows + rows) * (pages_for(self._stepper.max_tokens) + 1) <= room:
            return True
        fits = among.most_with(branch, rows) <= room
        self._is_short |= not fits
        return fits

    def _take(self, taken: Waiting) -> None:
        """Takes a branch, or a part of its samples, from those that wait."""
        whole = self._waiting.pop()
        self.n_waiting -= taken.samples.size
        rest = whole.samples[taken.samples.size :]
        if rest.size:
            self._waiting.append(replace(whole, samples=rest))
        elif not whole.drawn.size:
            self._undrawn[whole.leaf] -= 1

    def _enter(self, admitted: list[tuple[Waiting, Int32, int, int]]) -> None:
        """Makes rows of branches; tails of those that come back are computed."""
        new = [
            Admitted(
                branch,
                int(self._trie.leaf_segments[branch.leaf]),
                self._trie.end(int(self._trie.leaf_segments[branch.leaf])),
                pages,
                tail,
                state,
                None if branch.drawn.size else self._logits[branch.leaf],
            )
            for branch, pages, tail, state in admitted
        ]
        self._cache.states.copy(
            self._residency.table.state[[one.segment for one in new]],
            np.array([one.state for one in new], np.int32),
        )
        back = [one for one in new if one.tail]
        if back:
            pages = np.full((len(back), max(one.pages.size for one in back)), -1, np.int32)
            for row, one in zip(pages, back, strict=True):
                row[: one.pages.size] = one.pages
            self._prefill.tails(
                np.array([one.segment for one in back], np.int32),
                [one.branch.drawn[: one.tail] for one in back],
                pages,
                np.array([one.start for one in back], np.int32),
                np.array([one.state for one in back], np.int32),
            )
        if self.lengths.has_seen_ends:
            curves = self.lengths.curves(*self._stepper.live())
            for branch, _, _, _ in admitted:
                if not branch.drawn.size:
                    self.lengths.predict(branch.samples, curves.length(branch.leaf))
        self._stepper.admit(new)
        self._forget_logits()

    def _pages(self) -> PageForecast:
        """What the rows of now will need, to which others are added."""
        leaf, drawn = self._stepper.live()
        cache, stepper = self._cache, self._stepper
        free = stepper.spare_pages + stepper.n_rows
        in_use = cache.n_pages - cache.segment_pages - free
        return PageForecast(
            self.lengths, leaf, drawn, in_use, cache.page_tokens, stepper.max_tokens
        )
