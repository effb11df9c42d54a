"""Steady decoding: rows that cannot fork any more, stepped on the device a chunk at a time.

While the device works on one chunk the host reads the tokens of the one before: it looks for ends,
yields finished samples, and drops their rows when the rest fits a smaller graph. The device is
never waited for but for tokens that the host has nothing else to do without.

The device runs ahead of the host by the chunks in flight. A row that has ended is stepped until it
is dropped, or stands still where its pages end; what it draws meanwhile is thrown away, and its
pages are given up only then.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.decoder import CHUNK_STEPS, IN_FLIGHT, Chunk, Decoder
from hydragen_tree.branch.drawing import Drawn
from hydragen_tree.sample.loop import Run
from hydragen_tree.sample.sample import Sample


def stream_samples(run: Run, decoder: Decoder) -> Iterator[Sample]:
    """Yields every sample of a run: by the host's steps while rows may fork, else by a stream."""
    run.engine.check_capacity(run.settings.max_tokens)
    while run.unfinished:
        run.admit()
        if run.is_steady():
            before = run.stats.tokens_sampled
            yield from Stream(run, decoder).samples()
            if run.stats.tokens_sampled > before:
                continue  # else it found no pages, and rows must be parked
        yield from run.step()


class _Flight(NamedTuple):
    """A chunk on its way.

    Attributes:
        steps: its steps.
        names: `[rows]` which row each column is.
        wait: gives the tokens.
    """

    steps: int
    names: NDArray[np.int64]
    wait: Callable[[], Chunk]


class Stream:
    """Takes a steady batch as far as it goes without the host: to its end, or until others wait.

    Args:
        run: the run; its batch is the stream's while it lasts.
        decoder: steps the rows.
    """

    def __init__(self, run: Run, decoder: Decoder) -> None:
        self.run, self.batch, self.decoder = run, run.batch, decoder
        self.max_tokens = run.settings.max_tokens
        self.names = np.arange(self.batch.size)  # of the rows, for as long as the stream lasts
        self.ended = np.zeros(self.batch.size, np.bool_)
        self.flights: deque[_Flight] = deque()

    def samples(self) -> Iterator[Sample]:
        """Yields every sample that ends; leaves the batch as the host's steps expect it."""
        self.run.load(self.decoder, np.arange(self.batch.size))
        goes_on = True
        while goes_on or self.flights:
            while goes_on and len(self.flights) < IN_FLIGHT:
                goes_on = self._launch()
            if self.flights:
                yield from self._absorb(self.flights.popleft())
            goes_on = goes_on and not self._retire() and not self.run.wants_to_admit()
            self.run.update_stats()
        self._drop_ended()
        self._give_up_spare_pages()

    def _launch(self) -> bool:
        """Sends one more chunk, if there are steps to take and pages for them."""
        batch, cache = self.batch, self.run.cache
        ahead = sum(flight.steps for flight in self.flights)
        left = self.max_tokens - batch.n_drawn[~self.ended] - ahead
        steps = min(CHUNK_STEPS, int(left.max(initial=0)))
        if steps <= 0:
            return False
        limits = batch.tail + self.max_tokens - batch.n_drawn
        lengths = np.minimum(batch.tail + ahead + steps, limits)
        needed = -(-lengths // cache.page_tokens)
        column = np.arange(batch.pages.shape[1])
        missing = (column < needed[:, None]) & (batch.pages < 0) & ~self.ended[:, None]
        count = int(np.count_nonzero(missing))
        if count > cache.free_pages:
            return False
        if count:
            batch.pages[missing] = cache.take(count)
            self.decoder.load_pages(batch.pages)
        self.flights.append(_Flight(steps, self.names, self.decoder.launch(steps)))
        return True

    def _absorb(self, flight: _Flight) -> Iterator[Sample]:
        """Takes a chunk's tokens into the batch and yields the samples that end in it."""
        chunk, batch, ledger = flight.wait(), self.batch, self.run.ledger
        columns = np.searchsorted(flight.names, self.names)  # rows only ever leave
        for step in range(flight.steps):
            rows = np.flatnonzero(~self.ended)
            if not rows.size:
                return
            at = step, columns[rows]
            tokens = chunk.tokens[at]
            batch.drawn[rows, batch.n_drawn[rows]] = tokens
            batch.n_drawn[rows] += 1
            batch.tail[rows] += 1
            self._count(rows, Drawn(tokens, chunk.logprobs[at], chunk.sampled_logprobs[at]))
            may_end = ledger.may_end(tokens, batch.n_drawn[rows])
            for row in rows[may_end].tolist():
                history = batch.drawn[row, : batch.n_drawn[row]]
                prompt = self.run.last_segment(int(batch.leaf[row]))
                samples = batch.samples[batch.row_of == row]
                reason, text = ledger.ending(int(samples[0]), prompt, history)
                if reason is not None:
                    self.ended[row] = True
                    yield from ledger.records(samples, history.copy(), reason, text)

    def _count(self, rows: NDArray[np.int64], drawn: Drawn) -> None:
        """Books one step of these rows for the samples they carry."""
        column = np.full(self.batch.size, -1)
        column[rows] = np.arange(rows.size)
        own = column[self.batch.row_of]
        counted = own >= 0
        each = Drawn(*(np.asarray(part)[own[counted]].astype(np.float64) for part in drawn))
        self.run.ledger.add(self.batch.samples[counted], each)
        self.run.stats.rows_computed += rows.size
        self.run.stats.tokens_sampled += int(np.count_nonzero(counted))

    def _retire(self) -> bool:
        """Drops ended rows once the others fit a smaller graph, or many wait for their place.

        Returns:
            Whether all rows have ended.
        """
        living = int(np.count_nonzero(~self.ended))
        in_the_way = self.run.waiting and 8 * (self.ended.size - living) >= self.run.max_rows
        if living and (in_the_way or padded_rows(living) < self.decoder.padded):
            kept = self._drop_ended()
            batch = self.batch
            items = self.run.engine.table.path_items(batch.segment, np.ones_like(batch.n_drawn))
            self.decoder.keep(kept, batch.pages, items)
        return not living

    def _drop_ended(self) -> NDArray[np.int64]:
        """Takes ended rows out of the batch, with their pages; returns the rows kept."""
        kept = np.flatnonzero(~self.ended)
        if kept.size < self.batch.size:
            pages = self.batch.pages[self.ended]
            self.run.cache.release(pages[pages >= 0])
            self.batch.keep(kept)
            self.names = self.names[kept]
            self.ended = np.zeros(kept.size, np.bool_)
            self.run.evict()
        return kept

    def _give_up_spare_pages(self) -> None:
        """Frees pages taken for steps that were not taken."""
        batch, cache = self.batch, self.run.cache
        column = np.arange(batch.pages.shape[1])
        used = -(-batch.tail // cache.page_tokens)
        spare = (column >= used[:, None]) & (batch.pages >= 0)
        cache.release(batch.pages[spare])
        batch.pages[spare] = -1
