"""Captured steps: which of those that are there to take, and when to capture another.

A graph is made for a number of rows. Capturing one takes as long as dozens of a small model's
steps, and the rows of a batch change all the time. So a graph for more rows is taken if there is
one, until the time that its surplus rows took would have paid for a graph that fits.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.chunk import CHUNK_S

_LOOSE = 4  # most rows of a graph for one row that is wanted
_FORK_SHARE = 0.1  # of a step, what looking for forks costs where there can be none


class Graph(NamedTuple):
    """What a step is captured for.

    Attributes:
        rows: padded.
        splits: programs that share a tail.
        forks: rows may carry several samples, and part.
        width: queries for each row; where they are several, rows share them as drafts need them.
    """

    rows: int
    splits: int
    forks: bool
    width: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A graph to take, and the one that would fit.

    Attributes:
        graph: to take.
        tight: made for just this.
        step_s: seconds of the last step that was timed, of whichever graph; 0.0: of none.
    """

    graph: Graph
    tight: Graph
    step_s: float

    @property
    def wasted_share(self) -> float:
        """The part of a step that a tight graph would save, roughly."""
        more = self.graph.forks and not self.tight.forks
        return 1.0 - (1.0 - _FORK_SHARE * more) * self.tight.rows / self.graph.rows

    def worthwhile(self, steps: int) -> int:
        """How many of so many steps should be launched at a time.

        Rows that have ended are computed until the host has seen it, and others come in their
        place: so no more than it takes for the device never to wait for the host.
        """
        return min(steps, math.ceil(CHUNK_S / self.step_s)) if self.step_s else steps


class Graphs:
    """The captured steps of a decoder.

    Args:
        capture: makes a graph, and returns what runs it.
        splits: how many programs share a tail, of queries and the longest tail.
    """

    def __init__(
        self,
        capture: Callable[[Graph], Callable[[], object]],
        splits: Callable[[int, int], int],
    ) -> None:
        self._capture, self._splits = capture, splits
        self._made: dict[Graph, Callable[[], object]] = {}
        self._capture_s = math.inf  # the fastest so far: the first ones compile kernels too
        self._wasted_s: defaultdict[Graph, float] = defaultdict(float)  # for want of each
        self._step_s = 0.0  # of the last chunk

    def clear(self) -> None:
        """Forgets all graphs: what they read has moved."""
        self._made.clear()

    def tight(self, rows: int, longest: int, forks: bool, width: int = 1) -> Graph:
        """The graph for so many rows, whose tails hold so many tokens at the most."""
        padded = padded_rows(rows)
        return Graph(padded, self._splits(padded * width, longest), forks, width)

    def choose(self, rows: int, longest: int, forks: bool, width: int = 1) -> Choice:
        """The graph to take: a tight one, or a larger one that is there."""
        tight = self.tight(rows, longest, forks, width)
        if self._wasted_s[tight] >= self._capture_s:
            return Choice(tight, tight, self._step_s)
        sizes = sorted({g.rows for g in self._made if tight.rows <= g.rows <= _LOOSE * tight.rows})
        fitting = (
            Graph(size, self._splits(size * width, longest), kind, width)
            for size in sizes
            for kind in sorted({forks, True})
        )
        graph = next((graph for graph in fitting if graph in self._made), tight)
        return Choice(graph, tight, self._step_s)

    def get(self, graph: Graph) -> Callable[[], object]:
        """What runs a graph; captured on first use."""
        if graph not in self._made:
            started = time.perf_counter()
            self._made[graph] = self._capture(graph)
            self._capture_s = min(self._capture_s, time.perf_counter() - started)
        return self._made[graph]

    def took(self, choice: Choice, steps: int, seconds: float) -> None:
        """Notes how long a choice's steps took, at least one."""
        self._step_s = seconds / steps
        self._wasted_s[choice.tight] += seconds * choice.wasted_share
