"""Which samples a run draws: all of them from the start, or some after the other as they are given.

A run whose samples come in pieces is one run all the same: its tree, its memory and its batch are
there once, and the batch stays full from one piece to the next.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import SampleRecords
from hydragen_tree.sample.sample import Sample
from hydragen_tree.trie.trie import Trie

# Told how many samples wait; gives more to draw, by task id, or none for now.
Feed = Callable[[int], Mapping[str, NDArray[np.int64]] | None]


def fed_samples(loop: Loop, prompts: Sequence[Prompt], trie: Trie, feed: Feed) -> Iterator[Sample]:
    """Draws the samples that are given, yielding each as it finishes.

    Args:
        loop: assembled with the records of all samples that may be given, and none waiting.
        prompts: of the run.
        trie: of these prompts.
        feed: gives samples, and is asked before every round.
    """
    feeding = _Feeding(loop, prompts, trie)
    return loop.samples(lambda n_waiting: feeding.take(feed(n_waiting) or {}))


class _Feeding:
    """Takes samples into a run, and counts what they need of its prompts."""

    def __init__(self, loop: Loop, prompts: Sequence[Prompt], trie: Trie) -> None:
        self._prompts, self._trie, self._table = prompts, trie, loop.residency.table
        self._records, self._stats = loop.records, loop.stats
        self._lengths = np.array([len(prompt.token_ids) for prompt in prompts])
        self._is_used = np.zeros(len(prompts), np.bool_)
        stats = loop.stats
        stats.samples_total = stats.prompt_tokens = stats.prompt_tokens_unshared = 0

    def take(self, given: Mapping[str, NDArray[np.int64]]) -> list[Waiting]:
        """Branches of the given sample indices, by task id, the first one last."""
        if not given:
            return []
        bounds = _bounds(self._trie, self._records)
        found = [np.empty(0, np.int64)]
        for prompt, (first, last) in enumerate(pairwise(bounds)):
            if (indices := given.get(self._prompts[prompt].task_id)) is not None:
                own = np.isin(self._records.index[first:last], indices, assume_unique=True)
                found.append(first + np.flatnonzero(own))
        samples = np.concatenate(found)
        self._count(samples)
        return roots(self._trie, self._records, samples)

    def _count(self, samples: NDArray[np.int64]) -> None:
        """Counts samples that are to be drawn, by their numbers."""
        prompts = self._records.prompt[samples]
        self._is_used[prompts] = True
        ends = self._trie.leaf_segments[self._trie.prompt_leaves[self._is_used]]
        self._stats.samples_total += samples.size
        above = np.flatnonzero(self._table.live(ends))
        self._stats.prompt_tokens = int(self._table.n_tokens[above].sum())
        self._stats.prompt_tokens_unshared += int(self._lengths[prompts].sum())


def roots(
    trie: Trie, records: SampleRecords, samples: NDArray[np.int64] | None = None
) -> list[Waiting]:
    """One branch a leaf with its samples; a stack, so the first leaf is last.

    Where prompts of one leaf have other stop strings, each kind is a branch of its own.

    Args:
        trie: of the prompts.
        records: of the samples.
        samples: their numbers, ascending; None: all.
    """
    bounds = _bounds(trie, records)
    cuts = bounds if samples is None else np.searchsorted(samples, bounds).tolist()
    parts = [np.arange(first, last) for first, last in pairwise(cuts)]
    if samples is not None:
        parts = [samples[part] for part in parts]
    kinds = [records.stop_set(prompt) for prompt in range(len(parts))]
    return branches(trie.prompt_leaves.tolist(), kinds, parts)


def branches(
    leaves: Sequence[int],
    kinds: Sequence[int],
    samples: Sequence[NDArray[np.int64]],
    place: Callable[[int], int] = int,
) -> list[Waiting]:
    """One branch for each leaf and kind, the first one last.

    Args:
        leaves: of each prompt.
        kinds: of each prompt, a number for the strings that end its samples.
        samples: of each prompt, their numbers; none: it is passed over.
        place: of a leaf, in depth-first order.
    """
    groups: dict[tuple[int, int, int], list[NDArray[np.int64]]] = {}
    for leaf, kind, own in zip(leaves, kinds, samples, strict=True):
        if own.size:
            groups.setdefault((place(leaf), leaf, kind), []).append(own)
    return [
        Waiting(leaf, np.empty(0, np.int32), np.concatenate(own))
        for (_, leaf, _), own in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def _bounds(trie: Trie, records: SampleRecords) -> list[int]:
    """Where the samples of each prompt begin among all, and where the last ones end."""
    bounds: list[int] = np.searchsorted(
        records.prompt, np.arange(trie.prompt_leaves.size + 1)
    ).tolist()
    return bounds
