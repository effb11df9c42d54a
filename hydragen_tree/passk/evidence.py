"""What the samples of one problem say of its pass@k, by how their number came about.

`FixedNumber`: n was fixed beforehand.

`GroupSequential`: after m_1 < m_2 < ... samples a rule looks at how many are right, and ends the
problem or not. Every order of outcomes that ends with c of m accepted, and not before, is as likely
as any other, so that the unbiased estimate of pass@k is a share of them:

    1 - (orders whose first k failed) / (all orders).

Drawn until one is right, say, c of the first m_1 give pass@1 = c / m_1, and 0 where it took more:
then the first sample was wrong in every order. Where the first k cannot be told from the end, since
a problem without a right sample may end before, there is no unbiased estimate for that k. A problem
that is cut off at n has its last look there, and the estimate is unbiased over all ends together.

Variants of a prompt take turns, so that their chances do not come in a random order; but a round
has as many samples of each, give or take one, and only its number of right ones is looked at.

Source: Girshick, Mosteller and Savage 1946, Unbiased Estimates for Certain Binomial Sampling
    Problems; Jennison and Turnbull 1999, Group Sequential Methods, chapter 8.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import convolve
from scipy.special import betaincinv
from scipy.stats import binom

from hydragen_tree.passk.estimate import CONFIDENCE, any_of, exact_interval, pass_at_k

Floats = NDArray[np.float64]
_TAIL = (1.0 - CONFIDENCE) / 2.0


class Evidence(Protocol):
    """Samples of one problem, as estimates see them."""

    @property
    def samples(self) -> int:
        """How many count."""

    @property
    def accepted(self) -> int:
        """How many of those are right."""

    @property
    def most_k(self) -> int:
        """The largest k with an unbiased estimate."""

    def pass_at_k(self, k: int) -> float:
        """The unbiased estimate of pass@k, k from 1 to `most_k`."""

    def interval(self, k: int) -> tuple[float, float]:
        """The 95 % interval of pass@k, which holds the estimate."""


@dataclass(frozen=True, slots=True)
class FixedNumber:
    """A number of samples that does not depend on them.

    Args:
        samples: how many.
        accepted: how many are right.
    """

    samples: int
    accepted: int

    @property
    def most_k(self) -> int:
        """All of them."""
        return self.samples

    def pass_at_k(self, k: int) -> float:
        """1 - C(n - c, k) / C(n, k)."""
        return pass_at_k(self.samples, self.accepted, k)

    def interval(self, k: int) -> tuple[float, float]:
        """Clopper and Pearson's."""
        return exact_interval(self.samples, self.accepted, k)


@dataclass(frozen=True, slots=True)
class EndRule:
    """What ends a problem at a look. One of the two is given.

    Args:
        solved: so many accepted samples.
        width: an interval of pass@1 that is at most so wide.
    """

    solved: int | None = None
    width: float | None = None

    def ends(self, size: int) -> NDArray[np.bool_]:
        """Whether it ends a problem after so many samples: `[size + 1]`, by how many are right."""
        if self.solved is not None:
            return np.arange(size + 1) >= self.solved
        assert self.width is not None
        return np.asarray(interval_widths(size) <= self.width)


@dataclass(frozen=True, slots=True)
class GroupSequential:
    """Samples up to the look at which a rule ended them.

    Args:
        samples: up to that look, or to where it was cut off.
        accepted: how many are right.
        looks: numbers of samples after which the rule is asked, rising; the last one ends it.
        rule: the rule.
    """

    samples: int
    accepted: int
    looks: tuple[int, ...]
    rule: EndRule

    @property
    def most_k(self) -> int:
        """Where it would end without an accepted sample: nothing is known of longer failures."""
        return next((size for size in self.looks if self.rule.ends(size)[0]), self.looks[-1])

    def pass_at_k(self, k: int) -> float:
        """1 - the share of the orders of outcomes that end here whose first k failed."""
        if not self.accepted:
            return 0.0
        if k > self.samples:
            return 1.0
        way = self.looks[: self.looks.index(self.samples) + 1]
        all_orders, failing = (_orders(self.accepted, way, self.rule, n) for n in (0, k))
        return float(np.clip(1.0 - failing / all_orders, 0.0, 1.0))

    def interval(self, k: int) -> tuple[float, float]:
        """Exact: all p under which an end as high, and one as low, is likely enough.

        Ends are ordered by their share of accepted samples.
        """
        low, high = _exact_ends(self.samples, self.accepted, self.looks, self.rule)
        estimate = self.pass_at_k(k)  # which the interval is widened to hold
        return min(any_of(low, k), estimate), max(any_of(high, k), estimate)


@lru_cache(maxsize=256)
def interval_widths(n: int) -> Floats:
    """Widths of Clopper and Pearson's interval for n samples: `[n + 1]`, by how many are right."""
    c = np.arange(n + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        low = np.where(c > 0, betaincinv(np.maximum(c, 1), n - c + 1, _TAIL), 0.0)
        high = np.where(c < n, betaincinv(c + 1, np.maximum(n - c, 1), 1.0 - _TAIL), 1.0)
    return np.asarray(high - low)


@lru_cache(maxsize=1 << 16)
def _orders(accepted: int, looks: tuple[int, ...], rule: EndRule, failed: int) -> float:
    """The orders of right and wrong that come to the last look, and to no end before it.

    Args:
        accepted: how many are right there, at least one.
        looks: numbers of samples.
        rule: what ends it.
        failed: as many samples at the beginning are wrong; at most the last look.

    Returns:
        Their number, as their chance under one p, which is the same for all `failed`.
    """
    # a p under which coming there is likely, so that no number is too small
    samples = looks[-1]
    *_, last = _walk(min(accepted / samples, 1 - 0.5 / samples), looks, rule, failed)
    return float(last[accepted]) if accepted < last.size else 0.0


def _walk(p: float, looks: tuple[int, ...], rule: EndRule, failed: int = 0) -> Iterator[Floats]:
    """At each look that is reached: `[c]` chances to be there with c right, ends not taken out."""
    alive, at = np.array([(1.0 - p) ** failed]), failed
    for size in looks:
        if size < failed:
            continue  # nothing right so far, which does not end it: see `most_k`
        step = size - at
        arrived = np.maximum(convolve(alive, binom.pmf(np.arange(step + 1), step, p)), 0.0)
        yield arrived
        alive, at = np.where(rule.ends(size)[: arrived.size], 0.0, arrived), size


@lru_cache(maxsize=4096)
def _exact_ends(
    samples: int, accepted: int, looks: tuple[int, ...], rule: EndRule
) -> tuple[float, float]:
    def tails(p: float) -> tuple[float, float]:
        """Chances of an end with a share of right samples at least, and at most, as observed."""
        as_high = as_low = 0.0
        for size, arrived in zip(looks, _walk(p, looks, rule), strict=True):
            ends = rule.ends(size) | (size == looks[-1])
            right = np.arange(size + 1)
            as_high += float(arrived[ends & (right * samples >= accepted * size)].sum())
            as_low += float(arrived[ends & (right * samples <= accepted * size)].sum())
        return as_high, as_low

    low = brentq(lambda p: tails(p)[0] - _TAIL, 0.0, 1.0) if accepted > 0 else 0.0
    high = brentq(lambda p: tails(p)[1] - _TAIL, 0.0, 1.0) if accepted < samples else 1.0
    return float(low), float(high)
