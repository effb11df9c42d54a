"""Steps on a GPU: chunks of them ahead of the host, forks and ends included.

Who is right when. The device is, about rows: which there are, whose samples they carry, which pages
are theirs. The host is, about samples: which have been admitted, and what those have drawn that it
has been told of. It follows a chunk or two behind, and never needs to know where a row stands now:
a sample keeps its *slot* from admission to its end (see `SlotBook`), and what the host changes it
changes by operations that hold wherever rows have got to (see `DeviceBatch`).

So what the host decides from a chunk's end is right when it takes effect, since rows only come from
rows: pages that nobody named stay free, a slot whose sample has ended stays empty, and there are at
most as many rows as samples. What it cannot know, how far rows will have forked, it guesses. Where
there are more than the graph of a chunk is for, or too few free pages, nothing moves, and the next
chunk gets more.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import TOO_FEW_PAGES, TOO_MANY_ROWS, RowState
from hydragen_kernels.drafts import ROW_QUERIES
from hydragen_kernels.drawn import Drawn
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.chunk import CHUNK_STEPS, Chunk
from hydragen_tree.branch.decoder import IN_FLIGHT, Decoder
from hydragen_tree.branch.device_batch import NewRows, row_fields
from hydragen_tree.branch.device_books import RowBook, SlotBook, together
from hydragen_tree.branch.device_freezing import DeviceFreezing
from hydragen_tree.branch.draft_table import contexts_of
from hydragen_tree.branch.draft_widths import DraftWidths
from hydragen_tree.branch.drawing import check_logprobs
from hydragen_tree.branch.flights import Flight, Flights
from hydragen_tree.branch.forecast import Openings, RowForecast
from hydragen_tree.branch.groups import RowGroups
from hydragen_tree.branch.page_queue import PageQueue
from hydragen_tree.branch.stepper import Admitted, Ends, Progress, Waiting, parked
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.states import NO_STATE
from hydragen_tree.settings import SamplingSettings

_PARKED_SHARE = 8  # of the rows, one of so many leaves when pages run out


class DeviceStepper:
    """Steps a batch through a decoder's graphs.

    Args:
        decoder: new, or of a run that is over.
        cache: where tails are.
        table: where segments are.
        settings: how to draw.
        ends: decides when samples end, by the table that the decoder has.
        widths: chooses how many drafts steps take along; None: none ever.
        freezing: makes segments of tails that are shared; None: nobody does.
    """

    is_ahead = True

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        table: SegmentTable,
        settings: SamplingSettings,
        ends: Ends,
        widths: DraftWidths | None = None,
        freezing: DeviceFreezing | None = None,
    ) -> None:
        decoder.batch.clear()
        if decoder.drafts is not None:
            decoder.drafts.clear()
        self._widths, self._freezing = widths, freezing
        self._decoder, self._cache, self._ends = decoder, cache, ends
        self._greedy = settings.temperature == 0.0
        self._max_tokens = settings.max_tokens
        self._slots = SlotBook(decoder.samples, settings.max_tokens)
        self._rows = RowBook(decoder.samples)
        self._groups = RowGroups(table, decoder.samples, 2 * decoder.room, len(cache.arenas))
        self._pages = PageQueue(cache, decoder.batch)
        self._flights = Flights()
        self._launched = 0
        self._new: list[tuple[Admitted, NDArray[np.int64]]] = []
        self._forecast = RowForecast()
        self._planned_rows = self._planned_width = 0
        self._planned_at = 0  # number of the first chunk with the plan
        self._held_rows = 0  # places that rows take up with the plan, dead ones too, at the most
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
        return self._rows.count

    @property
    def n_samples(self) -> int:
        """See `Stepper`."""
        return self._slots.n_samples

    @property
    def max_samples(self) -> int:
        """See `Stepper`."""
        return self._slots.is_used.size

    @property
    def segments(self) -> Int32:
        """See `Stepper`."""
        return self._groups.segments(self._slots.is_used)

    @property
    def spare_pages(self) -> int:
        """See `Stepper`; none while rows could not fork, or who was parked would return at once."""
        if self._lacked_pages:
            return 0
        return self._cache.free_pages + self._pages.waiting - self._rows.count

    def live(self) -> tuple[Int32, Int32]:
        """See `Stepper`."""
        return self._slots.live()

    @property
    def lacks_pages(self) -> bool:
        """See `Stepper`; nothing is launched meanwhile."""
        return self._is_short and not self._cache.free_pages

    def admit(self, new: list[Admitted]) -> None:
        """See `Stepper`: a slot for each sample, or for all of a row that cannot part."""
        for admitted in new:
            slots = self._slots.admit(admitted.branch, self._greedy, self._launched)
            self._groups.hang(slots, admitted.segment, self._launched)
            self._pages.admit(admitted.pages, self._launched)
            self._new.append((admitted, slots))
            self._rows.admit(admitted.tail, self._launched)

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
        if not self._flights:
            return True
        return self._forecast.is_steady and self._openings(self._flights.fresh).may_ride

    def _openings(self, hidden: list[NDArray[np.int64]]) -> Openings:
        """What is to be expected of rows whose first tokens nobody has seen."""
        samples = sum(slots.size for slots in hidden)
        known_samples = int(np.count_nonzero(self._slots.is_used)) - samples
        return Openings(len(hidden), samples, self._rows.count - len(hidden), known_samples)

    def _launch(self) -> bool:
        """Sends one more chunk, if any sample may have something left to draw.

        One with first tokens has no other steps where their rows may fork far beyond those that
        there are: it says how many they become.
        """
        book, ahead, likely = self._slots, self._flights.tokens, self._flights.likely
        used = np.flatnonzero(book.is_used)
        logits = [one.logits for one, _ in self._new if one.logits is not None]
        fresh = [slots for one, slots in self._new if one.logits is not None]
        hidden = self._flights.fresh + fresh
        # of a chunk that a slot is not in, nothing is ahead of it
        before = np.where(book.born[used] >= self._launched, 0.0, likely) + book.n_drawn[used]
        rows = self._rows.count
        width, pace = self._width(rows, ahead)
        left = float((self._max_tokens - before).max(initial=0))
        steps = min(CHUNK_STEPS, math.ceil(left / pace))
        if steps <= 0:
            return False
        forks, openings = not self._greedy and used.size > rows, self._openings(hidden)
        if forks:
            rows = self._forecast.rows(openings, len(self._flights) + 1)
            steps = self._forecast.steps(steps) if openings.may_ride else 0
        rows = min(max(rows, 1), used.size)
        lengths = self._rows.lengths
        most = ROW_QUERIES if width > 1 else 1  # tokens of a row in a step
        longest = min(int(lengths.max(initial=0)) + ahead + steps * most, self._max_tokens)
        choice = self._decoder.choose(rows, longest, forks, width)
        steps, rows = choice.worthwhile(steps), choice.graph.rows
        ahead += steps * most
        self._arrange(rows, forks, width)
        # as if each row forked once; who finds too few pages is given enough for a row a sample
        paged = used.size if self._lacked_pages else rows
        self._pages.fill(self._pages.need(paged, lengths, ahead, self._max_tokens))
        wait = self._decoder.launch(choice, steps, torch.stack(logits) if fresh else None)
        most, likely = steps * most + bool(fresh), steps * pace + bool(fresh)
        known = openings.known_rows if steps else 0
        rest = fresh, hidden, known, book.is_used.copy(), wait
        self._flights.append(Flight(self._launched, most, likely, *rest))
        self._launched += 1
        return True

    def _width(self, rows: int, ahead: int) -> tuple[int, float]:
        """Queries for each row of the next steps, and tokens that one should draw in each.

        Args:
            rows: that are known of.
            ahead: most tokens that each draws in chunks on their way.
        """
        if self._widths is None or self._lacked_pages:
            return 1, 1.0
        width = self._widths.choose(self._slots.live()[0], rows)
        tokens = ahead + CHUNK_STEPS * ROW_QUERIES
        need = self._pages.need(rows, self._rows.lengths, tokens, self._max_tokens)
        if width == 1 or need > self._cache.free_pages + self._pages.waiting:
            return 1, 1.0
        return width, self._widths.pace

    def _arrange(self, rows: int, forks: bool, width: int) -> None:
        """Lets admitted rows in, and gives groups room for the rows that there may be."""
        batch = self._decoder.batch
        # whoever was short of rows: not once more; and first tokens must be drawn at once, however
        # far rows have forked by then
        is_fresh = any(one.logits is not None for one, _ in self._new)
        generous = self._forecast.was_stuck or (is_fresh and bool(self._flights))
        is_enough = self._held_rows <= rows <= self._planned_rows and width == self._planned_width
        is_enough = is_enough and self._groups.fits(self._slots.is_used, forks)
        if is_enough and not self._new and not self._left and not generous:
            return
        plan = self._groups.plan(self._slots.is_used, forks, generous)
        batch.set_groups(plan.rank, plan.room)
        new = self._new_rows()
        batch.rearrange(new, together(self._left))
        self._cache.states.release(new.states)  # they have been copied when others come there
        self._planned_rows = self._decoder.plan(plan.items, plan.edges, rows, width)
        self._planned_width = width
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
                contexts=int(contexts_of(branch.drawn[None], np.array([n]))[0]) if n else 0,
                problems=0 if self._widths is None else self._widths.problem(branch.leaf),
            )
            fields.append(row)
            n_fresh += is_fresh
            table[: admitted.pages.size] = admitted.pages
        slots = together([own for _, own in self._new])
        firsts = np.array([own[0] for own in self._slots.samples(slots)], np.int64)
        rows = np.repeat(np.arange(len(self._new)), [own.size for _, own in self._new])
        states = np.array([one.state for one, _ in self._new], np.int32)
        return NewRows(row_fields(fields), pages, slots, rows, self._ends.keys[firsts], states)

    def look(self) -> tuple[Tensor, tuple[Int32, ...]]:
        """What the next step of the rows would draw from, for checks.

        Returns:
            Logits `[rows, vocabulary]`, and what they follow from, as `decode_tokens` takes it:
            tokens, positions, segments, pages, lengths of tails; and places of running states,
            which it goes on from and leaves as they are, -1 of a model that keeps none.
        """
        for flight in self._flights:
            flight.wait()
        state = self._decoder.batch.state
        n = int(self._decoder.batch.control.rows)
        self._pages.fill(self._pages.waiting + 2 * n)  # drafts may need one more each
        logits = self._decoder.logits(n)
        named = RowState(*state.rows[:, :n].cpu().numpy().astype(np.int32))
        segments = self._groups.segments_of(named.groups)
        pages = state.pages[:n].cpu().numpy()
        places, states = np.full(n, NO_STATE, np.int32), self._decoder.batch.states
        if states is not None:
            places = states.places[:n].cpu().numpy().astype(np.int32)
        return logits, (named.tokens, named.positions, segments, pages, named.lengths, places)

    def close(self) -> None:
        """Gives up all samples and pages."""
        self._slots.is_used[:] = False
        self._settle()

    # -- following ---------------------------------------------------------------------------

    def _take(self, flight: Flight, chunk: Chunk) -> Progress:
        """Takes in what a chunk has drawn, and what has become of the rows."""
        book = self._slots
        slots = np.flatnonzero(flight.slots & book.is_used & (book.born <= flight.number))
        drafts = 0, 0
        if self._widths is not None:
            drafts = self._widths.seen(chunk, slots, book.leaves(slots))
        drawn = Drawn(*(part[:, slots] for part in chunk.drawn))
        check_logprobs(drawn.logprobs)
        has_drawn = book.take(slots, drawn.tokens)
        samples = book.samples(slots)
        columns = np.repeat(np.arange(slots.size), [part.size for part in samples])
        is_over = chunk.sample_rows[slots] < 0
        ended = book.end(slots[is_over])
        computed = chunk.number("computed") - self._computed
        self._computed += computed
        self._follow_rows(flight, chunk, slots[~is_over])
        return Progress(
            together(samples),
            Drawn(*(part[:, columns] for part in drawn)),
            int(np.count_nonzero(has_drawn.any(axis=1).reshape(-1, chunk.most).any(axis=1))),
            len(flight.fresh) + computed,
            ended,
            drafts=drafts,
        )

    def _follow_rows(self, flight: Flight, chunk: Chunk, slots: NDArray[np.int64]) -> None:
        """Notes where rows stood after a chunk, and takes back the pages of those that are gone."""
        if self._freezing is not None:
            chunk = self._freezing.follow(chunk, flight.number, self._launched, self._groups)
        alive = np.flatnonzero(chunk.row("stops") >= 0)
        groups = chunk.row("groups")
        self._groups.seen(slots, groups[chunk.sample_rows[slots]], groups[alive], flight.number)
        self._pages.seen(chunk.pages[alive], chunk.number("taken"), flight.number)
        self._rows.seen(chunk, flight.number, slots, alive)
        if flight.number >= self._planned_at:
            self._held_rows = chunk.number("rows")
        stuck = chunk.number("stuck")
        opened = chunk.sample_rows[together(flight.hidden)]
        known = alive.size - np.unique(opened[opened >= 0]).size
        self._forecast.seen(flight.known_rows, known, stuck == TOO_MANY_ROWS)
        self._lacked_pages = self._is_short = stuck == TOO_FEW_PAGES

    def _park(self) -> list[Waiting]:
        """Makes room for other rows' pages: the last rows leave, to be computed again.

        Of a single row half the samples leave: they may have been too many to part. Where there is
        one only, others' segments are in its way: it leaves too, and has all pages when it returns.

        Nothing is in flight, so that the last chunk taken says where rows are.
        """
        book, row_of = self._slots, self._rows.of_slot
        used = np.flatnonzero(book.is_used & (book.born < self._launched))
        rows = np.unique(row_of[used])
        last = rows[rows.size - max(1, rows.size // _PARKED_SHARE) :]
        if rows.size == 1:
            used = used[used.size // 2 :]
        left = [used[row_of[used] == row] for row in last.tolist()]
        leaving = [book.leave(slots) for slots in left]
        self._left += left
        kept = np.flatnonzero(book.is_used & (book.born < self._launched))
        tables = self._rows.keep(kept, len(self._new))
        self._pages.seen(tables, self._pages.taken, self._launched)
        self._is_short = False
        return leaving

    def _settle_if_empty(self) -> None:
        if not self._slots.is_used.any():
            self._settle()

    def _settle(self) -> None:
        """Gives up all pages: every sample has ended, whatever is still in flight."""
        taken = self._pages.taken
        while self._flights:
            chunk = self._flights.popleft().wait()
            taken, self._computed = chunk.number("taken"), chunk.number("computed")
        self._pages.seen(np.empty(0, np.int32), taken, self._launched)
        self._pages.drain()
        self._rows.clear()
        self._lacked_pages = False
