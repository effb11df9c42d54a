"""Whether a problem judges rightly: its own programs must get the verdicts they are known for.

With `calibrate`, also whether its time limit suits Python: it should leave accepted programs twice
the time that the slowest of them needs, and end those that are known to be too slow well before
they are done.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.verdict import Verdict
from hydragen_tree.problem import Problem

# As in the problem package format: room for accepted programs, and a margin to the slow ones.
_ROOM = 2.0
_MARGIN = 1.5
_PATIENCE = 10.0  # times the limit, that an accepted program may take in a calibration
_LEAST_PATIENCE_S = 10.0
_STEPS_S = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60)


@dataclass(frozen=True, slots=True)
class Trial:
    """One program of a problem.

    Args:
        name: `solution`, or `submission 3 (WA)`.
        expected: the verdict it must get.
        verdict: the verdict it got.
    """

    name: str
    expected: str
    verdict: Verdict

    @property
    def good(self) -> bool:
        """Whether the judge agrees with the problem."""
        return self.verdict.status == self.expected


@dataclass(slots=True)
class Checkup:
    """What was found out about a problem.

    Args:
        problem: the problem.
        fault: why it cannot be checked at all.
        trials: its programs, and what became of them.
        slowest_s: processor time of its slowest accepted program; None if none was accepted.
        suggested_s: a time limit that suits it; only from a calibration.
        unsolved: no Python program was accepted within the present limit.
        inseparable: programs that are known to be too slow and would not be at that limit.
    """

    problem: Problem
    fault: str = ""
    trials: list[Trial] = field(default_factory=list)
    slowest_s: float | None = None
    suggested_s: float | None = None
    unsolved: bool = False
    inseparable: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether grading with it can be trusted."""
        accepted = any(trial.expected == "AC" for trial in self.trials)
        return not self.fault and accepted and all(trial.good for trial in self.trials)

    def faults(self) -> list[str]:
        """What is wrong, a line each."""
        if self.fault:
            return [self.fault]
        lines = [
            f"{trial.name}: expected {trial.expected}, got {trial.verdict.status}"
            + (
                f" on test {trial.verdict.failed_test}"
                if trial.verdict.failed_test is not None
                else ""
            )
            + (f" ({trial.verdict.message})" if trial.verdict.message else "")
            for trial in self.trials
            if not trial.good
        ]
        if not any(trial.expected == "AC" for trial in self.trials):
            lines.append("it has neither a solution nor an accepted submission in Python")
        if self.unsolved and self.suggested_s is not None:
            lines.append("no Python program is accepted within its time limit")
        lines += [f"{name}: is not too slow for the suggested limit" for name in self.inseparable]
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.problem.id,
            "source": self.problem.source,
            "good": self.good,
            "faults": self.faults(),
            "time_limit_s": self.problem.limits.time_s,
            "slowest_accepted_s": self.slowest_s,
            "suggested_time_limit_s": self.suggested_s,
            "programs": [
                {"name": t.name, "expected": t.expected, **t.verdict.to_json()} for t in self.trials
            ],
        }


def check_problems(
    judge: Judge, problems: Sequence[Problem], *, calibrate: bool = False
) -> Iterator[Checkup]:
    """Check problems, several at a time; each as it is done.

    Args:
        judge: without old verdicts.
        problems: with solutions or submissions.
        calibrate: also measure what time limit suits Python.
    """
    checkups = {id(problem): Checkup(problem) for problem in problems}
    pending: dict[int, int] = {}
    items = []
    for problem in problems:
        programs = _programs(problem)
        pending[id(problem)] = len(programs)
        try:
            judge.check(problem)
        except InputError as error:
            checkups[id(problem)].fault = str(error)
            programs = []
        if not programs:
            yield checkups[id(problem)]
        items += [(problem, code, (id(problem), name, want)) for name, want, code in programs]
    for (key, name, want), verdict in judge.judge_stream(items):
        checkup = checkups[key]
        checkup.trials.append(Trial(name, want, verdict))
        pending[key] -= 1
        if pending[key] == 0:
            checkup.trials.sort(key=lambda trial: (trial.name != "solution", trial.name))
            _weigh(checkup)
            if calibrate:
                _calibrate(judge, checkup)
            yield checkup


def _programs(problem: Problem) -> list[tuple[str, str, str]]:
    """(name, expected verdict, code) of everything a problem brings to be checked with."""
    programs = [] if problem.solution is None else [("solution", "AC", problem.solution)]
    for number, submission in enumerate(problem.submissions, start=1):
        name = f"submission {number} ({submission.verdict})"
        programs.append((name, submission.verdict, submission.code))
    return programs


def _weigh(checkup: Checkup) -> None:
    accepted = [t for t in checkup.trials if t.expected == "AC"]
    times = [t.verdict.time_s for t in accepted if t.good]
    checkup.slowest_s = max(times, default=None)
    checkup.unsolved = bool(accepted) and not times


def _calibrate(judge: Judge, checkup: Checkup) -> None:
    """Run the accepted programs with time to spare, and the slow ones against the new limit."""
    problem = checkup.problem
    patience_s = max(_LEAST_PATIENCE_S, _PATIENCE * problem.limits.time_s)
    programs = _programs(problem)
    right = [code for _, want, code in programs if want == "AC"]
    patient = _with_limit(problem, patience_s)
    verdicts = [v for _, v in judge.judge_stream([(patient, code, None) for code in right])]
    times = [verdict.time_s for verdict in verdicts if verdict.accepted]
    if not times:
        return
    checkup.slowest_s = max(times)
    checkup.suggested_s = _nice(_ROOM * max(times))
    slow = [(name, code) for name, want, code in programs if want == "TLE"]
    hurried = _with_limit(problem, _MARGIN * checkup.suggested_s)
    for name, verdict in judge.judge_stream([(hurried, code, name) for name, code in slow]):
        if verdict.status != "TLE":
            checkup.inseparable.append(name)


def _with_limit(problem: Problem, time_s: float) -> Problem:
    limits = problem.limits.model_copy(update={"time_s": time_s})
    return problem.model_copy(update={"limits": limits})


def _nice(seconds: float) -> float:
    return next((step for step in _STEPS_S if step >= seconds), math.ceil(seconds / 10) * 10)
