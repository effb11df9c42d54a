"""Two runs side by side: pass@k problem by problem, settings, speed, and where samples part."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydragen_tree.passk.difference import (
    Difference,
    Interval,
    PairedEvidence,
    compare_pass_at_k,
    interval_of_these,
)
from hydragen_tree.passk.estimate import log_spaced_k
from hydragen_tree.passk.summary import ProblemSummary, Summary
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.parting import (
    Digests,
    Partings,
    equal_tasks,
    find_partings,
    why_not_equal,
)
from hydragen_tree.results.results import Results
from hydragen_tree.sample.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ProblemDifference:
    """One problem in both runs.

    Args:
        evidence: what its samples say, in both.
        value: the second's pass@1, less the first's.
        interval: of that.
    """

    evidence: PairedEvidence
    value: float
    interval: Interval

    @property
    def task_id(self) -> str:
        """The problem."""
        return self.evidence.task_id

    @property
    def is_clear(self) -> bool:
        """Whether the runs differ on it, as far as its samples tell."""
        return self.interval.excludes_zero

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        first, second = self.evidence.first, self.evidence.second
        return {
            "task_id": self.task_id,
            "first": {"samples": first.samples, "accepted": first.accepted},
            "second": {"samples": second.samples, "accepted": second.accepted},
            "difference": self.value,
            **asdict(self.interval),
            "clear": self.is_clear,
        }


@dataclass(frozen=True, slots=True)
class SettingsDifference:
    """What the manifests of two runs say differently.

    Args:
        settings: (name, first's value, second's), of what decides samples, and of versions.
        problems: tasks whose problem is another one, so that their verdicts are not comparable.
        prompts: tasks of equal problems that were asked by other prompts.
    """

    settings: tuple[tuple[str, str, str], ...]
    problems: tuple[str, ...]
    prompts: tuple[str, ...]

    @classmethod
    def between(cls, first: Manifest, second: Manifest) -> "SettingsDifference":
        """Compares two manifests."""
        found = [each for each in first.differences(second) if not each[0].startswith("tasks.")]
        more = [_besides(manifest) for manifest in (first, second)]
        for key in dict.fromkeys([*more[0], *more[1]]):
            was, now = (one.get(key, "unknown") for one in more)
            if was != now:
                found.append((key, was, now))
        both = [task_id for task_id in first.tasks if task_id in second.tasks]
        problems = [t for t in both if first.tasks[t].sha256 != second.tasks[t].sha256]
        same = equal_tasks(first, second)
        prompts = [t for t in both if t not in same and t not in problems]
        return cls(tuple(found), tuple(problems), tuple(prompts))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side; differences are those of the second from the first.

    Args:
        first: the first run.
        second: the second.
        overviews: of both.
        settings: what differs in them; None where a manifest is missing.
        pass_at_k: of the problems that are judged in both; empty where there are none.
        refused: (k, why) for every k asked for that cannot be estimated.
        problems: those problems, the largest clear differences first.
        only_first: problems that only the first run has judged.
        only_second: problems that only the second has.
        left_out: problems judged only until solved in a run, which have no estimate.
        partings: how far samples are the same; None where they are not meant to be.
        why_no_partings: why they are not.
    """

    first: Results
    second: Results
    overviews: tuple[Overview, Overview]
    settings: SettingsDifference | None
    pass_at_k: tuple[Difference, ...]
    refused: tuple[tuple[int, str], ...]
    problems: tuple[ProblemDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    left_out: tuple[str, ...]
    partings: Partings | None
    why_no_partings: str | None

    @property
    def won(self) -> list[ProblemDifference]:
        """Problems of which the second run solves more."""
        return [problem for problem in self.problems if problem.value > 0]

    @property
    def lost(self) -> list[ProblemDifference]:
        """Problems of which the second run solves less."""
        return [problem for problem in self.problems if problem.value < 0]

    @property
    def solved_by_one(self) -> tuple[list[str], list[str]]:
        """Problems that only the first run has solved at all, and only the second."""
        only: tuple[list[str], list[str]] = [], []
        for problem in self.problems:
            solved = [run.accepted > 0 for run in (problem.evidence.first, problem.evidence.second)]
            if solved[0] != solved[1]:
                only[solved[1]].append(problem.task_id)
        return only

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        only_first, only_second = self.solved_by_one
        settings = self.settings
        return {
            "first": _run_record(self.first, self.overviews[0]),
            "second": _run_record(self.second, self.overviews[1]),
            "settings": (
                None
                if settings is None
                else [
                    {"name": name, "first": was, "second": now}
                    for name, was, now in settings.settings
                ]
            ),
            "problems_changed": list(settings.problems) if settings else [],
            "prompts_changed": list(settings.prompts) if settings else [],
            "pass_at_k": [asdict(difference) for difference in self.pass_at_k],
            "refused": [{"k": k, "why": why} for k, why in self.refused],
            "problems": [problem.to_json() for problem in self.problems],
            "won": [problem.task_id for problem in self.won],
            "lost": [problem.task_id for problem in self.lost],
            "solved_by_first_only": only_first,
            "solved_by_second_only": only_second,
            "judged_in_first_only": list(self.only_first),
            "judged_in_second_only": list(self.only_second),
            "left_out": list(self.left_out),
            "partings": asdict(self.partings) if self.partings else None,
            "why_no_partings": self.why_no_partings,
        }


def compare_runs(first: Results, second: Results, ks: Sequence[int] = ()) -> Comparison:
    """Reads two runs and compares them.

    Args:
        first: a run, judged or not.
        second: another, or the same anew.
        ks: for which pass@k is compared, besides log-spaced ones up to the fewest samples.

    Raises:
        InputError: a file cannot be read, or a k is below 1.
    """
    why = why_not_equal(first.manifest, second.manifest)
    known = first.manifest is not None and second.manifest is not None
    settings = same = None
    if first.manifest is not None and second.manifest is not None:
        settings = SettingsDifference.between(first.manifest, second.manifest)
        same = equal_tasks(first.manifest, second.manifest)
    digests = Digests(same if same and why is None else set())
    overviews = (
        Overview.of(digests.of_first(first.samples()), ks),
        Overview.of(digests.of_second(second.samples()), ks),
    )
    partings = find_partings(first, second, digests) if known and why is None else None
    of_first, of_second = (_judged(overview.summary) for overview in overviews)
    left_out = [
        task_id
        for task_id in of_first
        if task_id in of_second
        and (of_first[task_id].until_solved or of_second[task_id].until_solved)
    ]
    pairs = [
        _paired(of_first[task_id], of_second[task_id])
        for task_id in of_first
        if task_id in of_second and task_id not in left_out
    ]
    shown, refused = _ks(pairs, ks)
    return Comparison(
        first=first,
        second=second,
        overviews=overviews,
        settings=settings,
        pass_at_k=tuple(compare_pass_at_k(pairs, shown)) if pairs else (),
        refused=tuple(refused),
        problems=tuple(sorted(map(_problem, pairs), key=_largest_first)),
        only_first=tuple(task_id for task_id in of_first if task_id not in of_second),
        only_second=tuple(task_id for task_id in of_second if task_id not in of_first),
        left_out=tuple(left_out),
        partings=partings,
        why_no_partings=why,
    )


def _besides(manifest: Manifest) -> dict[str, str]:
    """What a manifest says besides what decides the samples."""
    last: Mapping[str, Any] = manifest.sessions[-1] if manifest.sessions else {}
    rule = ", ".join(f"{name} {value}" for name, value in (manifest.stopping or {}).items())
    found = {"n": str(manifest.n), "stopping": rule or "none"}
    found["shard"] = str(manifest.shard or "none")
    if attention := (last.get("figures") or {}).get("attention"):
        found["attention"] = str(attention)
    return found | {f"versions.{name}": v for name, v in last.get("versions", {}).items()}


def _judged(summary: Summary | None) -> dict[str, ProblemSummary]:
    problems = summary.problems if summary else ()
    return {problem.task_id: problem for problem in problems if problem.evidence.samples}


def _paired(first: ProblemSummary, second: ProblemSummary) -> PairedEvidence:
    return PairedEvidence(first.task_id, first.evidence, second.evidence)


def _ks(
    pairs: Sequence[PairedEvidence], asked: Sequence[int]
) -> tuple[list[int], list[tuple[int, str]]]:
    """The k that can be compared, and (k, why) for those asked for that cannot."""
    if not pairs:
        return [], []
    scarcest = min(pairs, key=lambda pair: pair.most_k)
    why = f"{scarcest.task_id} has only {scarcest.most_k} samples in one of the runs"
    wanted = sorted({*log_spaced_k(scarcest.most_k), *asked})
    possible = [k for k in wanted if k <= scarcest.most_k]
    return possible, [(k, why) for k in wanted if k > scarcest.most_k]


def _problem(pair: PairedEvidence) -> ProblemDifference:
    value = pair.second.pass_at_k(1) - pair.first.pass_at_k(1)
    return ProblemDifference(pair, value, interval_of_these([pair], 1))


def _largest_first(problem: ProblemDifference) -> tuple[bool, float, str]:
    return not problem.is_clear, -abs(problem.value), problem.task_id


def _run_record(results: Results, overview: Overview) -> dict[str, Any]:
    manifest = results.manifest
    speed = manifest.speed if manifest else None
    return {
        "run": results.files.to_json(),
        "model": dict(manifest.model) if manifest else None,
        "counts": overview.to_json(),
        "speed": (
            None
            if speed is None
            else {
                **asdict(speed),
                "tokens_a_second": speed.tokens_a_second,
                "samples_a_second": speed.samples_a_second,
            }
        ),
    }
