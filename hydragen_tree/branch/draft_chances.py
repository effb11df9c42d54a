"""How often drafts hold, by problem, learned while running; and which problem a leaf belongs to."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.growing import Growing

_PRIOR_TRIES = 16.0  # what the chances in all problems weigh beside those in one
_MOST_TRIES = 512.0  # that are remembered


class DraftProblems:
    """The problems of a run, and their prompts, which a table of drafts learns first.

    Args:
        problems: `[leaves]` number of the problem that each leaf of the trie belongs to.
        text: the prompt's tokens of a leaf.
    """

    def __init__(self, problems: NDArray[np.int64], text: Callable[[int], Int32]) -> None:
        self._problems, self._text = Growing(problems), text
        self._is_known = Growing(np.zeros(problems.size, np.bool_))

    def join(self, leaves: NDArray[np.int64], problems: NDArray[np.int64]) -> None:
        """Takes in leaves of problems that have come, `[n]` each; those it has stay as they are."""
        known = self._problems.values.size
        new, more = leaves >= known, np.zeros(max(int(leaves.max()) + 1 - known, 0))
        self._problems.append(more)
        self._is_known.append(more)
        self._problems.values[leaves[new]] = problems[new]

    def of(self, leaves: NDArray[np.integer]) -> NDArray[np.int64]:
        """The problem of each leaf."""
        problems: NDArray[np.int64] = self._problems.values[leaves]
        return problems

    def new_texts(self, leaves: NDArray[np.integer]) -> Iterator[tuple[int, Int32]]:
        """Problem and prompt of each of these leaves that has not been asked for before."""
        is_known = self._is_known.values
        for leaf in np.unique(leaves[~is_known[leaves]]).tolist():
            is_known[leaf] = True
            tokens = self._text(leaf)
            yield int(self._problems.values[leaf]), tokens[tokens >= 0]


class Chances:
    """How often what was proposed is drawn.

    Args:
        first: chances of each source, before anything is known.
    """

    def __init__(self, first: Sequence[float]) -> None:
        self._all_tries = np.full(len(first), _PRIOR_TRIES)
        self._all_hits = np.array(first) * _PRIOR_TRIES
        nothing = np.zeros((0, len(first)))
        self._tries, self._hits = Growing(nothing), Growing(nothing)

    def of(self, problems: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[n, sources]` that a proposal is what a sample of a problem draws, of `[n]` problems."""
        self._grow(problems)
        overall = self._all_hits / self._all_tries
        hits: NDArray[np.float64] = self._hits.values[problems] + _PRIOR_TRIES * overall
        return hits / (self._tries.values[problems] + _PRIOR_TRIES)

    def learn(
        self,
        problems: NDArray[np.int64],
        sources: NDArray[np.int64],
        tries: NDArray[np.integer],
        hits: NDArray[np.integer | np.bool_],
    ) -> None:
        """Takes note of what became of proposals.

        Args:
            problems: `[n]`.
            sources: `[n]`.
            tries: `[n]` proposals of such a source that a sample of such a problem has met.
            hits: `[n]` those of them that it drew.
        """
        self._grow(problems)
        np.add.at(self._tries.values, (problems, sources), tries)
        np.add.at(self._hits.values, (problems, sources), hits)
        n_sources = self._all_tries.size
        self._all_tries += np.bincount(sources, tries, minlength=n_sources)
        self._all_hits += np.bincount(sources, hits, minlength=n_sources)
        _forget(self._tries.values, self._hits.values, np.unique(problems))
        _forget(self._all_tries[None], self._all_hits[None], np.zeros(1, np.int64))

    def _grow(self, problems: NDArray[np.int64]) -> None:
        """Room for problems that have come."""
        more = int(problems.max(initial=-1)) + 1 - len(self._tries.values)
        nothing = np.zeros((max(more, 0), self._all_tries.size))
        self._tries.append(nothing)
        self._hits.append(nothing)


def _forget(tries: NDArray[np.float64], hits: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
    """Halves what weighs too much in some rows of `[n, sources]`."""
    halves = 1.0 + (tries[rows] > _MOST_TRIES)
    tries[rows] /= halves
    hits[rows] /= halves
