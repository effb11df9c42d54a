"""pass@k: the chance that at least one of k samples solves a problem, and how sure that is.

Verdicts are counted; the unbiased estimate of each problem is averaged over the problems of a set.
95 % intervals of a set are for the mean over all problems like its own, and come from its problems
weighted anew together with an unseen one (`bounded_interval`); those of one problem are for that
problem, and are the exact interval of its kind of evidence carried through 1 - (1 - p)^k.
Infrastructure errors are no samples; problems whose samples were drawn by a rule (`stopping`) are
estimated by that rule; those judged only until solved (`until_solved`) stay out of every estimate.
Where problems name the accuracy of their tests (`false_accept_rate`), every estimate says what it
would be without a single right sample.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError
from hydragen_tree.passk.estimate import (
    CONFIDENCE,
    RESAMPLES,
    bounded_interval,
    by_false_accepts,
    exact_interval,
    log_spaced_k,
    pass_at_k,
)
from hydragen_tree.passk.evidence import Evidence, FixedNumber, GroupSequential
from hydragen_tree.passk.problem_tally import Counts, ProblemTally, Stopped, by_frequency

__all__ = [
    "Curve",
    "Estimate",
    "ProblemSummary",
    "Stopped",
    "Summary",
    "Tally",
    "bounded_interval",
    "exact_interval",
    "log_spaced_k",
    "pass_at_k",
    "summarise",
]


@dataclass(frozen=True, slots=True)
class Estimate:
    """pass@k with its 95 % interval.

    Args:
        k: samples.
        value: the unbiased estimate.
        low: of the interval.
        high: of the interval.
        by_false_accepts: what it would be at most if no sample were right, over the problems that
            name a rate; None if none does.
    """

    k: int
    value: float
    low: float
    high: float
    by_false_accepts: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """pass@k over rising k for some problems.

    Args:
        problems: how many problems are averaged.
        samples: samples counted, all problems together.
        estimates: one a k, k rising.
        refused: (k, why) for every k asked for that has no unbiased estimate.
        interval: how the intervals were made: `exact` (of one problem), `gaffke` (of a mean over
            problems), or `none` without problems.
        rated: how many of the problems name a rate of false accepts.
    """

    problems: int
    samples: int
    estimates: tuple[Estimate, ...]
    refused: tuple[tuple[int, str], ...]
    interval: str
    rated: int


@dataclass(frozen=True, slots=True)
class ProblemSummary:
    """One problem: its counts and its curve.

    Args:
        task_id: the problem.
        difficulty: as the problem states it, if it does.
        false_accept_rate: chance that its tests accept a wrong program, as it states it.
        samples: verdicts that count (infrastructure errors are not among them).
        accepted: how many of them are AC.
        infrastructure_errors: samples the judge could not judge.
        until_solved: judged only until enough samples were accepted; then it has no curve.
        distinct_programs: different programs among the samples.
        distinct_accepted: different programs among the accepted ones.
        distinct_verdicts: different verdicts among the samples.
        majority: samples that are the most frequent program, see `ProblemTally.majority`.
        majority_verdict: that program's verdict.
        verdicts: count by verdict.
        curve: pass@k, unless stopped early.
        stopped: where not all samples count, since a rule decided how many are drawn, or some are
            missing; None: all do.
    """

    task_id: str
    difficulty: str | None
    false_accept_rate: float | None
    samples: int
    accepted: int
    infrastructure_errors: int
    until_solved: bool
    distinct_programs: int
    distinct_accepted: int
    distinct_verdicts: int
    majority: int
    majority_verdict: str | None
    verdicts: dict[str, int]
    curve: Curve
    stopped: Stopped | None = None

    @property
    def evidence(self) -> Evidence:
        """What its estimates are made of."""
        return self.stopped.evidence if self.stopped else FixedNumber(self.samples, self.accepted)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a set of verdicts says.

    Args:
        overall: the mean over problems.
        by_variant: the same from the samples of one prompt variant only.
        by_difficulty: the same over the problems of one difficulty.
        problems: one a problem, by name, numbers in it as numbers: not by which verdict came first.
        verdicts: count by verdict, infrastructure errors (`IE`) included.
        asked: the k that were asked for; every curve holds log-spaced ones besides.
    """

    overall: Curve
    by_variant: dict[int, Curve]
    by_difficulty: dict[str, Curve]
    problems: tuple[ProblemSummary, ...]
    verdicts: dict[str, int]
    asked: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            "confidence": CONFIDENCE,
            "interval_resamples": RESAMPLES,
            "distinct_verdicts": sum(1 for status in self.verdicts if status != "IE"),
            **asdict(self),
        }


