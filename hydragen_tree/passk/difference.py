"""The difference of pass@k between two runs over the same problems, with 95 % intervals.

Problems are paired: what counts is each problem's own difference, so that how much problems differ
from one another makes no interval wider. Two questions have two intervals:

*These problems*: how sure is the difference of the means over exactly these problems, each with
the few samples it has? Analytic (MOVER): every problem's pass@k of either run has its exact
interval, and the distances between estimates and the ends of their intervals are added in squares.
For one problem and k = 1 this is Newcombe's interval with Clopper and Pearson's limits.

*Problems like these*: how sure is the mean over all problems of which these were drawn at random?
A bootstrap over the paired differences, carried from -1 .. 1 to 0 .. 1 for `bounded_interval`:
one problem more that nobody saw is solved always by one of the two runs and never by the other.

Source: Zou and Donner 2008, Construction of confidence limits about effect measures: a general
    approach; Newcombe 1998, Interval estimation for the difference between independent proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError
from hydragen_tree.passk.estimate import bounded_interval
from hydragen_tree.passk.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a difference lies with a confidence of 95 %.

    Args:
        low: its lower end, at least -1.
        high: its upper end, at most 1.
    """

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the two runs differ, as far as this interval tells."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Difference:
    """pass@k of two runs, averaged over the problems that both have.

    Args:
        k: samples.
        first: pass@k of the first run.
        second: of the second.
        value: second - first.
        these: interval of the difference over these very problems.
        alike: interval over all problems like these; None for a single problem.
    """

    k: int
    first: float
    second: float
    value: float
    these: Interval
    alike: Interval | None


@dataclass(frozen=True, slots=True)
class PairedEvidence:
    """One problem in both runs.

    Args:
        task_id: the problem.
        first: what its samples in the first run say.
        second: and in the second.
    """

    task_id: str
    first: Evidence
    second: Evidence

    @property
    def most_k(self) -> int:
        """The largest k that can be estimated in both."""
        return min(self.first.most_k, self.second.most_k)


def compare_pass_at_k(problems: Sequence[PairedEvidence], ks: Sequence[int]) -> list[Difference]:
    """The differences at each k, every problem with equal weight.

    Args:
        problems: those that both runs have, each with samples in both.
        ks: each at least 1, and at most the `most_k` of any problem.

    Returns:
        One a k, in the order of `ks`.

    Raises:
        InputError: there is no problem, or a k is beyond its samples.
    """
    if not problems:
        raise InputError("the runs have no judged problem in common: there is nothing to compare")
    first, second = (
        np.array([[each.pass_at_k(k) for k in ks] for each in evidence])
        for evidence in ([p.first for p in problems], [p.second for p in problems])
    )
    means = zip(first.mean(axis=0), second.mean(axis=0), strict=True)
    alike = intervals_of_alike(second - first) if len(problems) > 1 else [None] * len(ks)
    return [
        Difference(k, float(a), float(b), float(b - a), interval_of_these(problems, k), interval)
        for k, (a, b), interval in zip(ks, means, alike, strict=True)
    ]


def interval_of_these(problems: Sequence[PairedEvidence], k: int) -> Interval:
    """Interval of the mean difference over exactly these problems.

    Coverage: close to 95 % or more, as the limits of each problem hold at least 95 %; simulated in
    tests/passk/test_difference.py.

    Raises:
        InputError: k is beyond the samples of a problem.
    """
    first, first_low, first_high = _with_limits([p.first for p in problems], k)
    second, second_low, second_high = _with_limits([p.second for p in problems], k)
    value = float((second - first).mean())
    below = _root_of_squares(second - second_low, first_high - first)
    above = _root_of_squares(second_high - second, first - first_low)
    return Interval(max(-1.0, value - below), min(1.0, value + above))


def intervals_of_alike(differences: NDArray[np.float64]) -> list[Interval]:
    """Intervals of the mean difference over all problems of which these were drawn at random.

    Args:
        differences: float64 `[problems, ks]`, each within -1 .. 1, at least one problem.

    Returns:
        One a column.
    """
    low, high = bounded_interval((differences + 1) / 2)
    return [Interval(float(a), float(b)) for a, b in zip(2 * low - 1, 2 * high - 1, strict=True)]


def _with_limits(
    evidence: Sequence[Evidence], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate, lower and upper limit of every problem's pass@k, float64 `[problems]` each."""
    known = {each: (each.pass_at_k(k), *each.interval(k)) for each in set(evidence)}
    values = np.array([known[each] for each in evidence])
    return values[:, 0], values[:, 1], values[:, 2]


def _root_of_squares(*distances: NDArray[np.float64]) -> float:
    """How far the mean over problems may be from its estimate, by each problem's own distances."""
    return float(np.sqrt(np.square(distances).sum()) / len(distances[0]))
