"""pass@k: the chance that at least one of k samples solves a problem, and how sure that is.

Verdicts are counted; the unbiased estimate of each problem is averaged over the problems of a set.
95 % intervals of a set are for the mean over all problems like its own, and come from its problems
weighted anew together with an unseen one (`bounded_interval`); those of one problem are for that
problem, and are the exact interval of the binomial carried through 1 - (1 - p)^k. Infrastructure
errors are no samples; problems judged only until solved (`until_solved`) have no fixed n, and stay
out of every estimate. Where problems name the accuracy of their tests (`false_accept_rate`), every
estimate says what it would be without a single right sample.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.passk.estimate import (
    CONFIDENCE,
    RESAMPLES,
    bounded_interval,
    by_false_accepts,
    exact_interval,
    log_spaced_k,
    pass_at_k,
)

__all__ = [
    "Curve",
    "Estimate",
    "ProblemSummary",
    "Summary",
    "Tally",
    "bounded_interval",
    "exact_interval",
    "log_spaced_k",
    "pass_at_k",
    "summarise",
]


class Counts(NamedTuple):
    """What estimates are made of."""

    task_id: str
    samples: int
    accepted: int
    false_accept_rate: float | None


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
        interval: how the intervals were made: `exact`, `bootstrap`, or `none` without problems.
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
        majority: samples that are the most frequent program.
        majority_verdict: that program's verdict.
        verdicts: count by verdict.
        curve: pass@k, unless stopped early.
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

    @property
    def counts(self) -> Counts:
        """What its curve is made of."""
        return Counts(self.task_id, self.samples, self.accepted, self.false_accept_rate)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a set of verdicts says.

    Args:
        overall: the mean over problems.
        by_variant: the same from the samples of one prompt variant only.
        by_difficulty: the same over the problems of one difficulty.
        problems: one a problem, in the order of their first verdict.
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
            "bootstrap_resamples": RESAMPLES,
            "distinct_verdicts": sum(1 for status in self.verdicts if status != "IE"),
            **asdict(self),
        }


@dataclass(slots=True)
class _Counts:
    """What is kept of a problem: counts, and eight bytes a distinct program."""

    difficulty: str | None = None
    false_accept_rate: float | None = None
    until_solved: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    by_variant: dict[int, list[int]] = field(default_factory=dict)  # variant -> [samples, accepted]
    programs: Counter[int] = field(default_factory=Counter)
    verdict_of: dict[int, str] = field(default_factory=dict)


class Tally:
    """Takes verdict records one at a time and keeps counts only, so memory stays flat."""

    def __init__(self) -> None:
        self._problems: dict[str, _Counts] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one verdict.

        Args:
            record: `task_id` and `verdict` (AC, WA, TLE, MLE, OLE, RE, CE or IE), and where known
                `prompt_variant`, `solution` (the program), `difficulty`,
                `false_accept_rate`, and `until_solved`: true when the problem may have been
                stopped early.

        Raises:
            InputError: `task_id` or `verdict` is missing, or the rate is none.
        """
        task_id, status = record.get("task_id"), record.get("verdict")
        if not isinstance(task_id, str) or not isinstance(status, str):
            raise InputError("a verdict record needs the strings `task_id` and `verdict`")
        counts = self._problems.setdefault(task_id, _Counts())
        counts.difficulty = record.get("difficulty") or counts.difficulty
        rate = record.get("false_accept_rate")
        if rate is not None:
            if not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise InputError(f"{task_id}: false_accept_rate {rate!r}: expected 0 to 1")
            counts.false_accept_rate = float(rate)
        counts.until_solved = counts.until_solved or bool(record.get("until_solved"))
        counts.verdicts[status] += 1
        if status == "IE":
            return
        of_variant = counts.by_variant.setdefault(int(record.get("prompt_variant") or 0), [0, 0])
        of_variant[0] += 1
        of_variant[1] += status == "AC"
        language = str(record.get("language") or "python")
        program = _fingerprint(normal_form(str(record.get("solution") or ""), language))
        counts.programs[program] += 1
        counts.verdict_of.setdefault(program, status)

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
            _problem_summary(task_id, counts, ks) for task_id, counts in self._problems.items()
        )
        estimable = [p for p in problems if not p.until_solved and p.samples]
        names = [p.task_id for p in estimable]
        variants = sorted({v for name in names for v in self._problems[name].by_variant})
        levels = sorted({p.difficulty for p in estimable if p.difficulty}, key=_difficulty_rank)
        verdicts: Counter[str] = Counter()
        for counts in self._problems.values():
            verdicts.update(counts.verdicts)
        return Summary(
            overall=_curve([p.counts for p in estimable], ks),
            by_variant={
                variant: self._curve_of_variant(variant, names, ks) for variant in variants
            },
            by_difficulty={
                level: _curve([p.counts for p in estimable if p.difficulty == level], ks)
                for level in levels
            },
            problems=problems,
            verdicts=dict(verdicts.most_common()),
            asked=tuple(sorted(set(ks))),
        )

    def _curve_of_variant(self, variant: int, names: Collection[str], ks: Sequence[int]) -> Curve:
        found = []
        for name in names:
            problem = self._problems[name]
            if of_variant := problem.by_variant.get(variant):
                found.append(Counts(name, of_variant[0], of_variant[1], problem.false_accept_rate))
        return _curve(found, ks)


