"""How many drafts the steps of a chunk take along on a device: as many as should pay.

On a device a step has a number of queries for each row that it may have, its *width*. Beyond each
row's last token these are drafts, and rows share them as the surest ones fall. How often the table
names what is drawn is counted in every step, with or without drafts, so that it is known before any
are taken along. What queries cost is a constant of the device, and nothing here asks a clock, as in
`drafting.py`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.budget import MOST_QUERIES, WIDTHS, padded_rows
from hydragen_tree.branch.chunk import CHUNK_STEPS, Chunk
from hydragen_tree.branch.draft_chances import Chances, DraftProblems

_FIRST_CHANCE = 0.5
# What steps of so many queries take beside one of a few: an 8B model on an H200.
_QUERIES = 1, 32, 64, 128, 256, 512
_COSTS = 1.0, 1.02, 1.07, 1.14, 1.53, 2.59
_BETTER = 1.05  # times as fast, from which on another width is taken


def step_cost(queries: int) -> float:
    """What a step of so many queries takes beside one of a few."""
    return float(np.interp(queries, _QUERIES, _COSTS))


class DraftSource(Protocol):
    """What is told of prompts: a decoder's drafts."""

    def add_text(self, problem: int, tokens: Int32) -> None:
        """Takes in the tokens of a prompt."""
        ...


class DraftWidths:
    """Chooses widths, and learns from what was drawn.

    Args:
        problems: `[leaves]` number of the problem that each leaf of the trie belongs to.
        text: the prompt's tokens of a leaf.
        slots: of samples.
        source: of drafts, which learns the prompts.
        patience: steps for which drafts would have paid before any are taken along: graphs of wider
            steps have to be captured, which takes as long as dozens of steps.

    Attributes:
        pace: tokens that a row has drawn in a step, in the mean of the last chunk.
    """

    def __init__(
        self,
        problems: NDArray[np.int64],
        text: Callable[[int], Int32],
        slots: int,
        source: DraftSource,
        patience: int = 0,
    ) -> None:
        self._problems, self._patience = DraftProblems(problems, text), patience
        self._chances = Chances((_FIRST_CHANCE,))
        self._tallies = np.zeros((2, slots), np.int64)  # when last seen
        self._counts = np.zeros(3, np.int64)
        self._computed = 0
        self._width, self._source = 1, source
        self.pace = 1.0

    def join(self, leaves: NDArray[np.int64], problems: NDArray[np.int64]) -> None:
        """Takes in leaves of problems that have come, `[n]` each; those it has stay as they are."""
        self._problems.join(leaves, problems)

    def problem(self, leaf: int) -> int:
        """The problem of a leaf; the source learns its prompt if it is new."""
        leaves = np.array([leaf])
        for problem, tokens in self._problems.new_texts(leaves):
            self._source.add_text(problem, tokens)
        return int(self._problems.of(leaves)[0])

    def choose(self, leaves: NDArray[np.integer], rows: int) -> int:
        """The width of the next steps.

        Args:
            leaves: `[samples]` of those in the batch.
            rows: that they share.
        """
        chances = self._chances.of(self._problems.of(leaves))[:, 0]
        together = chances ** (leaves.size / max(rows, 1))  # all samples of a row draw it
        rates = {}
        for width in WIDTHS:
            if width > 1 and padded_rows(leaves.size) * width > MOST_QUERIES:
                break
            tokens = (together[:, None] ** np.arange(width)).sum()
            rates[width] = float(tokens) / step_cost(padded_rows(rows) * width)
        best = max(rates, key=lambda width: rates[width])
        best = best if rates[best] > _BETTER * rates.get(1, 0.0) else 1
        if best == 1 or rates[best] > _BETTER * rates.get(self._width, 0.0):
            self._width = best
        if self._width > 1 and self._patience > 0:
            self._patience -= CHUNK_STEPS
            return 1
        return self._width

    def seen(
        self, chunk: Chunk, slots: NDArray[np.int64], leaves: NDArray[np.integer]
    ) -> tuple[int, int]:
        """Learns from a chunk.

        Args:
            chunk: with drafts, or without.
            slots: of samples that were in it.
            leaves: of each of them.

        Returns:
            Drafts that it proposed, and those of them that rows went on by.
        """
        if chunk.tallies is None or chunk.draft_counts is None:
            return 0, 0
        tries, hits = (chunk.tallies - self._tallies)[:, slots]
        sources = np.zeros_like(slots)
        self._chances.learn(self._problems.of(leaves), sources, tries, hits)
        _, proposed, accepted = (chunk.draft_counts - self._counts).tolist()
        moved = chunk.number("computed") - self._computed - accepted
        self.pace = 1.0 + accepted / max(moved, 1)
        self._tallies, self._counts = chunk.tallies, chunk.draft_counts
        self._computed = chunk.number("computed")
        return proposed, accepted
