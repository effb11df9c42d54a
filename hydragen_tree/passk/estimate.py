"""The estimator of pass@k and its 95 % intervals, as functions of counts.

With n samples of a problem, c of them accepted, the unbiased estimate is

    pass@k = 1 - C(n - c, k) / C(n, k)

For k > n there is no unbiased estimate: it is refused, never extrapolated.

Source: Chen et al. 2021, Evaluating Large Language Models Trained on Code, section 2.1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, stdtrit

from hydragen_tree.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 1 << 21  # drawn problem indices held at a time: 16 MiB of int64


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
    low, high = (float(-np.expm1(k * np.log1p(-p))) if p < 1.0 else 1.0 for p in (p_low, p_high))
    estimate = pass_at_k(n, c, k)
    return min(low, estimate), max(high, estimate)


def bootstrap_interval(
    values: NDArray[np.float64], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval for the mean over problems, by drawing whole problems again with replacement.

    A problem is the cluster: its samples stay together, so both the spread between problems and
    the spread of each problem's own estimate are in the interval. The percentiles are widened for
    a small number of problems with Student's t, as the plain ones are too narrow there.

    Args:
        values: float64 `[problems, ks]`, at least two problems.
        confidence: in (0, 1).
        seed: of the resampling; equal input gives equal intervals.

    Returns:
        (low, high), each float64 `[ks]`.

    Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 5.3 (the
        expanded percentile interval).
    """
    problems, ks = values.shape
    if problems < 2:
        raise InputError("a bootstrap over problems needs at least two problems")
    generator = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, ks))
    step = max(1, _RESAMPLES_AT_ONCE // problems)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(problems, size=(rows, problems))
        for column in range(ks):
            means[start : start + rows, column] = values[drawn, column].mean(axis=1)
    student = stdtrit(problems - 1, (1.0 - confidence) / 2.0)
    tail = float(ndtr(student * np.sqrt(problems / (problems - 1))))
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return low, high
