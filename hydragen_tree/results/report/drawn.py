"""The programs of a run, gathered in one pass and in bounded memory."""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.passk.problem_tally import by_frequency
from hydragen_tree.results.judged_sample import JudgedSample

_MOST_INDICES = 8
_MOST_TEXT = 20_000  # characters of a program; degenerate samples can be megabytes
_MOST_MESSAGE = 400
_FEWEST = 10  # programs kept of a problem, right ones and others each, however many problems


@dataclass(slots=True)
class DrawnProgram:
    """A program and how often it was drawn.

    Args:
        text: its source, cut where it is very long.
        facts: what is known of the first sample that is it, as plain JSON types.
        samples: how many are.
        verdicts: those samples by verdict.
        indices: the lowest of their indices.
    """

    text: str
    facts: dict[str, Any]
    samples: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    indices: list[int] = field(default_factory=list)

    def add(self, judged: JudgedSample) -> None:
        """Count one more sample."""
        self.samples += 1
        if judged.status is not None:
            self.verdicts[judged.status] += 1
        insort(self.indices, judged.index)
        del self.indices[_MOST_INDICES:]

    def to_json(self) -> dict[str, Any]:
        """What a page shows beside the source: `v` verdicts, `i` indices, and the facts."""
        return {"v": by_frequency(self.verdicts), "i": self.indices, **self.facts}


@dataclass(slots=True)
class DrawnTask:
    """The programs of one problem.

    Args:
        programs: by language and normal form.
        first_solved: the lowest index of a right sample; None without one.
        unkept: samples of programs that there was no room to keep.
        unkept_solved: the right ones of them.
    """

    programs: dict[tuple[str, str], DrawnProgram] = field(default_factory=dict)
    first_solved: int | None = None
    unkept: int = 0
    unkept_solved: int = 0


class Gathering:
    """Keeps the programs of the samples that pass by.

    Args:
        most_programs: different programs to keep, about: each problem has an equal part of it, for
            right ones and for others each. Of programs that come later samples are counted alone.

    Attributes:
        tasks: by task id, in the order of their first samples.
    """

    def __init__(self, most_programs: int) -> None:
        self.tasks: dict[str, DrawnTask] = {}
        self._most = most_programs
        self._kept: Counter[tuple[str, bool]] = Counter()

    def watch(self, samples: Iterable[JudgedSample]) -> Iterator[JudgedSample]:
        """The same samples, each noted."""
        for judged in samples:
            self._add(judged)
            yield judged

    def _add(self, judged: JudgedSample) -> None:
        task_id, is_right = judged.line.task_id, judged.status == "AC"
        task = self.tasks.setdefault(task_id, DrawnTask())
        if is_right and (task.first_solved is None or judged.index < task.first_solved):
            task.first_solved = judged.index
        key = judged.language, normal_form(judged.program, judged.language)
        program = task.programs.get(key)
        part = self._most // (2 * len(self.tasks))
        if program is None and self._kept[task_id, is_right] < max(part, _FEWEST):
            self._kept[task_id, is_right] += 1
            program = task.programs[key] = _drawn(judged)
        if program is not None:
            program.add(judged)
        else:
            task.unkept += 1
            task.unkept_solved += is_right


def _drawn(judged: JudgedSample) -> DrawnProgram:
    """A program by its first sample.

    Its facts: `l` language, if it is not Python; `e` how it ended; `k` tokens; `lp`
    log-probability; `f` the test that decided, `m` the judge's reason, `r` error output, `s`
    seconds; `cut` the characters that are left out. What is not known is not there.
    """
    record, verdict, text = judged.line.record, judged.verdict, judged.program
    facts: dict[str, Any] = {
        "l": judged.language if judged.language != "python" else None,
        "e": record.get("finish_reason"),
        "k": record.get("n_tokens"),
        "cut": len(text) - _MOST_TEXT if len(text) > _MOST_TEXT else None,
    }
    if isinstance(logprob := record.get("logprob"), int | float):
        facts["lp"] = round(logprob, 3)
    if verdict is not None:
        facts["f"] = verdict.failed_test
        facts["m"] = verdict.message[:_MOST_MESSAGE] or None
        facts["s"] = round(verdict.time_s, 3)
        if verdict.status in ("RE", "CE", "IE"):
            facts["r"] = verdict.stderr_excerpt[-_MOST_MESSAGE:] or None
    known = {key: value for key, value in facts.items() if value is not None}
    return DrawnProgram(text[:_MOST_TEXT], known)
