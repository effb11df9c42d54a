"""How often drafts hold, by problem, learned while running; and which problem a leaf belongs to."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

_PRIOR_TRIES = 16.0  # what the chances in all problems weigh beside those in one
_MOST_TRIES = 512.0  # that are remembered


class DraftProblems:
    """The problems of a run, and their prompts, which a table of drafts learns first.

    Args:
        problems: `[leaves]` number of the problem that each leaf of the trie belongs to.
        text: the prompt's tokens of a leaf.
    """

    def __init__(self, problems: NDArray[np.int64], text: Callable[[int], Int32]) -> None:
        self._problems, self._text = problems, text
        self._is_known = np.zeros(problems.size, np.bool_)

    @property
    def count(self) -> int:
        """Problems there are."""
        return int(self._problems.max(initial=0)) + 1

    def join(self, leaves: NDArray[np.int64], problems: NDArray[np.int64]) -> None:
        """Takes in leaves of problems that have come, `[n]` each; those it has stay as they are."""
        more = int(leaves.max()) + 1 - self._problems.size
        new = leaves >= self._problems.size
        self._problems = np.append(self._problems, np.zeros(max(more, 0), np.int64))
        self._problems[leaves[new]] = problems[new]
        self._is_known = np.append(self._is_known, np.zeros(max(more, 0), np.bool_))

    def of(self, leaves: NDArray[np.integer]) -> NDArray[np.int64]:
        """The problem of each leaf."""
        problems: NDArray[np.int64] = self._problems[leaves]
        return problems

    def new_texts(self, leaves: NDArray[np.integer]) -> Iterator[tuple[int, Int32]]:
        """Problem and prompt of each of these leaves that has not been asked for before."""
        for leaf in np.unique(leaves[~self._is_known[leaves]]).tolist():
            self._is_known[leaf] = True
            tokens = self._text(leaf)
            yield int(self._problems[leaf]), tokens[tokens >= 0]


class Chances:
    """How often what was proposed is drawn.

    Args:
        first: chances of each source, before anything is known.
    """

    def __init__(self, first: Sequence[float]) -> None:
        self._all_tries = np.full(len(first), _PRIOR_TRIES)
        self._all_hits = np.array(first) * _PRIOR_TRIES
        self._tries = self._hits = np.zeros((0, len(first)))

    def of(self, problems: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[n, sources]` that a proposal is what a sample of a problem draws, of `[n]` problems."""
        self._grow(problems)
        overall = self._all_hits / self._all_tries
        hits: NDArray[np.float64] = self._hits[problems] + _PRIOR_TRIES * overall
        return hits / (self._tries[problems] + _PRIOR_TRIES)

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
        np.add.at(self._tries, (problems, sources), tries)
        np.add.at(self._hits, (problems, sources), hits)
        n_sources = self._all_tries.size
        self._all_tries += np.bincount(sources, tries, minlength=n_sources)
        self._all_hits += np.bincount(sources, hits, minlength=n_sources)
        for met, drawn in ((self._tries, self._hits), (self._all_tries, self._all_hits)):
            is_full = met > _MOST_TRIES
            met[is_full] /= 2
            drawn[is_full] /= 2

    def _grow(self, problems: NDArray[np.int64]) -> None:
        """Room for problems that have come."""
        more = int(problems.max(initial=-1)) + 1 - len(self._tries)
        if more > 0:
            nothing = np.zeros((more, self._all_tries.size))
            self._tries = np.concatenate([self._tries, nothing])
            self._hits = np.concatenate([self._hits, nothing])
