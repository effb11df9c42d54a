"""Steps on a GPU: chunks of them ahead of the host, forks and ends included.

Who is right when. The device is, about rows: which there are, whose samples they carry, which pages
are theirs. The host is, about samples: which have been admitted, and what those have drawn that it
has been told of. It follows a chunk or two behind, and never needs to know where a row stands now:
a sample keeps its *slot* from admission to its end, and what the host changes it changes by
operations that hold wherever rows have got to (see `DeviceBatch`).

So what the host decides from a chunk's end is right when it takes effect, since rows only come from
rows: pages that nobody named stay free, a slot whose sample has ended stays empty, and there are at
most as many rows as samples. What it cannot know, how far rows will have forked, it guesses. Where
there are more than the graph of a chunk is for, or too few free pages, nothing moves, and the next
chunk gets more.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import TOO_FEW_PAGES, TOO_MANY_ROWS, RowState
from hydragen_kernels.drawn import Drawn
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.decoder import CHUNK_STEPS, IN_FLIGHT, Chunk, Decoder
from hydragen_tree.branch.device_batch import NewRows, row_fields
from hydragen_tree.branch.drawing import check_logprobs
from hydragen_tree.branch.forecast import RowForecast
from hydragen_tree.branch.groups import RowGroups
from hydragen_tree.branch.page_queue import PageQueue
from hydragen_tree.branch.stepper import Admitted, Ended, Ends, Progress, Waiting, parked
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.settings import SamplingSettings

_PARKED_SHARE = 8  # of the rows, one of so many leaves when pages run out


@dataclass(frozen=True, eq=False, slots=True)
class _Flight:
    """A chunk on its way.

    Attributes:
        number: of chunks launched before it.
        steps: most tokens that a sample draws in it.
        known_rows: rows that were known of when it was launched.
        n_fresh: rows that draw from prompts' logits in it.
        slots: `[slots]` bool, those in use when it was launched.
        wait: gives the chunk.
    """

    number: int
    steps: int
    known_rows: int
    n_fresh: int
    slots: NDArray[np.bool_]
    wait: Callable[[], Chunk]

    @property
    def opens(self) -> bool:
        """Whether first tokens are drawn in it."""
        return self.n_fresh > 0


class DeviceStepper:
    """Steps a batch through a decoder's graphs.

    Args:
        decoder: new, or of a run that is over.
        cache: where tails are.
        table: where segments are.
        settings: how to draw.
        ends: decides when samples end, by the table that the decoder has.
    """

    is_ahead = True

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        table: SegmentTable,
        settings: SamplingSettings,
        ends: Ends,
    ) -> None:
        decoder.batch.clear()
        self._decoder, self._cache, self._ends = decoder, cache, ends
        self._greedy = settings.temperature == 0.0
        self._max_tokens = settings.max_tokens
        slots = decoder.samples
        self._samples: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * slots
        self._n_samples = np.zeros(slots, np.int64)
        self._leaf = np.zeros(slots, np.int32)
        self._born = np.zeros(slots, np.int64)  # number of the first chunk with the slot's sample
        self._is_used = np.zeros(slots, np.bool_)
        self._history = np.zeros((slots, settings.max_tokens), np.int32)
        self._n_drawn = np.zeros(slots, np.int64)
        self._groups = RowGroups(table, slots, 2 * decoder.room)
        self._pages = PageQueue(cache, decoder.batch)
        self._flights: deque[_Flight] = deque()
        self._launched = 0
        self._new: list[tuple[Admitted, NDArray[np.int64]]] = []
        self._rows = 0  # at the end of the last chunk taken, and those admitted since
        self._arrivals: list[tuple[int, int]] = []  # first chunk and tail of rows admitted since
        self._forecast = RowForecast()
        self._lengths = np.empty(0, np.int64)  # of the rows at the end of the last chunk taken
        self._planned_rows = 0
        self._planned_at = 0  # number of the first chunk with the plan
        self._held_rows = 0  # places that rows take up with the plan, dead ones too, at the most
        self._row_of = np.zeros(slots, np.int64)  # at the end of the last chunk taken
        self._tables = np.empty((0, 0), np.int32)
        self._left: list[NDArray[np.int64]] = []  # slots whose samples the device still has
        self._computed = 0
        self._lacked_pages = False  # the last chunk taken, though there may have been some to give
        self._is_short = False  # there were none to give, and no row has left since

    # -- what admission asks -----------------------------------------------------------------

    @property
    def max_tokens(self) -> int:
        """See `Stepper`."""
        return self._max_tokens

    @property
    def n_rows(self) -> int:
        """See `Stepper`."""
        return self._rows

    @property
    def n_samples(self) -> int:
        """See `Stepper`."""
        return int(self._n_samples[self._is_used].sum())

    @property
    def max_samples(self) -> int:
        """See `Stepper`."""
        return self._is_used.size

    @property
    def segments(self) -> Int32:
        """See `Stepper`."""
        return self._groups.segments(self._is_used)

    @property
    def spare_pages(self) -> int:
        """See `Stepper`; none while rows could not fork, or who was parked would return at once."""
        if self._lacked_pages:
            return 0
        return self._cache.free_pages + self._pages.waiting - self._rows

    def live(self) -> tuple[Int32, Int32]:
        """See `Stepper`."""
        return self._leaf[self._is_used], self._n_drawn[self._is_used].astype(np.int32)

    @property
    def lacks_pages(self) -> bool:
        """See `Stepper`; nothing is launched meanwhile."""
        return self._is_short and not self._cache.free_pages

    def admit(self, new: list[Admitted]) -> None:
        """See `Stepper`: a slot for each sample, or for all of a row that cannot part."""
        for admitted in new:
            branch = admitted.branch
            count = 1 if self._greedy else branch.samples.size
            slots = np.flatnonzero(~self._is_used)[:count]
            if slots.size < count:
                raise CapacityError(f"{count} samples admitted, {slots.size} slots are free")
            parts = [branch.samples] if self._greedy else np.split(branch.samples, count)
            for slot, part in zip(slots.tolist(), parts, strict=True):
                self._samples[slot], self._n_samples[slot] = part, part.size
            self._is_used[slots], self._born[slots] = True, self._launched
            self._leaf[slots], self._n_drawn[slots] = branch.leaf, branch.drawn.size
            self._history[slots, : branch.drawn.size] = branch.drawn
            self._groups.hang(slots, admitted.segment, self._launched)
            self._pages.admit(admitted.pages, self._launched)
            self._new.append((admitted, slots))
            self._arrivals.append((self._launched, admitted.tail))
        self._rows += len(new)
        self._lengths = np.append(self._lengths, [one.tail for one in new])

    # -- stepping ----------------------------------------------------------------------------

    def launch(self) -> None:
        """See `Stepper`: chunks, as many as may be in flight."""
        while self._may_launch() and self._launch():
            pass

    def step(self) -> Progress:
        """See `Stepper`: what the oldest chunk has drawn; waits for it, and launches others."""
        if self.lacks_pages and not self._flights:
            progress = parked(self._park())
            self._settle_if_empty()
            return progress
        self.launch()
        flight = self._flights.popleft()
        progress = self._take(flight, flight.wait())
        self._settle_if_empty()
        return progress

    def _may_launch(self) -> bool:
        """Whether a chunk can follow those in flight: not while their rows are anybody's guess."""
        if self.lacks_pages or len(self._flights) == IN_FLIGHT:
            return False
        return not self._flights or (self._forecast.is_steady and not self._flights[-1].opens)

    def _launch(self) -> bool:
        """Sends one more chunk, if any sample may have something left to draw.

        One with first tokens has no other steps if their rows may fork: it says how many there are.
        """
        ahead = sum(flight.steps for flight in self._flights)
        used = np.flatnonzero(self._is_used)
        fresh = [one.logits for one, _ in self._new if one.logits is not None]
        # of a chunk that a slot is not in, nothing is ahead of it
        before = np.where(self._born[used] >= self._launched, 0, ahead) + self._n_drawn[used]
        steps = min(CHUNK_STEPS, int((self._max_tokens - before).max(initial=0)))
        if steps <= 0:
            return False
        forks = not self._greedy and used.size > self._rows
        rows = self._rows
        if forks:
            rows = self._forecast.rows(rows, len(self._flights) + 1)
            steps = 0 if fresh else self._forecast.steps(steps)
        rows = min(max(rows, 1), used.size)
        longest = min(int(self._lengths.max(initial=0)) + ahead + steps, self._max_tokens)
        choice = self._decoder.choose(rows, longest, forks)
        rows = choice.graph.rows
        self._arrange(rows, forks)
        # as if each row forked once; who finds too few pages is given enough for a row a sample
        most = used.size if self._lacked_pages else rows
        self._pages.fill_for(most, self._lengths, ahead + steps, self._max_tokens)
        wait = self._decoder.launch(choice, steps, torch.stack(fresh) if fresh else None)
        steps += bool(fresh)
        flight = _Flight(self._launched, steps, self._rows, len(fresh), self._is_used.copy(), wait)
        self._flights.append(flight)
        self._launched += 1
        return True

    def _arrange(self, rows: int, forks: bool) -> None:
        """Lets admitted rows in, and gives groups room for the rows that there may be."""
        batch = self._decoder.batch
        # whoever was short of rows: not once more; and first tokens must be drawn at once, however
        # far rows have forked by then
        is_fresh = any(one.logits is not None for one, _ in self._new)
        generous = self._forecast.was_stuck or (is_fresh and bool(self._flights))
        is_enough = self._held_rows <= rows <= self._planned_rows
        is_enough = is_enough and self._groups.fits(self._is_used, forks)
        if is_enough and not self._new and not self._left and not generous:
            return
        plan = self._groups.plan(self._is_used, forks, generous)
        batch.set_groups(plan.rank, plan.room)
        batch.rearrange(self._new_rows(), _together(self._left))
        self._planned_rows = self._decoder.plan(plan.items, plan.edges, rows)
        self._planned_at = self._launched
        self._held_rows = 0  # the dead have left, and the living fit the graph
        self._new.clear()
        self._left.clear()

    def _new_rows(self) -> NewRows:
        """The admitted rows as the device takes them."""
        fields: list[RowState[int]] = []
        pages = np.full((len(self._new), self._cache.pages_for(self._max_tokens) + 1), -1, np.int32)
        n_fresh = 0
        for (admitted, own), table in zip(self._new, pages, strict=True):
            branch, n = admitted.branch, admitted.branch.drawn.size
            is_fresh = admitted.logits is not None
            row = RowState(
                tokens=int(branch.drawn[-1]) if n else 0,
                positions=admitted.start + n - 1,
                lengths=admitted.tail,
                drawn=n,
                groups=self._groups.number(int(own[0])),
                stops=self._ends.state(int(branch.samples[0]), branch.drawn),
                fresh=n_fresh if is_fresh else -1,
            )
            fields.append(row)
            n_fresh += is_fresh
            table[: admitted.pages.size] = admitted.pages
        slots = _together([own for _, own in self._new])
        firsts = np.array([self._samples[slot][0] for slot in slots.tolist()], np.int64)
        rows = np.repeat(np.arange(len(self._new)), [own.size for _, own in self._new])
        return NewRows(row_fields(fields), pages, slots, rows, self._ends.keys[firsts])

    def look(self) -> tuple[Tensor, tuple[Int32, ...]]:
        """What the next step of the rows would draw from, for checks.

        Returns:
            Logits `[rows, vocabulary]`, and what they follow from, as `decode_tokens` takes it:
            tokens, positions, segments, pages, lengths of tails.
        """
        for flight in self._flights:
            flight.wait()
        state = self._decoder.batch.state
        n = int(self._decoder.batch.control.rows)
        self._pages.fill(self._pages.waiting + n)
        logits = self._decoder.logits(n)
        named = RowState(*state.rows[:, :n].cpu().numpy().astype(np.int32))
        segments = self._groups.segments_of(named.groups)
        pages = state.pages[:n].cpu().numpy()
        return logits, (named.tokens, named.positions, segments, pages, named.lengths)

    def close(self) -> None:
        """Gives up all samples and pages."""
        self._is_used[:] = False
        self._settle()

    # -- following ---------------------------------------------------------------------------

    def _take(self, flight: _Flight, chunk: Chunk) -> Progress:
        """Takes in what a chunk has drawn, and what has become of the rows."""
        slots = np.flatnonzero(flight.slots & self._is_used & (self._born <= flight.number))
        drawn = Drawn(*(part[:, slots] for part in chunk.drawn))
        check_logprobs(drawn.logprobs)
        has_drawn = drawn.tokens >= 0
        step, column = np.nonzero(has_drawn)
        place = self._n_drawn[slots] + has_drawn.cumsum(0) - 1
        self._history[slots[column], place[step, column]] = drawn.tokens[step, column]
        self._n_drawn[slots] += has_drawn.sum(0)

        samples = [self._samples[slot] for slot in slots.tolist()]
        columns = np.repeat(np.arange(slots.size), [part.size for part in samples])
        rows = chunk.sample_rows[slots]
        is_over = rows < 0
        ended = [
            Ended(
                int(self._leaf[slot]),
                self._samples[slot],
                self._history[slot, : self._n_drawn[slot]].copy(),
            )
            for slot in slots[is_over].tolist()
        ]
        self._is_used[slots[is_over]] = False
        computed = chunk.number("computed") - self._computed
        self._computed += computed
        self._follow_rows(flight, chunk, slots[~is_over], rows[~is_over])
        return Progress(
            _together(samples),
            Drawn(*(part[:, columns] for part in drawn)),
            int(np.count_nonzero(has_drawn.any(axis=1))),
            flight.n_fresh + computed,
            ended,
        )

    def _follow_rows(
        self, flight: _Flight, chunk: Chunk, slots: NDArray[np.int64], rows: Int32
    ) -> None:
        """Notes where rows stood after a chunk, and takes back the pages of those that are gone."""
        alive = np.flatnonzero(chunk.row("stops") >= 0)
        groups = chunk.row("groups")
        self._groups.seen(slots, groups[rows], groups[alive], flight.number)
        self._pages.seen(chunk.pages[alive], chunk.number("taken"), flight.number)
        self._row_of[slots], self._tables = rows, chunk.pages
        self._arrivals = [one for one in self._arrivals if one[0] > flight.number]
        tails = [tail for _, tail in self._arrivals]
        self._rows = alive.size + len(tails)
        self._lengths = np.append(chunk.row("lengths")[alive], tails).astype(np.int64)
        if flight.number >= self._planned_at:
            self._held_rows = chunk.number("rows")
        stuck = chunk.number("stuck")
        if not flight.opens:
            self._forecast.seen(flight.known_rows, alive.size, stuck == TOO_MANY_ROWS)
        self._lacked_pages = self._is_short = stuck == TOO_FEW_PAGES

    def _park(self) -> list[Waiting]:
        """Makes room for other rows' pages: the last rows leave, to be computed again.

        Of a single row half the samples leave: they may have been too many to part. Where there is
        one only, others' segments are in its way: it leaves too, and has all pages when it returns.

        Nothing is in flight, so that the last chunk taken says where rows are.
        """
        used = np.flatnonzero(self._is_used & (self._born < self._launched))
        rows = np.unique(self._row_of[used])
        last = rows[rows.size - max(1, rows.size // _PARKED_SHARE) :]
        if rows.size == 1:
            used = used[used.size // 2 :]
        leaving = []
        for row in last.tolist():
            slots = used[self._row_of[used] == row]
            first = int(slots[0])
            tokens = self._history[first, : self._n_drawn[first]].copy()
            samples = np.concatenate([self._samples[slot] for slot in slots.tolist()])
            leaving.append(Waiting(int(self._leaf[first]), tokens, samples))
            self._left.append(slots)
            self._is_used[slots] = False
        kept = np.unique(self._row_of[self._is_used & (self._born < self._launched)])
        self._pages.seen(self._tables[kept], self._pages.taken, self._launched)
        self._rows, self._is_short = kept.size + len(self._new), False
        return leaving

    def _settle_if_empty(self) -> None:
        if not self._is_used.any():
            self._settle()

    def _settle(self) -> None:
        """Gives up all pages: every sample has ended, whatever is still in flight."""
        taken = self._pages.taken
        while self._flights:
            chunk = self._flights.popleft().wait()
            taken, self._computed = chunk.number("taken"), chunk.number("computed")
        self._pages.seen(np.empty(0, np.int32), taken, self._launched)
        self._pages.drain()
        self._arrivals.clear()
        self._lacked_pages = False
        self._rows, self._lengths = 0, np.empty(0, np.int64)


def _together(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])
