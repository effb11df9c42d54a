"""What the samples of one problem say of its pass@k, by how their number came about.

`FixedNumber`: n was fixed beforehand.

`InverseSampling`: drawn until the r-th accepted sample, which was the N-th. Given N, the r - 1
others lie anywhere among the N - 1 before it, so that the chance that the first k failed,

    C(N - 1 - k, r - 1) / C(N - 1, r - 1),

is unbiased for (1 - p)^k: pass@1 is (r - 1) / (N - 1), and any pass@k is that of the samples before
the last one. For k >= N one of the first k was accepted: 1.

`WidthReached`: drawn until the interval was narrow enough, asked after m_1 < m_2 < ... samples.
Every order of outcomes that ends with c of m accepted, and not before, is as likely as any other,
so that the unbiased estimate is again a share of them:

    1 - (orders whose first k failed) / (all orders).

Where sampling was cut off at n before its rule held, the first and the last remain right as they
are, with n in place of what the rule gives: the estimate is unbiased over all ends together.

Source: Girshick, Mosteller and Savage 1946, Unbiased Estimates for Certain Binomial Sampling
    Problems; Haldane 1945, On a Method of Estimating Frequencies.
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
class InverseSampling:
    """Samples up to the one that made the accepted ones enough.

    Args:
        samples: up to and with that one.
        accepted: as many as were to be reached.
        most_k: the number of samples at which it would have been cut off.
    """

    samples: int
    accepted: int
    most_k: int

    def pass_at_k(self, k: int) -> float:
        """That of the samples before the last one."""
        if k >= self.samples:
            return 1.0
        return pass_at_k(self.samples - 1, self.accepted - 1, k)

    def interval(self, k: int) -> tuple[float, float]:
        """The exact one of the negative binomial.

        So many samples, or fewer, were needed where they hold that many accepted ones; so many or
        more where the samples before the last hold fewer. Cutting off at n changes neither.
        """
        n, c = self.samples, self.accepted
        low = float(betaincinv(c, n - c + 1, _TAIL))
        high = float(betaincinv(c, n - c, 1.0 - _TAIL)) if n > c else 1.0
        return _carried(low, high, k, self.pass_at_k(k))


@dataclass(frozen=True, slots=True)
class WidthReached:
    """Samples up to the look after which the interval of pass@1 was narrow enough.

    Args:
        samples: up to that look, or to where it was cut off.
        accepted: how many are right.
        looks: numbers of samples after which the rule is asked, rising; the last one ends it.
        width: of the interval, at which it ends.
    """

    samples: int
    accepted: int
    looks: tuple[int, ...]
    width: float

    @property
    def most_k(self) -> int:
        """Where it would end without an accepted sample: nothing is known of longer failures."""
        ends = (size for size in self.looks if interval_widths(size)[0] <= self.width)
        return next(ends, self.looks[-1])

    def pass_at_k(self, k: int) -> float:
        """1 - the share of the orders of outcomes that end here whose first k failed."""
        if not self.accepted:
            return 0.0
        if k > self.samples:
            return 1.0
        way = self.looks[: self.looks.index(self.samples) + 1]
        all_orders, failing = (_orders(self.accepted, way, self.width, failed) for failed in (0, k))
        return float(np.clip(1.0 - failing / all_orders, 0.0, 1.0))

    def interval(self, k: int) -> tuple[float, float]:
        """Exact: all p under which an end as high, and one as low, is likely enough.

        Ends are ordered by their share of accepted samples.
        """
        low, high = _exact_ends(self.samples, self.accepted, self.looks, self.width)
        return _carried(low, high, k, self.pass_at_k(k))


@lru_cache(maxsize=256)
def interval_widths(n: int) -> Floats:
    """Widths of Clopper and Pearson's interval for n samples: `[n + 1]`, by how many are right."""
    c = np.arange(n + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        low = np.where(c > 0, betaincinv(np.maximum(c, 1), n - c + 1, _TAIL), 0.0)
        high = np.where(c < n, betaincinv(c + 1, np.maximum(n - c, 1), 1.0 - _TAIL), 1.0)
    return np.asarray(high - low)


def _carried(low: float, high: float, k: int, estimate: float) -> tuple[float, float]:
    """An interval of p as one of pass@k, widened to hold the estimate."""
    return min(any_of(low, k), estimate), max(any_of(high, k), estimate)


@lru_cache(maxsize=1 << 16)
def _orders(accepted: int, looks: tuple[int, ...], width: float, failed: int) -> float:
    """The orders of right and wrong that come to the last look, and to no end before it.

    Args:
        accepted: how many are right there, at least one.
        looks: numbers of samples.
        width: at which it ends.
        failed: as many samples at the beginning are wrong; at most the last look.

    Returns:
        Their number, as their chance under one p, which is the same for all `failed`.
    """
    # a p under which coming there is likely, so that no number is too small
    samples = looks[-1]
    *_, last = _walk(min(accepted / samples, 1 - 0.5 / samples), looks, width, failed)
    return float(last[accepted]) if accepted < last.size else 0.0


def _walk(p: float, looks: tuple[int, ...], width: float, failed: int = 0) -> Iterator[Floats]:
    """At each look that is reached: `[c]` chances to be there with c right, ends not taken out."""
    alive, at = np.array([(1.0 - p) ** failed]), failed
    for size in looks:
        if size < failed:
            continue  # nothing right so far, which does not end it: see `most_k`
        step = size - at
        arrived = np.maximum(convolve(alive, binom.pmf(np.arange(step + 1), step, p)), 0.0)
        yield arrived
        ends = interval_widths(size)[: arrived.size] <= width
        alive, at = np.where(ends, 0.0, arrived), size


@lru_cache(maxsize=4096)
def _exact_ends(
    samples: int, accepted: int, looks: tuple[int, ...], width: float
) -> tuple[float, float]:
    def tails(p: float) -> tuple[float, float]:
        """Chances of an end with a share of right samples at least, and at most, as observed."""
        as_high = as_low = 0.0
        for size, arrived in zip(looks, _walk(p, looks, width), strict=True):
            ends = (interval_widths(size) <= width) | (size == looks[-1])
            right = np.arange(size + 1)
            as_high += float(arrived[ends & (right * samples >= accepted * size)].sum())
            as_low += float(arrived[ends & (right * samples <= accepted * size)].sum())
        return as_high, as_low

    low = brentq(lambda p: tails(p)[0] - _TAIL, 0.0, 1.0) if accepted > 0 else 0.0
    high = brentq(lambda p: tails(p)[1] - _TAIL, 0.0, 1.0) if accepted < samples else 1.0
    return float(low), float(high)
