"""Packages without a time limit: one that follows from their accepted programs."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.problem.formats.kattis_timing import LimitRule, limit_rule
from hydragen_tree.problem.reading import load_problem
from tests.problem.test_kattis import LEGACY, package

MODERN_KIND = "problem_format_version: 2025-09\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("name: a\n", LimitRule(5)),
        ("limits: {time_multiplier: 3}\n", LimitRule(3)),
        (MODERN_KIND, LimitRule(2)),
        (MODERN_KIND + "limits: {time_multipliers: {ac_to_time_limit: 4}}\n", LimitRule(4)),
        (MODERN_KIND + "limits: {time_multipliers: {time_limit_to_tle: 4}}\n", LimitRule(2)),
        (MODERN_KIND + "limits: {time_resolution: 0.1}\n", LimitRule(2, 0.1)),
    ],
)
def test_rules(tmp_path: Path, text: str, rule: LimitRule) -> None:
    (tmp_path / "problem.yaml").write_text(text)
    assert limit_rule(tmp_path / "problem.yaml") == rule


def test_a_limit_is_a_whole_number_of_steps() -> None:
    limits = [LimitRule(5).limit_s(slowest_s) for slowest_s in (0.01, 0.2, 0.21, 1.5)]
    assert limits == [1, 1, 2, 8]
    assert LimitRule(2, 0.5).limit_s(0.6) == 1.5


def test_a_rule_that_is_no_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "problem.yaml").write_text("limits: {time_multiplier: fast}\n")
    with pytest.raises(InputError, match=r"time_multiplier: 'fast': expected a number above 0"):
        limit_rule(tmp_path / "problem.yaml")


def test_slow_but_accepted_programs_set_the_limit(tmp_path: Path) -> None:
    """They take longer than the limit that stands in; the others are held to what follows."""
    wait = "import time\nwhile time.process_time() < {}: pass\n"
    answer = "print(sum(map(int, input().split())))\n"
    programs: dict[str, str | None] = {
        ".timelimit": None,
        "problem.yaml": "limits: {time_multiplier: 1.1}\n",
        "data/secret/02-small.in": None,
        "data/secret/02-small.ans": None,
        "submissions/accepted/sum.cpp": None,
        "submissions/accepted/sum.py": wait.format(2.6) + answer,
        "submissions/time_limit_exceeded/loop.py": wait.format(60) + answer,
    }
    problem = load_problem(package(tmp_path, LEGACY, **programs))
    with Judge(workers=1, cache=False) as judge:
        [found] = check_problems(judge, [problem])
    assert found.good, found.faults()
    assert found.problem.limits.time_s in (3, 4)
    assert found.slowest_s is not None
    assert found.slowest_s > 2.6
    by_name = {trial.name: trial.verdict for trial in found.trials}
    late = by_name["submissions/time_limit_exceeded/loop.py (TLE)"]
    assert f"allowed {found.problem.limits.time_s:g} s" in late.message
