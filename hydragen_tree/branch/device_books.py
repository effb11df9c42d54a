"""What the host knows of a batch that a device steps: of its samples, and of its rows.

Of samples it knows all that it has been told of: a sample keeps its *slot* from admission to its
end. Of rows it knows where they stood at the end of the last chunk that it has taken in, and which
have been admitted since.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.chunk import Chunk
from hydragen_tree.branch.stepper import Ended, Waiting
from hydragen_tree.errors import CapacityError


class SlotBook:
    """The samples of a batch, each at its slot.

    Args:
        slots: room for samples.
        max_tokens: that a sample draws at the most.

    Attributes:
        is_used: `[slots]` bool, those with a sample that has not ended.
        born: `[slots]` int64, number of the first chunk with the slot's sample.
        n_drawn: `[slots]` int64, tokens drawn so far.
    """

    def __init__(self, slots: int, max_tokens: int) -> None:
        self.is_used = np.zeros(slots, np.bool_)
        self.born = np.zeros(slots, np.int64)
        self.n_drawn = np.zeros(slots, np.int64)
        self._samples: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * slots
        self._n_samples = np.zeros(slots, np.int64)
        self._leaf = np.zeros(slots, np.int32)
        self._history = np.zeros((slots, max_tokens), np.int32)

    @property
    def n_samples(self) -> int:
        """Samples at slots in use."""
        return int(self._n_samples[self.is_used].sum())

    def live(self) -> tuple[Int32, Int32]:
        """The leaf that each slot in use continues, and the tokens it has drawn."""
        return self._leaf[self.is_used], self.n_drawn[self.is_used].astype(np.int32)

    def admit(self, branch: Waiting, is_one: bool, chunk: int) -> NDArray[np.int64]:
        """Slots for a branch's samples, which are there from a chunk on.

        Args:
            branch: it comes.
            is_one: a single slot for all, since they cannot part.
            chunk: its number.

        Raises:
            CapacityError: there are fewer free slots.
        """
        count = 1 if is_one else branch.samples.size
        slots = np.flatnonzero(~self.is_used)[:count]
        if slots.size < count:
            raise CapacityError(f"{count} samples admitted, {slots.size} slots are free")
        parts = [branch.samples] if is_one else np.split(branch.samples, count)
        for slot, part in zip(slots.tolist(), parts, strict=True):
            self._samples[slot], self._n_samples[slot] = part, part.size
        self.is_used[slots], self.born[slots] = True, chunk
        self._leaf[slots], self.n_drawn[slots] = branch.leaf, branch.drawn.size
        self._history[slots, : branch.drawn.size] = branch.drawn
        return slots

    def samples(self, slots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The numbers of the samples at each slot."""
        return [self._samples[slot] for slot in slots.tolist()]

    def leaves(self, slots: NDArray[np.int64]) -> Int32:
        """The leaf that each slot continues."""
        return self._leaf[slots]

    def take(self, slots: NDArray[np.int64], tokens: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Takes down what slots have drawn.

        Args:
            slots: in use.
            tokens: `[steps, slots]`; -1 where nothing was drawn.

        Returns:
            `[steps, slots]`, where anything was.
        """
        has_drawn: NDArray[np.bool_] = tokens >= 0
        step, column = np.nonzero(has_drawn)
        place = self.n_drawn[slots] + has_drawn.cumsum(0) - 1
        self._history[slots[column], place[step, column]] = tokens[step, column]
        self.n_drawn[slots] += has_drawn.sum(0)
        return has_drawn

    def end(self, slots: NDArray[np.int64]) -> list[Ended]:
        """Frees slots whose samples have ended."""
        self.is_used[slots] = False
        return [
            Ended(int(self._leaf[slot]), self._samples[slot], self._drawn(slot))
            for slot in slots.tolist()
        ]

    def leave(self, slots: NDArray[np.int64]) -> Waiting:
        """Frees slots of one row, whose samples are to go on later."""
        self.is_used[slots] = False
        first = int(slots[0])
        return Waiting(int(self._leaf[first]), self._drawn(first), together(self.samples(slots)))

    def _drawn(self, slot: int) -> Int32:
        return self._history[slot, : self.n_drawn[slot]].copy()


class RowBook:
    """The rows of a batch, as they were at the end of the last chunk taken in.

    Args:
        slots: room for samples.

    Attributes:
        count: rows at that time, and those admitted since.
        lengths: `[count]` int64, tokens of their tails.
        of_slot: `[slots]` int64, the row of each sample that there was.
    """

    def __init__(self, slots: int) -> None:
        self.count = 0
        self.lengths = np.empty(0, np.int64)
        self.of_slot = np.zeros(slots, np.int64)
        self._tables = np.empty((0, 0), np.int32)
        self._arrivals: list[tuple[int, int]] = []  # first chunk and tail of rows admitted since

    def admit(self, tail: int, chunk: int) -> None:
        """A row comes, which is there from a chunk on, with so many tokens in its tail."""
        self._arrivals.append((chunk, tail))
        self.count += 1
        self.lengths = np.append(self.lengths, tail)

    def seen(
        self, chunk: Chunk, number: int, slots: NDArray[np.int64], alive: NDArray[np.int64]
    ) -> None:
        """Notes where rows stood after a chunk.

        Args:
            chunk: it has ended.
            number: of it.
            slots: of samples that were in it and go on.
            alive: rows that samples have.
        """
        self.of_slot[slots], self._tables = chunk.sample_rows[slots], chunk.pages
        self._arrivals = [one for one in self._arrivals if one[0] > number]
        tails = [tail for _, tail in self._arrivals]
        self.count = alive.size + len(tails)
        self.lengths = np.append(chunk.row("lengths")[alive], tails).astype(np.int64)

    def keep(self, slots: NDArray[np.int64], admitted: int) -> Int32:
        """Only the rows of these slots stay, and so many that have been admitted since.

        Returns:
            Pages that the former name, below 0 for none.
        """
        kept = np.unique(self.of_slot[slots])
        self.count = kept.size + admitted
        return self._tables[kept]

    def clear(self) -> None:
        """There are no rows."""
        self._arrivals.clear()
        self.count, self.lengths = 0, np.empty(0, np.int64)


def together(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All parts in one; there may be none."""
    return np.concatenate([np.empty(0, np.int64), *parts])
