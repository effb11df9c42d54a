"""Estimates where verdicts decide how many samples are drawn: bias and coverage."""

from collections.abc import Iterator
from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from hydragen_tree.errors import InputError
from hydragen_tree.passk.estimate import any_of
from hydragen_tree.passk.evidence import (
    EndRule,
    Evidence,
    FixedNumber,
    GroupSequential,
    _walk,
)
from hydragen_tree.passk.stopping import RIGHT, UNJUDGED, WRONG, Stopping, without_gap

CHANCES = [0.0, 0.004, 0.03, 0.3, 0.5, 0.9, 1.0]


RULES = [
    *(Stopping(n, until_solved=r) for n, r in [(1, 1), (40, 1), (100, 3)]),
    *(Stopping(n, until_width=w) for n, w in [(64, 0.3), (100, 0.2), (30, 0.5)]),
]


def all_ends(rule: Stopping, p: float) -> Iterator[tuple[float, Evidence]]:
    """Every end that a rule has, cut off at n or not, with its chance."""
    ends, looks = EndRule(rule.until_solved, rule.until_width), rule.looks()
    for size, arrived in zip(looks, _walk(p, looks, ends), strict=True):
        for accepted, chance in enumerate(arrived.tolist()):
            if size == looks[-1] or ends.ends(size)[accepted]:
                yield chance, GroupSequential(size, accepted, looks, ends)


@pytest.mark.parametrize("p", CHANCES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_bias_and_full_coverage_over_all_ends(rule: Stopping, p: float) -> None:
    """No simulation: summed over every end there is."""
    every = [(chance, evidence) for chance, evidence in all_ends(rule, p) if chance > 1e-15]
    assert sum(chance for chance, _ in every) == pytest.approx(1)
    most = min(evidence.most_k for _, evidence in every)
    for k in {1, 2, 7, most // 2, most} & set(range(1, most + 1)):
        truth = any_of(p, k)
        mean = sum(chance * evidence.pass_at_k(k) for chance, evidence in every)
        assert mean == pytest.approx(truth, abs=1e-9)
        covered = 0.0
        for chance, evidence in every:
            low, high = evidence.interval(k)
            assert low <= evidence.pass_at_k(k) <= high
            covered += chance * (low - 1e-9 <= truth <= high + 1e-9)
        assert covered >= 0.95 - 1e-9


@pytest.mark.parametrize(
    "rule",
    [
        Stopping(300, until_solved=1),
        Stopping(300, until_solved=4),
        Stopping(300, until_width=0.1),
        Stopping(300),
    ],
    ids=str,
)
def test_a_simulated_set_of_problems(rule: Stopping) -> None:
    """Whole problems: verdicts in order, infrastructure errors, samples beyond the end, a gap.

    The naive share of accepted samples is off where the rule looks for them; the estimate is not.
    """
    rng = np.random.default_rng(5)
    trials, p = 400, 0.02
    found, naive, covered = [], [], 0
    for _ in range(trials):
        outcomes = np.where(rng.random(rule.n) < p, RIGHT, WRONG).astype(np.int8)
        outcomes[rng.random(rule.n) < 0.02] = UNJUDGED
        size = next(m for m in rule.looks() if m == rule.n or rule.is_met(outcomes[:m]))
        evidence = rule.evidence(outcomes[:size])
        if not rule.is_met(outcomes[:size]):
            assert size == rule.n
        found.append(evidence.pass_at_k(1))
        naive.append(evidence.accepted / evidence.samples)
        low, high = evidence.interval(1)
        covered += low <= p <= high
    error = np.std(found) / trials**0.5
    assert abs(np.mean(found) - p) < 4 * error
    if rule.until_solved == 1:
        assert np.mean(naive) > p + 4 * np.std(naive) / trials**0.5
    assert covered >= binom.ppf(1e-4, trials, 0.95)


def test_variants_that_take_turns() -> None:
    """Four variants, of which the first solves nothing: what comes first is no sign of all."""
    rng = np.random.default_rng(5)
    chances = np.resize([0.0, 0.02, 0.05, 0.21], 200)
    for rule in (Stopping(200, until_solved=1), Stopping(200, until_solved=3)):
        found = []
        for _ in range(3000):
            outcomes = (rng.random(200) < chances).astype(np.int8)
            size = next(m for m in rule.looks() if m == rule.n or rule.is_met(outcomes[:m]))
            found.append(rule.evidence(outcomes[:size]).pass_at_k(1))
        assert abs(np.mean(found) - 0.07) < 4 * np.std(found) / len(found) ** 0.5


def test_the_end_is_looked_for_after_each_round() -> None:
    rule = Stopping(100, until_solved=2)
    outcomes = np.zeros(100, np.int8)
    outcomes[[3, 40, 41]] = RIGHT
    outcomes[5] = UNJUDGED
    ends = EndRule(solved=2)
    assert rule.evidence(outcomes) == GroupSequential(63, 3, (31, 63, 99), ends)
    assert [rule.is_met(outcomes[:m]) for m in (32, 50, 64, 100)] == [False, False, True, True]
    assert rule.evidence(outcomes[:50]) == GroupSequential(49, 3, (31, 49), ends)
    assert Stopping(7).is_met(outcomes[:7])
    first = Stopping(100, until_solved=1).evidence(outcomes)
    assert (first.samples, first.pass_at_k(1)) == (31, pytest.approx(1 / 31))
    # of 31 one, of the next 32 two: the first is right in as many orders as one of 31 is
    assert rule.evidence(outcomes).pass_at_k(1) == pytest.approx(
        comb(30, 0) * comb(32, 2) / (31 * comb(32, 2) + comb(32, 3))
    )


def test_one_that_is_missing_ends_what_counts() -> None:
    given = [(4, RIGHT), (0, WRONG), (1, RIGHT), (2, UNJUDGED)]
    assert without_gap(given).tolist() == [WRONG, RIGHT, UNJUDGED]
    assert without_gap([(1, RIGHT)]).size == 0
    assert Stopping(9, until_width=0.1).evidence(without_gap([])) == FixedNumber(0, 0)


def test_looks_grow_to_n() -> None:
    assert Stopping(10).looks() == (10,)
    assert Stopping(64).looks() == (32, 64)
    assert Stopping(1000).looks() == (32, 64, 128, 256, 512, 1000)


def test_a_wide_run_is_cut_off_at_any_place() -> None:
    rule = Stopping(1000, until_width=0.02)
    evidence = rule.evidence(np.zeros(50, np.int8))
    assert evidence == GroupSequential(50, 0, (32, 50), EndRule(width=0.02))
    assert not rule.is_met(np.zeros(50, np.int8))
    assert not rule.is_met(np.zeros(255, np.int8))  # narrow enough, and not asked
    assert rule.is_met(np.zeros(256, np.int8))
    ended = rule.evidence(np.zeros(700, np.int8))
    assert (ended.samples, ended.most_k, ended.pass_at_k(200)) == (256, 256, 0.0)


@pytest.mark.parametrize(
    "wrong", [{"until_solved": 0}, {"until_width": 1.0}, {"until_solved": 1, "until_width": 0.1}]
)
def test_rules_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="until"):
        Stopping(10, **wrong)  # type: ignore[arg-type]


def test_records() -> None:
    rule = Stopping(10, until_width=0.1)
    assert Stopping.of_record(rule.to_json()) == rule
    assert Stopping.of_record(None) is None
    assert Stopping.of_record({"other": 1}) is None