def summarise(records: Iterable[Mapping[str, Any]], ks: Sequence[int] = ()) -> Summary:
    """Read verdict records to their end and estimate pass@k: see `Tally`."""
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally.summary(ks)


def _problem_summary(task_id: str, counts: _Counts, ks: Sequence[int]) -> ProblemSummary:
    infrastructure_errors = counts.verdicts["IE"]
    samples, accepted = counts.verdicts.total() - infrastructure_errors, counts.verdicts["AC"]
    estimable = samples > 0 and not counts.until_solved
    [(program, majority)] = counts.programs.most_common(1) or [(0, 0)]
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
        verdicts={s: count for s, count in counts.verdicts.most_common() if count},
        curve=_curve(
            [Counts(task_id, samples, accepted, counts.false_accept_rate)] if estimable else [], ks
        ),
    )


def _curve(counts: Sequence[Counts], ks: Sequence[int]) -> Curve:
    """The curve over some problems."""
    if not counts:
        return Curve(problems=0, samples=0, estimates=(), refused=(), interval="none", rated=0)
    scarcest, fewest, *_ = min(counts, key=lambda entry: entry.samples)
    wanted = sorted({*log_spaced_k(fewest), *ks})
    possible = [k for k in wanted if k <= fewest]
    why = f"{scarcest} has only {fewest} samples"
    values = np.array([[pass_at_k(n, c, k) for k in possible] for _, n, c, _ in counts])
    low, high, interval = _interval(values, counts, possible)
    estimates = zip(possible, values.mean(axis=0), low, high, strict=True)
    rates = [rate for *_, rate in counts if rate is not None]

    def by_chance(k: int) -> float | None:
        return sum(by_false_accepts(rate, k) for rate in rates) / len(rates) if rates else None

    return Curve(
        problems=len(counts),
        samples=sum(entry.samples for entry in counts),
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
        exact = [[exact_interval(n, c, k) for k in ks] for _, n, c, _ in counts[:1]]
        bounds = np.array(exact).reshape(len(ks), 2)
        return bounds[:, 0], bounds[:, 1], "exact"
    low, high = bounded_interval(values)
    return low, high, "bootstrap"


def _fingerprint(program: str) -> int:
    """Eight bytes for a program."""
    return int.from_bytes(
        hashlib.blake2b(program.encode(errors="surrogatepass"), digest_size=8).digest()
    )


def _difficulty_rank(level: str) -> tuple[int, str]:
    order = ("easy", "medium", "hard")
    return (order.index(level) if level in order else len(order), level)