class Tally:
    """Takes verdict records one at a time and keeps counts only, so memory stays flat."""

    def __init__(self) -> None:
        self._problems: dict[str, ProblemTally] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one verdict.

        Args:
            record: `task_id` and `verdict` (AC, WA, TLE, MLE, OLE, RE, CE or IE), and where known
                `prompt_variant`, `solution` (the program), `difficulty`,
                `false_accept_rate`, `until_solved`: true when the problem may have been stopped
                early, and `stopping` and `sample_index` where a rule decides how many are drawn.

        Raises:
            InputError: `task_id` or `verdict` is missing, or the rate is none.
        """
        task_id, status = record.get("task_id"), record.get("verdict")
        if not isinstance(task_id, str) or not isinstance(status, str):
            raise InputError("a verdict record needs the strings `task_id` and `verdict`")
        self._problems.setdefault(task_id, ProblemTally(task_id)).add(status, record)

    def is_met(self, task_id: str) -> bool:
        """Whether the rule by which a problem's samples are drawn has ended it."""
        return task_id in self._problems and self._problems[task_id].is_met

    def summary(self, ks: Sequence[int] = ()) -> Summary:
        """Estimates from what was counted so far.

        Args:
            ks: the k to estimate, besides log-spaced ones up to the fewest samples of any problem.

        Raises:
            InputError: a k below 1.
        """
        for k in ks:
            if k < 1:
                raise InputError(f"-k {k}: expected an integer >= 1")
        problems = tuple(
            _problem_summary(task_id, self._problems[task_id], ks)
            for task_id in sorted(self._problems, key=_by_number)
        )
        estimable = [p for p in problems if p.curve.problems]
        made_of = {p.task_id: self._problems[p.task_id].counted for p in estimable}
        names = [p.task_id for p in estimable if p.stopped is None]
        variants = sorted({v for name in names for v in self._problems[name].by_variant})
        levels = sorted({p.difficulty for p in estimable if p.difficulty}, key=_difficulty_rank)
        verdicts: Counter[str] = Counter()
        for counts in self._problems.values():
            verdicts.update(counts.verdicts)
        return Summary(
            overall=_curve([*made_of.values()], ks),
            by_variant={
                variant: self._curve_of_variant(variant, names, ks) for variant in variants
            },
            by_difficulty={
                level: _curve([made_of[p.task_id] for p in estimable if p.difficulty == level], ks)
                for level in levels
            },
            problems=problems,
            verdicts=by_frequency(verdicts),
            asked=tuple(sorted(set(ks))),
        )

    def _curve_of_variant(self, variant: int, names: Collection[str], ks: Sequence[int]) -> Curve:
        found = []
        for name in names:
            problem = self._problems[name]
            if of_variant := problem.by_variant.get(variant):
                evidence = FixedNumber(*of_variant)
                found.append(Counts(name, evidence, problem.false_accept_rate))
        return _curve(found, ks)


def summarise(records: Iterable[Mapping[str, Any]], ks: Sequence[int] = ()) -> Summary:
    """Read verdict records to their end and estimate pass@k: see `Tally`."""
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally.summary(ks)


def _problem_summary(task_id: str, counts: ProblemTally, ks: Sequence[int]) -> ProblemSummary:
    infrastructure_errors = counts.verdicts["IE"]
    samples, accepted = counts.verdicts.total() - infrastructure_errors, counts.verdicts["AC"]
    counted = counts.counted
    estimable = counted.evidence.samples > 0 and not counts.until_solved
    program, majority = counts.majority()
    return ProblemSummary(
        task_id=task_id,
        difficulty=counts.difficulty,
        false_accept_rate=counts.false_accept_rate,
        samples=samples,
        accepted=accepted,
        infrastructure_errors=infrastructure_errors,
        until_solved=counts.until_solved,
        distinct_programs=len(counts.programs),
        distinct_accepted=sum(status == "AC" for status in counts.verdict_of.values()),
        distinct_verdicts=len(set(counts.verdict_of.values())),
        majority=majority,
        majority_verdict=counts.verdict_of.get(program),
        verdicts=by_frequency(counts.verdicts),
        curve=_curve([counted] if estimable else [], ks),
        stopped=counts.stopped(),
    )


def _curve(counts: Sequence[Counts], ks: Sequence[int]) -> Curve:
    """The curve over some problems."""
    if not counts:
        return Curve(problems=0, samples=0, estimates=(), refused=(), interval="none", rated=0)
    scarcest = min(counts, key=lambda entry: entry.evidence.most_k)
    fewest = scarcest.evidence.most_k
    wanted = sorted({*log_spaced_k(fewest), *ks})
    possible = [k for k in wanted if k <= fewest]
    why = f"{scarcest.task_id} has only {fewest} samples"
    if isinstance(scarcest.evidence, GroupSequential) and scarcest.evidence.samples > fewest:
        why = f"{scarcest.task_id} would end at {fewest} samples if none of them were right"
    values = np.array([[each.evidence.pass_at_k(k) for k in possible] for each in counts])
    low, high, interval = _interval(values, counts, possible)
    estimates = zip(possible, values.mean(axis=0), low, high, strict=True)
    rates = [rate for _, _, rate in counts if rate is not None]

    def by_chance(k: int) -> float | None:
        return sum(by_false_accepts(rate, k) for rate in rates) / len(rates) if rates else None

    return Curve(
        problems=len(counts),
        samples=sum(entry.evidence.samples for entry in counts),
        estimates=tuple(
            Estimate(k, float(v), float(a), float(b), by_chance(k)) for k, v, a, b in estimates
        ),
        refused=tuple((k, why) for k in wanted if k > fewest),
        interval=interval,
        rated=len(rates),
    )


def _interval(
    values: NDArray[np.float64], counts: Sequence[Counts], ks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Intervals for the mean of `values` `[problems, ks]`: (low `[ks]`, high `[ks]`, method)."""
    if len(counts) == 1 or not ks:
        exact = [counts[0].evidence.interval(k) for k in ks]
        bounds = np.array(exact).reshape(len(ks), 2)
        return bounds[:, 0], bounds[:, 1], "exact"
    low, high = bounded_interval(values)
    return low, high, "gaffke"


def _by_number(task_id: str) -> tuple[list[tuple[str, int, str]], str]:
    """Sorts `HumanEval/10` behind `HumanEval/9`."""
    parts = re.findall(r"(\D*)0*(\d*)", task_id)
    return [(text, len(digits), digits) for text, digits in parts], task_id


def _difficulty_rank(level: str) -> tuple[int, str]:
    order = ("easy", "medium", "hard")
    return (order.index(level) if level in order else len(order), level)
