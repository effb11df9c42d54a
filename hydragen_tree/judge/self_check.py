"""Whether a problem judges rightly: its own programs must get the verdicts they are known for.

With `calibrate`, also whether its time limit suits Python: it should leave accepted programs twice
the time that the slowest of them needs, and end those that are known to be too slow well before
they are done. Only programs in Python count for that: limits are often set for faster languages.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.languages import find_language
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.problem.formats.kattis import package_of
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.formats.kattis_timing import LimitRule, limit_rule
from hydragen_tree.problem.types import Problem

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
        name: `solution`, `submission 3 (WA)`, or its file.
        expected: the verdict it must get.
        also: verdicts that are as good.
        verdict: the verdict it got.
        language: what it is written in.
    """

    name: str
    expected: str
    verdict: Verdict
    language: str = "python"
    also: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the judge agrees with the problem."""
        return self.verdict.status in (self.expected, *self.also)


@dataclass(slots=True)
class SelfCheck:
    """What was found out about a problem.

    Args:
        problem: the problem; a package without a time limit gets one from its accepted programs.
        limit_rule: how, for such a package.
        fault: why it cannot be checked at all, with the problem's file.
        trials: its programs, and what became of them.
        skipped: its programs that cannot be run here, and why.
        slowest_s: processor time of its slowest accepted program in Python; None without one.
        suggested_s: a time limit that suits Python; only from a calibration.
        unsolved: why no Python program is known to be fast enough; only from a calibration.
        inseparable: programs that are known to be too slow and would not be at that limit.
    """

    problem: Problem
    limit_rule: LimitRule | None = None
    fault: str = ""
    trials: list[Trial] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    slowest_s: float | None = None
    suggested_s: float | None = None
    unsolved: str = ""
    inseparable: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether grading with it can be trusted."""
        accepted = any(t.expected == "AC" and t.verdict.accepted for t in self.trials)
        return not self.fault and accepted and all(trial.good for trial in self.trials)

    def faults(self) -> list[str]:
        """What is wrong, a line each."""
        if self.fault:
            return [self.fault]
        lines = [
            f"{trial.name}: expected {' or '.join((trial.expected, *trial.also))}, "
            f"got {trial.verdict.status}"
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
            lines.append("it has neither a solution nor an accepted submission that runs here")
        elif not self.good and not lines:
            lines.append("none of its accepted submissions that run here passes all tests")
        if self.unsolved:
            lines.append(self.unsolved)
        lines += [f"{name}: is not too slow for the suggested limit" for name in self.inseparable]
        return lines

    def to_json(self) -> dict[str, Any]:
        """As `hydragen check --json` prints it."""
        return {
            "id": self.problem.id,
            "source": self.problem.source,
            "good": self.good,
            "faults": self.faults(),
            "skipped": self.skipped,
            "time_limit_s": self.problem.limits.time_s,
            "slowest_accepted_s": self.slowest_s,
            "suggested_time_limit_s": self.suggested_s,
            "programs": [
                {
                    "name": t.name,
                    "language": t.language,
                    "expected": t.expected,
                    "also": list(t.also),
                    **t.verdict.to_json(),
                }
                for t in self.trials
            ],
        }


@dataclass(frozen=True, slots=True)
class _Program:
    """What a problem brings to be checked with."""

    name: str
    expected: str
    code: str
    language: str = "python"
    also: tuple[str, ...] = ()


def check_problems(
    judge: Judge, problems: Sequence[Problem], *, calibrate: bool = False
) -> Iterator[SelfCheck]:
    """Check problems, several at a time; each as it is done.

    Args:
        judge: without old verdicts.
        problems: with solutions or submissions.
        calibrate: also measure what time limit suits Python.
    """
    self_checks = [SelfCheck(problem) for problem in problems]
    pending: Counter[int] = Counter()
    items: list[tuple[Problem, str, tuple[SelfCheck, _Program]]] = []
    for self_check in self_checks:
        found = _programs_to_run(judge, self_check)
        if self_check.limit_rule is not None:
            _judge_without_limit(judge, self_check, self_check.limit_rule, found)
            found = []
        for program in found:
            pending[id(self_check)] += 1
            items.append((self_check.problem, program.code, (self_check, program)))
        if not pending[id(self_check)]:
            yield _finished(judge, self_check, calibrate=calibrate)
    for (self_check, program), verdict in judge.judge_stream(items, lambda tag: tag[1].language):
        self_check.trials.append(_trial(program, verdict))
        pending[id(self_check)] -= 1
        if pending[id(self_check)] == 0:
            yield _finished(judge, self_check, calibrate=calibrate)


def _trial(program: _Program, verdict: Verdict) -> Trial:
    return Trial(program.name, program.expected, verdict, program.language, program.also)


def _finished(judge: Judge, self_check: SelfCheck, *, calibrate: bool) -> SelfCheck:
    """What all of its programs together say."""
    names = [one.name for one in _programs(self_check.problem)]
    self_check.trials.sort(key=lambda trial: names.index(trial.name))
    self_check.slowest_s = _slowest(self_check.trials)
    if calibrate and not self_check.fault and self_check.trials:
        _calibrate(judge, self_check)
    return self_check


def _programs_to_run(judge: Judge, self_check: SelfCheck) -> list[_Program]:
    """A problem's programs; those in a language that is not installed here are noted instead."""
    problem = self_check.problem
    source = Path(problem.source)
    package = package_of(source) if problem.source else None
    try:
        judge.require_judgeable(problem)
        if package is not None and "time_s" not in problem.limits.model_fields_set:
            self_check.limit_rule = limit_rule(source)
    except InputError as error:
        self_check.fault = str(error)
        return []
    if package is not None:
        self_check.skipped += read_submissions(package, {})[1]
    found = []
    for program in _programs(problem):
        try:
            find_language(program.language)
        except InputError as error:
            self_check.skipped.append(f"{program.name}: {error}")
        else:
            found.append(program)
    return found


def _judge_without_limit(
    judge: Judge, self_check: SelfCheck, rule: LimitRule, programs: list[_Program]
) -> None:
    """Judge the accepted programs with time to spare, and the others with what follows for them."""
    accepted = [program for program in programs if program.expected == "AC"]
    others = [program for program in programs if program.expected != "AC"]
    self_check.problem = _with_limit(self_check.problem, _LEAST_PATIENCE_S)
    _judge_in_languages(judge, self_check, accepted)
    times = [trial.verdict.time_s for trial in self_check.trials if trial.verdict.accepted]
    if times:
        self_check.problem = _with_limit(self_check.problem, rule.limit_s(max(times)))
    _judge_in_languages(judge, self_check, others)


def _judge_in_languages(judge: Judge, self_check: SelfCheck, programs: list[_Program]) -> None:
    items = [(self_check.problem, program.code, program) for program in programs]
    for program, verdict in judge.judge_stream(items, lambda program: program.language):
        self_check.trials.append(_trial(program, verdict))


def _programs(problem: Problem) -> list[_Program]:
    programs = []
    if problem.solution is not None:
        own = [s for s in problem.submissions if s.name and s.code == problem.solution]
        name, also = (own[0].name, own[0].also) if own else ("solution", ())
        programs.append(_Program(name, "AC", problem.solution, also=also))
    for number, submission in enumerate(problem.submissions, start=1):
        if submission.verdict == "AC" and submission.code == problem.solution:
            continue  # a package's solution is one of its submissions
        verdict, language = submission.verdict, submission.language
        name = f"{submission.name or f'submission {number}'} ({verdict})"
        programs.append(_Program(name, verdict, submission.code, language, submission.also))
    return programs


def _slowest(trials: Sequence[Trial]) -> float | None:
    """Processor time of the slowest Python program that was accepted as it should be."""
    right = [t for t in trials if t.expected == "AC" and t.good and t.language == "python"]
    return max((trial.verdict.time_s for trial in right), default=None)


def _calibrate(judge: Judge, self_check: SelfCheck) -> None:
    """Run the accepted programs with time to spare, and the slow ones against the new limit."""
    problem = self_check.problem
    programs = [one for one in _programs(problem) if one.language == "python"]
    right = [one for one in programs if one.expected == "AC"]
    if not right:
        self_check.unsolved = "no accepted program in Python: its time limit cannot be calibrated"
        return
    patience_s = max(_LEAST_PATIENCE_S, _PATIENCE * problem.limits.time_s)
    verdicts = [verdict for _, verdict in _judge_within(judge, problem, patience_s, right)]
    times = [verdict.time_s for verdict in verdicts if verdict.accepted]
    if self_check.slowest_s is None:
        within = f"even within {patience_s:g} s" if not times else "within its time limit"
        self_check.unsolved = f"no Python program is accepted {within}"
    if not times:
        return
    self_check.slowest_s = max(times)
    self_check.suggested_s = _nice(_ROOM * max(times))
    slow = [one for one in programs if one.expected == "TLE"]
    margin_s = _MARGIN * self_check.suggested_s
    for program, verdict in _judge_within(judge, problem, margin_s, slow):
        if verdict.status != "TLE":
            self_check.inseparable.append(program.name)


def _judge_within(
    judge: Judge, problem: Problem, time_s: float, programs: Sequence[_Program]
) -> Iterator[tuple[_Program, Verdict]]:
    """Judge Python programs with another time limit than the problem's own."""
    limited = _with_limit(problem, time_s)
    return judge.judge_stream([(limited, program.code, program) for program in programs])


def _with_limit(problem: Problem, time_s: float) -> Problem:
    limits = problem.limits.model_copy(update={"time_s": time_s})
    return problem.model_copy(update={"limits": limits})


def _nice(seconds: float) -> float:
    return next((step for step in _STEPS_S if step >= seconds), math.ceil(seconds / 10) * 10)
