"""Counts of a run, in one pass over its files: samples, ends, tokens, programs, verdicts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from hydragen_tree.errors import one_line
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.judge.verdict_file import program_digest
from hydragen_tree.passk.problem_tally import by_frequency
from hydragen_tree.passk.summary import Summary, Tally
from hydragen_tree.results.judged_sample import JudgedSample


@dataclass(slots=True)
class TaskCounts:
    """What is kept of a task: counts, and eight bytes a distinct program.

    Args:
        task_id: the problem.
        samples: all of them.
        tokens: drawn for them, as far as the lines say.
        logprob: sum of the log-probabilities, over the samples that have one.
        with_logprob: how many those are.
        finish_reasons: samples by how they ended; lines of other tools do not say.
        verdicts: samples by verdict.
        programs: samples by distinct program.
    """

    task_id: str
    samples: int = 0
    tokens: int = 0
    logprob: float = 0.0
    with_logprob: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    programs: Counter[bytes] = field(default_factory=Counter)

    def add(self, judged: JudgedSample) -> None:
        """Count one sample."""
        record = judged.line.record
        self.samples += 1
        if isinstance(tokens := record.get("n_tokens"), int):
            self.tokens += tokens
        if isinstance(logprob := record.get("logprob"), float):
            self.logprob += logprob
            self.with_logprob += 1
        if isinstance(reason := record.get("finish_reason"), str):
            self.finish_reasons[reason] += 1
        if judged.status is not None:
            self.verdicts[judged.status] += 1
        self.programs[program_digest(normal_form(judged.program, judged.language))] += 1

    @property
    def accepted(self) -> int:
        """Samples that are right."""
        return self.verdicts["AC"]

    @property
    def judged(self) -> int:
        """Samples with a verdict."""
        return self.verdicts.total()

    @property
    def majority(self) -> int:
        """Samples that are the most frequent program."""
        return max(self.programs.values(), default=0)

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of a sample; None where lines have none."""
        return self.logprob / self.with_logprob if self.with_logprob else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "task_id": self.task_id,
            "samples": self.samples,
            "judged": self.judged,
            "accepted": self.accepted,
            "verdicts": by_frequency(self.verdicts),
            "distinct_programs": len(self.programs),
            "majority": self.majority,
            "tokens": self.tokens,
            "mean_logprob": self.mean_logprob,
            "finish_reasons": by_frequency(self.finish_reasons),
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """A run in numbers.

    Args:
        tasks: in the order of their first samples.
        summary: pass@k of what is judged; None where nothing is.
        listed: those of the tasks that a table is to list.
    """

    tasks: tuple[TaskCounts, ...]
    summary: Summary | None
    listed: tuple[TaskCounts, ...]

    @classmethod
    def of(cls, samples: Iterable[JudgedSample], ks: Sequence[int] = ()) -> "Overview":
        """Reads samples to their end.

        Args:
            samples: of a run.
            ks: for which pass@k is estimated, besides log-spaced ones.

        Raises:
            InputError: a k below 1, or what reading raises.
        """
        tasks: dict[str, TaskCounts] = {}
        tally, is_judged = Tally(), False
        for judged in samples:
            task_id = judged.line.task_id
            tasks.setdefault(task_id, TaskCounts(task_id)).add(judged)
            if judged.status is not None:
                tally.add(judged.line.record)
                is_judged = True
        found = tuple(tasks.values())
        return cls(found, tally.summary(ks) if is_judged else None, found)

    @property
    def samples(self) -> int:
        """All samples of the run."""
        return sum(task.samples for task in self.tasks)

    @property
    def judged(self) -> int:
        """Samples with a verdict."""
        return sum(task.judged for task in self.tasks)

    @property
    def accepted(self) -> int:
        """Samples that are right."""
        return sum(task.accepted for task in self.tasks)

    @property
    def solved(self) -> int:
        """Problems with a right sample."""
        return sum(task.accepted > 0 for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """The totals, as plain JSON types."""
        reasons: Counter[str] = Counter()
        for task in self.tasks:
            reasons.update(task.finish_reasons)
        return {
            "problems": len(self.tasks),
            "solved": self.solved,
            "samples": self.samples,
            "judged": self.judged,
            "accepted": self.accepted,
            "distinct_programs": sum(len(task.programs) for task in self.tasks),
            "tokens": sum(task.tokens for task in self.tasks),
            "finish_reasons": by_frequency(reasons),
        }

    def to_html(self) -> str:
        """The problems as a table, for a notebook."""
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(one_line(str(cell)))}</td>" for cell in _cells(task))
            + "</tr>"
            for task in self.listed
        )
        counts = ((self.samples, "sample"), (len(self.tasks), "problem"))
        samples, problems = (f"{n:,} {noun}{'' if n == 1 else 's'}" for n, noun in counts)
        judged = ", not judged"
        if self.judged:
            judged = (
                f", {self.solved:,} solved, {self.accepted:,} of {self.judged:,} judged accepted"
            )
        return (
            f"<table><caption>{samples} of {problems}{judged}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


_COLUMNS = ("problem", "samples", "judged", "accepted", "distinct programs")


def _cells(task: TaskCounts) -> tuple[str | int, ...]:
    return task.task_id, task.samples, task.judged, task.accepted, len(task.programs)
