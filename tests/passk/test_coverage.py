"""The interval of a set holds the mean over its population as often as it promises: simulated."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from hydragen_tree.errors import InputError
from hydragen_tree.passk.estimate import bounded_interval, exact_interval, pass_at_k
from hydragen_tree.passk.summary import summarise

TRIALS = 400
Floats = NDArray[np.float64]
Population = Callable[[np.random.Generator, tuple[int, int]], Floats]

POPULATIONS: dict[str, Population] = {
    "all alike": lambda _, size: np.full(size, 0.3),
    "all alike and rare": lambda _, size: np.full(size, 0.004),
    "never": lambda _, size: np.zeros(size),
    "solved or not": lambda rng, size: (rng.random(size) < 0.3).astype(float),
    "hardly ever solved": lambda rng, size: (rng.random(size) < 0.02).astype(float),
    "mostly solved": lambda rng, size: (rng.random(size) < 0.9) * 0.97,
    "close together": lambda rng, size: rng.beta(20, 30, size),
    "skewed": lambda rng, size: rng.beta(0.5, 1.0, size),
    "two heaps": lambda rng, size: rng.beta(0.1, 0.1, size),
}


@pytest.mark.parametrize("problems", [2, 3, 5, 20, 100])
@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("n", "k"), [(5, 1), (30, 5)])
def test_it_covers_as_promised(name: str, problems: int, n: int, k: int) -> None:
    rng = np.random.default_rng(problems)
    chances = POPULATIONS[name](rng, (problems, TRIALS))
    among = POPULATIONS[name](rng, (400, 1000))
    truth = float((1 - (1 - among) ** k).mean())
    estimates = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
    values = estimates[rng.binomial(n, chances)]  # a trial a column
    low, high = bounded_interval(values)
    covered = int(((low <= truth) & (truth <= high)).sum())
    assert covered >= binom.ppf(1e-4, TRIALS, 0.95)
    assert ((low <= values.mean(axis=0)) & (values.mean(axis=0) <= high)).all()


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 1), (20, 10)])
def test_one_problem_is_covered(p: float, n: int, k: int) -> None:
    """No simulation: summed over every outcome of the binomial."""
    truth = 1 - (1 - p) ** k
    held = [low <= truth <= high for low, high in (exact_interval(n, c, k) for c in range(n + 1))]
    assert binom.pmf(np.arange(n + 1), n, p)[held].sum() >= 0.95 - 1e-12


@pytest.mark.parametrize(("solved", "problems"), [(0, 2), (0, 5), (1, 3), (7, 20), (0, 164)])
def test_zeros_and_ones_give_clopper_and_pearson(solved: int, problems: int) -> None:
    values = np.zeros((problems, 1))
    values[:solved] = 1.0
    [low], [high] = bounded_interval(values)
    assert (low, high) == pytest.approx(exact_interval(problems, solved, 1), abs=0.02)


def test_nothing_of_820_samples_is_not_half() -> None:
    wrong = [
        {"task_id": f"p{problem}", "verdict": "WA", "solution": str(index)}
        for problem in range(164)
        for index in range(5)
    ]
    estimate = summarise(wrong).overall.estimates[0]
    assert estimate.low == estimate.value == 0.0
    assert estimate.high == pytest.approx(0.0222, abs=0.001)


def test_it_narrows_with_problems_and_with_their_agreement() -> None:
    def width(values: Floats) -> float:
        [low], [high] = bounded_interval(values[:, None])
        return float(high - low)

    rng = np.random.default_rng(1)
    apart, close = (rng.random(100) < 0.5).astype(float), rng.uniform(0.45, 0.55, 100)
    assert width(apart) == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.1)
    assert width(close) < 0.25 * width(apart)
    assert width(apart[:20]) > 2 * width(apart)


def test_it_is_reproducible_and_refuses_no_problem() -> None:
    values = np.random.default_rng(0).random((12, 3))
    assert np.array_equal(bounded_interval(values), bounded_interval(values))
    with pytest.raises(InputError, match="at least one problem"):
        bounded_interval(values[:0])
