"""Chunks on their way: what a device has been told to do, and the host has not seen."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.branch.chunk import Chunk


@dataclass(frozen=True, eq=False, slots=True)
class Flight:
    """A chunk on its way.

    Attributes:
        number: of chunks launched before it.
        tokens: most tokens that a sample draws in it.
        likely: those that it should draw in it.
        fresh: of each row that draws from a prompt's logits in it, the slots of its samples.
        hidden: the same of all rows whose first tokens nobody had seen when it was launched.
        known_rows: other rows that were known of then; 0 where they take no step.
        slots: `[slots]` bool, those in use when it was launched.
        wait: gives the chunk.
    """

    number: int
    tokens: int
    likely: float
    fresh: list[NDArray[np.int64]]
    hidden: list[NDArray[np.int64]]
    known_rows: int
    slots: NDArray[np.bool_]
    wait: Callable[[], Chunk]


class Flights(deque[Flight]):
    """Those on their way, the oldest first."""

    @property
    def tokens(self) -> int:
        """Most tokens that a sample draws in them."""
        return sum(flight.tokens for flight in self)

    @property
    def likely(self) -> float:
        """Tokens that a sample should draw in them."""
        return sum(flight.likely for flight in self)

    @property
    def fresh(self) -> list[NDArray[np.int64]]:
        """Of each row that draws its first token in one of them, the slots of its samples."""
        return [slots for flight in self for slots in flight.fresh]
