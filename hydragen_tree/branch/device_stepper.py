"""Steps on a GPU: one at a time while rows may fork, in chunks ahead of the host once none can.

Who is right when. The batch on the host is, always: it says which rows there are and what they have
drawn. The device holds a copy of it, loaded when the first chunk of a stretch is launched, and then
runs ahead by the chunks in flight. A chunk's tokens become the batch's one step at a time, when
`step` hands them out. Meanwhile rows may only leave the batch (`is_ahead` says so): then the
device goes on stepping their columns until it is told to drop them, and what it draws there is
thrown away. When all chunks are back the copy is forgotten, and the batch may change as it likes.

So a page that chunks launched from now on may write to must not be given to anybody else, even if
its row has left the batch: the stepper is one more user of every page in the device's tables.
Chunks in flight need no such care: who gets a page next writes it by work queued behind them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.decoder import CHUNK_STEPS, IN_FLIGHT, Decoder
from hydragen_tree.branch.drawing import check_logprobs
from hydragen_tree.branch.host_stepper import HostStepper

_DROP_SHARE = 8  # ended rows leave the device once they are an eighth of its rows


@dataclass(slots=True)
class _Flight:
    """A chunk on its way, or being handed out.

    Attributes:
        steps: its steps.
        names: `[columns]` names of the rows that the device stepped, ascending.
        wait: gives the tokens.
        taken: steps that the batch has taken in.
        chunk: the tokens, once they are here.
    """

    steps: int
    names: NDArray[np.int64]
    wait: Callable[[], Drawn[NDArray[Any]]]
    taken: int = 0
    chunk: Drawn[NDArray[Any]] | None = None


class DeviceStepper(HostStepper):
    """Steps a batch through a decoder's graphs. Arguments as of `HostStepper`, and the decoder."""

    def __init__(self, *common: object, decoder: Decoder) -> None:
        super().__init__(*common)  # type: ignore[arg-type]
        self._decoder = decoder
        self._greedy = self._settings.temperature == 0.0
        self._flights: deque[_Flight] = deque()
        self._names = np.empty(0, np.int64)  # of the device's columns
        self._pages = np.empty((0, 0), np.int32)  # of the device's columns; in use by us
        self._took_ahead = False

    @property
    def is_ahead(self) -> bool:
        """Whether chunks are in flight, or not handed out to the end."""
        return bool(self._flights)

    @property
    def took_ahead(self) -> bool:
        """See `Stepper.took_ahead`."""
        return self._took_ahead

    def step(self, go_on: bool) -> Drawn[NDArray[Any]]:
        """See `Stepper.step`."""
        if self.is_ahead or not self._batch.may_fork(self._greedy):
            while go_on and len(self._flights) < IN_FLIGHT and self._launch():
                pass
        self._took_ahead = self.is_ahead
        if not self._took_ahead:  # rows may fork, or there are pages for a single step only
            return super().step(go_on)
        return self._hand_out()

    def load(self, rows: NDArray[np.int64]) -> None:
        """Puts these rows of the batch on the device, in place of what is there."""
        batch = self._batch
        n_drawn, tail = batch.n_drawn[rows], batch.tail[rows]
        first_samples = batch.samples[np.searchsorted(batch.row_of, rows)]
        self._decoder.load(
            batch.last_token[rows],
            batch.start[rows] + n_drawn - 1,
            tail,
            tail + batch.max_tokens - n_drawn,
            n_drawn,
            self._keys[first_samples].view(np.int64),
            batch.pages[rows],
            self._items(batch.segment[rows]),
        )

    def _decode(self, rows: NDArray[np.int64]) -> Tensor:
        self.load(rows)
        return self._decoder.logits()

    def _items(self, segments: Int32) -> Int32:
        return self._table.path_items(segments, np.ones_like(segments))

    # -- chunks ------------------------------------------------------------------------------

    def _launch(self) -> bool:
        """Sends one more chunk, if there are steps to take and pages for them."""
        batch, cache = self._batch, self._cache
        ahead = sum(flight.steps - flight.taken for flight in self._flights)
        left = batch.max_tokens - batch.n_drawn - ahead
        steps = min(CHUNK_STEPS, int(left.max(initial=0)))
        if steps <= 0:
            return False
        limits = batch.tail + batch.max_tokens - batch.n_drawn
        lengths = np.minimum(batch.tail + ahead + steps, limits)
        column = np.arange(batch.pages.shape[1])
        missing = (column < cache.pages_for(lengths)[:, None]) & (batch.pages < 0)
        count = int(np.count_nonzero(missing))
        if count > cache.free_pages:
            return False
        batch.pages[missing] = cache.take(count)
        if not self.is_ahead:
            self._begin()
        else:
            self._drop_ended()
            if count:
                self._add_pages()
        self._flights.append(_Flight(steps, self._names, self._decoder.launch(steps)))
        return True

    def _begin(self) -> None:
        """Makes the device's copy of the batch."""
        batch = self._batch
        batch.name = np.arange(batch.size)
        self._names, self._pages = batch.name, batch.pages.copy()
        self._cache.share(self._pages[self._pages >= 0])
        self.load(np.arange(batch.size))

    def _add_pages(self) -> None:
        """Tells the device of pages that rows have got since."""
        column = np.searchsorted(self._names, self._batch.name)
        new = np.full_like(self._pages, -1)
        new[column] = np.where(self._pages[column] < 0, self._batch.pages, -1)
        self._cache.share(new[new >= 0])
        self._pages = np.maximum(self._pages, new)
        self._decoder.load_pages(self._pages)

    def _drop_ended(self) -> None:
        """Takes rows that have left the batch off the device, once it is worth it.

        That is when the others fit a smaller graph, or when the pages of many are held up.
        """
        batch, columns = self._batch, self._names.size
        ended = columns - batch.size
        if not batch.size or not (
            padded_rows(batch.size) < self._decoder.padded or _DROP_SHARE * ended >= columns
        ):
            return
        kept = np.searchsorted(self._names, batch.name)
        dropped = np.delete(self._pages, kept, axis=0)
        self._cache.release(dropped[dropped >= 0])
        self._names, self._pages = batch.name, self._pages[kept]
        self._decoder.keep(kept, self._pages, self._items(batch.segment))

    def _hand_out(self) -> Drawn[NDArray[Any]]:
        """One more step of the oldest chunk; waits for it if it must."""
        batch, flight = self._batch, self._flights[0]
        if flight.chunk is None:
            flight.chunk = flight.wait()
        columns = np.searchsorted(flight.names, batch.name)[batch.row_of]
        tokens, *probabilities = (part[flight.taken, columns] for part in flight.chunk)
        check_logprobs(probabilities[0])
        flight.taken += 1
        batch.stored()
        if flight.taken == flight.steps:
            self._flights.popleft()
            if not self.is_ahead:
                self._forget()
        return Drawn(tokens.astype(np.int64), *(part.astype(np.float64) for part in probabilities))

    def settle(self) -> None:
        """See `Stepper.settle`."""
        if self.is_ahead:
            for flight in self._flights:
                if flight.chunk is None:
                    flight.wait()  # until then the device writes
            self._flights.clear()
            self._forget()

    def _forget(self) -> None:
        """Gives up the device's copy; nothing is in flight."""
        self._cache.release(self._pages[self._pages >= 0])
