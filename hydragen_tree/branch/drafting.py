"""Which drafts a step takes along: those that are likelier to be right than they cost.

A step takes about as long for a few rows as for one: it reads all weights. So a draft, a row of the
step that is of use if the model draws what was proposed, is nearly free where rows are few, and
costs as much as any other row where they are many. How often proposals of each source hold is
learned while running, by problem. What rows cost is a constant of the device: nothing here asks a
clock, so that a run takes the same steps each time, and adds up the same numbers in the same order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.draft_chances import Chances, DraftProblems
from hydragen_tree.branch.draft_table import DraftTable

MOST_DRAFTS = 8  # of a row in a step
_MOST_ADDED = 128  # rows of a step that the table learns from: where there are more, a part of them
_FIRST_CHANCES = (
    0.9,
    0.8,
    0.7,
    0.6,
    0.6,
    0.5,
    0.5,
    0.3,
)  # of each source, before anything is known
_SUREST = 0.95  # chance of a draft, than which hardly any has more
# Rows that a device computes while it reads the weights, of 4 bytes on a CPU and 2 on a GPU; and
# parameters that a CPU multiplies by while it gets a layer started. NOTES.md has the measurements.
_READ_ROWS_CPU, _READ_ROWS_GPU = 16.0, 200.0
_LAYER_PARAMETERS_CPU = 9e6


def free_rows(device: str, layers: int, parameters: int, *, ordered: bool) -> float:
    """Rows that add as much to a step as it takes whatever they are.

    Args:
        device: the type of it.
        layers: of the model.
        parameters: of the model.
        ordered: sums have one order, whose products take a CPU about twice as long.
    """
    if device != "cpu":
        return _READ_ROWS_GPU
    rows = _READ_ROWS_CPU + _LAYER_PARAMETERS_CPU * layers / max(parameters, 1)
    return rows / 2 if ordered else rows


class Drafts(NamedTuple):
    """What is proposed for the rows of a batch.

    Attributes:
        tokens: `[rows, most]` int64; of meaning up to `counts`.
        sources: `[rows, most]` of the table.
        counts: `[rows]` int64, how many a row takes along.
    """

    tokens: NDArray[np.int64]
    sources: NDArray[np.int64]
    counts: NDArray[np.int64]


class Drafting:
    """Proposes tokens for rows, and learns from what was drawn.

    Args:
        problems: `[leaves]` number of the problem that each leaf of the trie belongs to.
        text: the prompt's tokens of a leaf.
        free_rows: that add as much to a step as it takes whatever they are.

    Attributes:
        table: what has followed what.
    """

    def __init__(
        self,
        problems: NDArray[np.int64],
        text: Callable[[int], Int32],
        free_rows: float,
    ) -> None:
        self.table, self._free_rows = DraftTable(), free_rows
        self._problems = DraftProblems(problems, text)
        self._chances = Chances(_FIRST_CHANCES)

    def join(self, leaves: NDArray[np.int64], problems: NDArray[np.int64]) -> None:
        """Takes in leaves of problems that have come, `[n]` each; those it has stay as they are."""
        self._problems.join(leaves, problems)

    def problems_of(self, leaves: NDArray[np.integer]) -> NDArray[np.int64]:
        """The problem of each leaf; the table learns the prompts of those that are new."""
        for problem, tokens in self._problems.new_texts(leaves):
            self.table.add_text(problem, tokens)
        return self._problems.of(leaves)

    def propose(
        self,
        problems: NDArray[np.int64],
        contexts: NDArray[np.int64],
        samples: NDArray[np.int64],
        limits: NDArray[np.int64],
    ) -> Drafts | None:
        """The drafts of a step that are worth what they cost; None where no row has any.

        Args:
            problems: `[rows]`.
            contexts: `[rows]` their last tokens, see `draft_table.contexts_of`.
            samples: `[rows]` that each carries: a draft is of use if all of them draw it.
            limits: `[rows]` drafts that a row can take at the most.
        """
        rows = problems.size
        if not rows or not limits.any() or self._is_dear(rows):
            return None
        tokens, sources = self.table.propose(problems, contexts, MOST_DRAFTS)
        chances = np.take_along_axis(self.chances(problems), np.maximum(sources, 0), 1)
        chances[(sources < 0) | (np.arange(MOST_DRAFTS) >= limits[:, None])] = 0.0
        together = chances.cumprod(1) ** samples.astype(np.float64)[:, None]
        counts = self._worthwhile(together, samples)
        return Drafts(tokens, sources, counts) if counts.any() else None

    def chances(self, problems: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[n, sources]` that a proposal is what a sample of a problem draws, of `[n]` problems."""
        return self._chances.of(problems)

    def learn(
        self,
        problems: NDArray[np.int64],
        sources: NDArray[np.int64],
        agrees: NDArray[np.bool_],
    ) -> None:
        """Takes note of drafts that samples have met, `[n]` each.

        Args:
            problems: of each.
            sources: of each.
            agrees: whether the sample drew the draft.
        """
        self._chances.learn(problems, sources, np.ones_like(sources), agrees)

    def add(
        self,
        problems: NDArray[np.int64],
        contexts: NDArray[np.int64],
        tokens: NDArray[np.integer],
    ) -> None:
        """Lets the table learn what has followed contexts; see `DraftTable.add`."""
        every = -(-tokens.size // _MOST_ADDED) if tokens.size else 1
        self.table.add(problems[::every], contexts[::every], tokens[::every])

    def _is_dear(self, rows: int) -> bool:
        """Whether not even a draft that is as good as right pays for its row."""
        return rows > _SUREST * (self._free_rows + rows)

    def _worthwhile(
        self, together: NDArray[np.float64], samples: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """How many drafts each row takes: those with which a step draws most tokens a second.

        Args:
            together: `[rows, most]` chances that a draft and all before it hold, for all samples.
            samples: `[rows]`.
        """
        gains = together * samples[:, None]
        ordered = np.sort(gains, axis=None)[::-1]
        ordered = ordered[ordered > 0.0]
        if not ordered.size:
            return np.zeros(samples.size, np.int64)
        tokens = float(samples.sum()) + np.concatenate([[0.0], ordered.cumsum()])
        rows = self._free_rows + samples.size + np.arange(tokens.size)
        best = int((tokens / rows).argmax())
        if best == 0:
            return np.zeros(samples.size, np.int64)
        counts: NDArray[np.int64] = np.cumprod(gains >= ordered[best - 1], axis=1).sum(1)
        return counts
