"""A run read back: its samples with their verdicts, what they are of, and what they amount to.

    results = Results.read("samples.jsonl")
    for judged in results.samples("clock-digits"):
        print(judged.index, judged.status)

Files are read anew for every question and nothing is kept but counts, so that a run of millions of
samples can be looked at while it is still being written.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, first_of
from hydragen_tree.judge.problem_index import ProblemIndex
from hydragen_tree.judge.verdict_file import program_digest
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.problem.types import Problem
from hydragen_tree.results.failing_test import FailingTest
from hydragen_tree.results.judged_sample import JudgedSample
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.run_files import RunFiles, find_run, read_lines
from hydragen_tree.sample.lines import BrokenLine, SampleLine
from hydragen_tree.sample.manifest import Manifest

_NAMED = 8  # tasks that a message names


class Results:
    """What became of a run.

    Attributes:
        files: where it stands.
        manifest: the run's description; None where the samples are other tools', or came by a pipe.
        broken: messages about lines that are no samples, of the latest reading.
    """

    def __init__(self, files: RunFiles, problems: Sequence[str] = ()) -> None:
        self.files = files
        self.manifest = Manifest.read(files.manifest) if files.manifest else None
        self.broken: list[str] = []
        self._problems = tuple(problems)

    @classmethod
    def read(cls, path: str | Path, problems: Sequence[str] = ()) -> "Results":
        """Finds a run's files.

        Args:
            path: its samples file, its verdicts file, or the folder of both.
            problems: files of its problems, where they are not where the samples say.

        Raises:
            InputError: there is no such run, or its manifest cannot be read.
        """
        return cls(find_run(Path(path)), problems)

    def samples(self, task_id: str | None = None) -> Iterator[JudgedSample]:
        """Every sample once: judged ones in the order of their verdicts, then the others.

        Of doubled lines the first counts; of verdicts the first that is no infrastructure error.

        Args:
            task_id: only those of this task.

        Raises:
            InputError: a file cannot be read, or the verdicts are of other programs.
        """
        self.broken = []
        seen: dict[tuple[str, int], bytes] = {}
        if self.files.verdicts is not None:
            yield from self._judged(task_id, seen)
        if self.files.samples is None:
            return
        for line in self._lines(self.files.samples, task_id):
            key, digest = (line.task_id, line.sample_index), _digest(line)
            if key not in seen:
                seen[key] = digest
                yield JudgedSample(line, None)
            elif seen[key] != digest and self.files.verdicts is not None:
                raise InputError(
                    f"{self.files.verdicts}: sample {line.sample_index} of {line.task_id!r} was "
                    f"another program; judge {self.files.samples} again"
                )

    def _judged(
        self, task_id: str | None, seen: dict[tuple[str, int], bytes]
    ) -> Iterator[JudgedSample]:
        assert self.files.verdicts is not None
        faults: dict[tuple[str, int], JudgedSample] = {}
        for line in self._lines(self.files.verdicts, task_id):
            key = (line.task_id, line.sample_index)
            if key in seen:
                continue
            judged = JudgedSample(line, Verdict.of_record(line.record))
            if judged.status in (None, "IE"):
                faults.setdefault(key, judged)
                continue
            faults.pop(key, None)
            seen[key] = _digest(line)
            yield judged
        for key, judged in faults.items():
            seen[key] = _digest(judged.line)
            yield judged

    def of_task(self, task_id: str) -> list[JudgedSample]:
        """The samples of a task by their index.

        Raises:
            InputError: there is no such task.
        """
        found = sorted(self.samples(task_id), key=lambda judged: judged.index)
        if not found:
            raise InputError(self._no_task(task_id))
        return found

    def sample(self, task_id: str, index: int) -> JudgedSample:
        """One sample.

        Raises:
            InputError: there is no such task, or no such sample of it.
        """
        of_task = self.of_task(task_id)
        for judged in of_task:
            if judged.index == index:
                return judged
        lowest, highest = of_task[0].index, of_task[-1].index
        raise InputError(
            f"{self.files.name}: {task_id} has no sample {index}: there are {len(of_task):,}, from "
            f"{lowest} to {highest}"
        )

    def to_pandas(self) -> Any:
        """The samples as a pandas.DataFrame: a row each, the keys of its line as columns.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError:
            raise InputError("a table needs pandas: pip install pandas") from None
        return pandas.DataFrame([judged.line.record for judged in self.samples()])

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return Overview.of(self.samples()).to_html()

    def problem(self, line: SampleLine) -> Problem | InputError:
        """The problem of a sample, or why it cannot be shown."""
        return self._index.find(line)

    def failing_test(self, judged: JudgedSample) -> FailingTest | InputError | None:
        """The test that decided against a sample.

        Returns:
            None where there is none (accepted, not judged, not compiled); the reason where the
            problem's file is not to be found.
        """
        if judged.verdict is None or judged.verdict.failed_test is None:
            return None
        problem = self.problem(judged.line)
        if isinstance(problem, InputError):
            return problem
        changed = self._index.changed(problem)
        return FailingTest.of(problem, judged.verdict, changed=changed)

    @cached_property
    def _index(self) -> ProblemIndex:
        return ProblemIndex(self._problems, self.files.name)

    def _lines(self, path: Path, task_id: str | None) -> Iterator[SampleLine]:
        for line in read_lines(path):
            if isinstance(line, BrokenLine):
                self.broken.append(f"{path}: {line}")
            elif task_id in (None, line.task_id):
                yield line

    def _no_task(self, task_id: str) -> str:
        known = dict.fromkeys(judged.line.task_id for judged in self.samples())
        close = get_close_matches(task_id, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"it has {first_of([*known], _NAMED)}"
        return f"{self.files.name}: no samples of a task {task_id!r}; {hint}"


def _digest(line: SampleLine) -> bytes:
    """What tells samples of one task and index apart: their text, which the judge leaves as it is.

    Lines with nothing but a program have none: the judge completes it with its problem's beginning.
    """
    return b"" if line.completion is None else program_digest(line.completion)
