"""The estimator of pass@k and its 95 % intervals, as functions of counts.

With n samples of a problem, c of them accepted, the unbiased estimate is

    pass@k = 1 - C(n - c, k) / C(n, k)

For k > n there is no unbiased estimate: it is refused, never extrapolated.

Source: Chen et al. 2021, Evaluating Large Language Models Trained on Code, section 2.1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from hydragen_tree.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 10_000
_WEIGHTS_AT_ONCE = 1 << 21  # 16 MiB of float64


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from n samples, c of them accepted.

    Exact to a few units in the last place for any n: it is computed as a sum of logarithms of the
    shorter of the two equal products, never through factorials.

    Raises:
        InputError: k > n (there is no unbiased estimate), k < 1, or c outside 0 .. n.
    """
    if not 0 <= c <= n:
        raise InputError(f"pass@k: {c} accepted of {n} samples: expected 0 <= accepted <= samples")
    if k < 1:
        raise InputError(f"pass@k: k = {k}: expected an integer >= 1")
    if k > n:
        raise InputError(
            f"pass@{k} cannot be estimated from {n} samples: draw at least {k}, or ask for less"
        )
    if c == 0:
        return 0.0
    if n - c < k:
        return 1.0
    # C(n-c, k) / C(n, k) is symmetric in c and k: both are a product of min(c, k) factors.
    factors, drop = min(c, k), max(c, k)
    remaining = n - np.arange(factors, dtype=np.float64)
    return float(-np.expm1(np.log1p(-drop / remaining).sum()))


def by_false_accepts(rate: float, k: int) -> float:
    """What pass@k would be, at most, if no sample were right.

    Each of k wrong samples is accepted with a chance of at most `rate`, so one of them is with

        1 - (1 - rate)^k

    A rate of 0.001 makes pass@1000 0.63 out of nothing.

    Args:
        rate: chance that the tests accept a wrong program, 0 to 1.
        k: samples, at least 1.
    """
    return any_of(rate, k)


def log_spaced_k(n: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to n, and n itself."""
    steps = (mantissa * 10**power for power in range(len(str(n))) for mantissa in (1, 2, 5))
    return sorted({k for k in steps if k < n} | ({n} if n >= 1 else set()))


def exact_interval(n: int, c: int, k: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval for one problem's pass@k: Clopper and Pearson's for p, through 1 - (1 - p)^k.

    The map is monotone, so the coverage is at least `confidence` for every p and k. Where the
    unbiased estimate lies outside (it can for k near n), the interval is widened to hold it.
    """
    tail = (1.0 - confidence) / 2.0
    p_low = float(betaincinv(c, n - c + 1, tail)) if c > 0 else 0.0
    p_high = float(betaincinv(c + 1, n - c, 1.0 - tail)) if c < n else 1.0
    low, high = (any_of(p, k) for p in (p_low, p_high))
    estimate = pass_at_k(n, c, k)
    return min(low, estimate), max(high, estimate)


def bounded_interval(
    values: NDArray[np.float64], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval for the mean over all problems like these, of which these were drawn at random.

    The problems are weighted anew at random (uniformly over all weights that sum to 1), together
    with one problem more that nobody saw: for the upper end it scores 1, for the lower end 0. The
    interval lies between the quantiles of the two weighted means.

    A problem is the cluster: its samples stay together, and its value, unbiased and within 0 .. 1,
    carries the noise of its own few samples. Nothing else is assumed: no shape of the spread, and
    none is read off the values, so that problems that happen to score alike (or all 0) do not
    claim certainty. Where values are 0 and 1 this is Clopper and Pearson's interval, so 0 of 164
    problems gives 0 .. 0.022 and 0 of 2 gives 0 .. 0.842.

    Coverage: at least `confidence` for values that are 0 or 1 (a theorem), and in every
    simulation known so far for others (0.95 to 1.00, tests/passk/test_coverage.py; a conjecture).

    Args:
        values: float64 `[problems, ks]`, each within 0 .. 1, at least one problem.
        confidence: in (0, 1).
        seed: of the weights; equal input gives equal intervals.

    Returns:
        (low, high), each float64 `[ks]`.

    Raises:
        InputError: there is no problem.

    Source: Gaffke 2005, Three test statistics for a nonparametric one-sided hypothesis on the mean
        of a nonnegative variable; Learned-Miller and Thomas 2019, A new confidence interval for
        the mean of a bounded random variable.
    """
    problems, ks = values.shape
    if problems < 1:
        raise InputError("an interval over problems needs at least one problem")
    generator = np.random.default_rng(seed)
    lows, highs = np.empty((RESAMPLES, ks)), np.empty((RESAMPLES, ks))
    step = max(1, _WEIGHTS_AT_ONCE // (problems + 1))
    for start in range(0, RESAMPLES, step):
        rows = slice(start, min(start + step, RESAMPLES))
        weights = generator.standard_exponential((rows.stop - start, problems + 1))
        weights /= weights.sum(axis=1, keepdims=True)
        lows[rows] = weights[:, :-1] @ values
        highs[rows] = lows[rows] + weights[:, -1:]
    tail, mean = (1.0 - confidence) / 2.0, values.mean(axis=0)
    low, high = np.quantile(lows, tail, axis=0), np.quantile(highs, 1.0 - tail, axis=0)
    return np.minimum(low, mean), np.clip(high, mean, 1.0)


def any_of(p: float, k: int) -> float:
    """1 - (1 - p)^k: the chance of at least one of k."""
    return float(-np.expm1(k * np.log1p(-p))) if p < 1.0 else 1.0
