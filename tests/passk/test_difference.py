"""Differences of pass@k: the formulas against independent ones, the coverage by simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import comb
from scipy.stats import binom, binomtest

from hydragen_tree.errors import InputError
from hydragen_tree.passk.difference import (
    Difference,
    PairedEvidence,
    compare_pass_at_k,
    interval_of_these,
    intervals_of_alike,
)
from hydragen_tree.passk.estimate import pass_at_k
from hydragen_tree.passk.evidence import FixedNumber
from hydragen_tree.passk.stopping import Stopping

TRIALS = 400
Floats = NDArray[np.float64]


def paired(*counts: tuple[int, int, int, int]) -> list[PairedEvidence]:
    """(samples, accepted) of the first run and of the second, a problem each."""
    return [
        PairedEvidence(f"p{i}", FixedNumber(a, b), FixedNumber(c, d))
        for i, (a, b, c, d) in enumerate(counts)
    ]


def difference(*counts: tuple[int, int, int, int], k: int = 1) -> Difference:
    [found] = compare_pass_at_k(paired(*counts), [k])
    return found


@pytest.mark.parametrize(
    ("n", "c", "m", "d"), [(20, 3, 20, 9), (5, 0, 50, 50), (1, 0, 1, 1), (1000, 15, 800, 0)]
)
def test_one_problem_is_newcombes_interval_with_scipys_limits(
    n: int, c: int, m: int, d: int
) -> None:
    found = difference((n, c, m, d))
    a, b = c / n, d / m
    of_a, of_b = (binomtest(x, y).proportion_ci(method="exact") for x, y in ((c, n), (d, m)))
    assert found.value == pytest.approx(b - a)
    assert found.these.low == pytest.approx(
        max(-1, b - a - np.hypot(b - of_b.low, of_a.high - a)), abs=1e-9
    )
    assert found.these.high == pytest.approx(
        min(1, b - a + np.hypot(of_b.high - b, a - of_a.low)), abs=1e-9
    )
    assert found.alike is None


def test_estimates_are_means_over_problems_with_equal_weight() -> None:
    counts = [(10, 3, 20, 9), (8, 0, 6, 2), (7, 7, 9, 8)]
    found = difference(*counts, k=4)
    wanted = [
        np.mean([1 - comb(n - c, 4) / comb(n, 4) for n, c in pairs])
        for pairs in ([x[:2] for x in counts], [x[2:] for x in counts])
    ]
    assert [found.first, found.second] == pytest.approx(wanted)
    assert found.value == pytest.approx(wanted[1] - wanted[0])


def test_swapping_the_runs_turns_the_difference_around() -> None:
    counts = [(30, 3, 40, 9), (30, 0, 40, 2), (30, 29, 40, 8)]
    there, back = (
        difference(*counts, k=3),
        difference(*[(c, d, a, b) for a, b, c, d in counts], k=3),
    )
    assert back.value == pytest.approx(-there.value)
    assert back.these.low == pytest.approx(-there.these.high)
    assert there.alike is not None
    assert back.alike is not None
    assert back.alike.low == pytest.approx(-there.alike.high, abs=0.02)


def test_pairing_takes_the_spread_of_the_problems_out() -> None:
    """A run that is better by the same amount everywhere is better, however problems differ."""
    counts = [(1000, c, 1000, c + 150) for c in range(0, 840, 14)]
    found = difference(*counts)
    assert found.these.low > 0.14
    assert found.alike is not None
    assert 0.05 < found.alike.low < 0.15 < found.alike.high < 0.25
    assert found.these.excludes_zero
    assert found.alike.excludes_zero


def test_equal_runs_differ_by_nothing_and_do_not_claim_certainty() -> None:
    found = difference(*[(5, 0, 5, 0)] * 164)
    assert found.value == 0.0
    assert found.these.low < 0 < found.these.high
    assert found.alike is not None
    assert found.alike.high == pytest.approx(0.0222, abs=0.001)


POPULATIONS = {
    "no difference": lambda rng, size: [rng.beta(0.5, 1.0, size)] * 2,
    "better everywhere": lambda rng, size: [p := rng.uniform(0.05, 0.6, size), p + 0.3],
    "rare and rarer": lambda rng, size: [np.full(size, 0.02), np.full(size, 0.001)],
    "solved by one alone": lambda rng, size: [np.zeros(size), (rng.random(size) < 0.05) * 1.0],
    "each has its own": lambda rng, size: [rng.beta(0.1, 0.2, size), rng.beta(0.1, 0.2, size)],
}


@pytest.mark.parametrize("problems", [1, 2, 5, 30])
@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("n", "m", "k"), [(10, 10, 1), (30, 12, 5)])
def test_these_problems_are_covered(name: str, problems: int, n: int, m: int, k: int) -> None:
    """Their chances stay as they are; samples are drawn anew."""
    rng = np.random.default_rng(problems)
    p, q = POPULATIONS[name](rng, problems)
    truth = float(np.mean((1 - p) ** k - (1 - q) ** k))
    held = 0
    for _ in range(TRIALS):
        c, d = rng.binomial(n, p).tolist(), rng.binomial(m, q).tolist()
        counts = [(n, x, m, y) for x, y in zip(c, d, strict=True)]
        found = interval_of_these(paired(*counts), k)
        held += found.low - 1e-12 <= truth <= found.high + 1e-12
    assert held >= binom.ppf(1e-4, TRIALS, 0.95)


@pytest.mark.parametrize("problems", [2, 5, 30])
@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("n", "m", "k"), [(10, 10, 1), (30, 12, 5)])
def test_problems_like_these_are_covered(name: str, problems: int, n: int, m: int, k: int) -> None:
    """Problems and samples are drawn anew."""
    rng = np.random.default_rng(problems)
    p, q = POPULATIONS[name](rng, (2000, 200))
    truth = float(np.mean((1 - p) ** k - (1 - q) ** k))
    values = [
        np.array([pass_at_k(size, c, k) for c in range(size + 1)])[rng.binomial(size, chances)]
        for size, chances in zip((n, m), POPULATIONS[name](rng, (problems, TRIALS)), strict=True)
    ]  # [problems, trials] each
    found = intervals_of_alike(values[1] - values[0])
    held = sum(interval.low - 1e-12 <= truth <= interval.high + 1e-12 for interval in found)
    assert held >= binom.ppf(1e-4, TRIALS, 0.95)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="no judged problem in common"):
        compare_pass_at_k([], [1])
    with pytest.raises(InputError, match="cannot be estimated from 3 samples"):
        compare_pass_at_k(paired((5, 1, 3, 1)), [4])
    assert PairedEvidence("p", FixedNumber(5, 1), FixedNumber(3, 1)).most_k == 3


def test_runs_whose_samples_verdicts_ended_can_be_compared() -> None:
    """One run draws 60 samples a problem, the other until three are right; nothing differs."""
    rng = np.random.default_rng(3)
    rule, trials, covered, values = Stopping(60, until_solved=3), 200, 0, []
    chances = rng.beta(0.5, 2.0, 8)
    for _ in range(trials):
        pairs = [
            PairedEvidence(
                f"p{number}",
                FixedNumber(60, int(rng.binomial(60, p))),
                rule.evidence((rng.random(60) < p).astype(np.int8)),
            )
            for number, p in enumerate(chances)
        ]
        (found,) = compare_pass_at_k(pairs, [5])
        values.append(found.value)
        covered += found.these.low <= 0 <= found.these.high
    assert abs(np.mean(values)) < 4 * np.std(values) / trials**0.5
    assert covered >= binom.ppf(1e-4, trials, 0.95)
