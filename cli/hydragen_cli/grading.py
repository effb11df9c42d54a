"""One run of the judge over a stream of samples, and what became of each of them."""

import json
import os
import select
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hydragen_cli.console import console, count, note
from hydragen_cli.options import flag_of
from hydragen_tree.errors import InputError, OutputError, one_line

if TYPE_CHECKING:
    from hydragen_tree.judge import Judge, Verdict
    from hydragen_tree.judge.library import Library
    from hydragen_tree.judge.verdict_file import VerdictFile
    from hydragen_tree.passk.summary import Tally
    from hydragen_tree.problem.types import Problem
    from hydragen_tree.sample.lines import SampleLine

_NAMED = 10  # faults of one kind that are named; the rest is counted
_GLANCE_MS = 200
_CHUNK = 1 << 16

_Tag = tuple["SampleLine", "Problem", str, str]  # ..., program, language


class Grading:
    """Samples on their way through the judge, and what became of them."""

    def __init__(
        self,
        judge: "Judge",
        library: "Library",
        verdicts: "VerdictFile",
        tally: "Tally",
        until_solved: int | None,
    ) -> None:
        self._judge, self._library, self.verdicts = judge, library, verdicts
        self._tally = tally
        self._until_solved = until_solved
        self._named: dict[str, set[str]] = {}
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._unnamed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.judged = 0
        self.from_cache = 0
        self.passed_over = 0

    def judge(self, source: IO[bytes], language: str, stop: threading.Event) -> None:
        """Judge every sample of a stream that is not judged yet.

        Args:
            source: unbuffered; closed here.
            language: of the programs whose lines name none.
            stop: when set, no further sample is read.
        """
        items = self._items(read_lines(source, stop), language)
        for (line, problem, program, _), verdict in self._judge.judge_stream(
            items, lambda tag: tag[3], stop=stop, wanted=self._is_wanted
        ):
            self.verdicts.write(self._record(line, problem, program, verdict))
            self.judged += 1
            self.from_cache += verdict.cached
            if verdict.status == "IE":
                self._fault("infrastructure errors", f"{line.task_id}: {verdict.message}")

    def _items(self, lines: Iterable[bytes], default: str) -> "Iterator[tuple[Problem, str, _Tag]]":
        from hydragen_tree.sample.lines import BrokenLine, read_samples

        for line in read_samples(lines):
            if isinstance(line, BrokenLine):
                self._fault("broken lines", str(line))
                continue
            problem = self._library.find(line)
            if isinstance(problem, str):
                self._fault("samples without a problem", problem)
                continue
            language = self._language(line, default)
            if language is None or not self._can_be_judged(problem):
                continue
            program = line.program(problem.starter)
            if self.verdicts.has(line.task_id, line.sample_index, program):
                continue
            tag = line, problem, program, language
            if self._is_wanted(tag):
                yield problem, program, tag

    def _language(self, line: "SampleLine", default: str) -> str | None:
        """The name of a sample's language; one that cannot be judged here is a fault."""
        from hydragen_tree.judge.languages import find_language

        name = line.record.get("language")
        if name is None:
            return default
        try:
            find_language(name if isinstance(name, str) else json.dumps(name))
        except InputError as error:
            self._fault(
                "samples in a language that cannot be judged",
                f"line {line.line_number}: {error.worded(flag_of)}",
            )
            return None
        return str(name)

    def _can_be_judged(self, problem: "Problem") -> bool:
        """Whether the judge takes the problem; a refusal is a fault of each of its samples."""
        try:
            self._judge.check(problem)
        except InputError as error:
            self._fault("samples of a problem that cannot be judged", error.worded(flag_of))
            return False
        if self._library.changed(problem) and problem.id not in self._changed:
            self._changed.add(problem.id)
            note(f"{problem.source}: has changed since its samples were drawn")
        return True

    def _is_wanted(self, tag: _Tag) -> bool:
        """Whether the sample's problem is not solved yet; asked when it comes, and at its turn."""
        accepted = self.verdicts.accepted.get(tag[0].task_id, 0)
        if self._until_solved is None or accepted < self._until_solved:
            return True
        with self._lock:
            self.passed_over += 1
        return False

    def _record(
        self, line: "SampleLine", problem: "Problem", program: str, verdict: "Verdict"
    ) -> dict[str, Any]:
        isolation = self._judge.isolation
        record = {
            **line.record,
            "task_id": line.task_id,
            "sample_index": line.sample_index,
            "solution": program,
            "passed": verdict.accepted,
            **verdict.to_json(),
            "isolation": {"level": isolation.level, "holds": isolation.holds},
        }
        if problem.difficulty:
            record["difficulty"] = problem.difficulty
        if self._until_solved is not None:
            record["until_solved"] = True
        return record

    def _fault(self, kind: str, message: str) -> None:
        """Count a fault, and name it if it is new and one of the first of its kind."""
        self.faults[kind] += 1
        named, message = self._named.setdefault(kind, set()), one_line(message)
        if message in named:
            return
        if len(named) == _NAMED:
            self._unnamed[kind] += 1
            return
        named.add(message)
        note(message)

    def report(
        self, ks: list[int], summary: Path | None, plot: Path | None, *, quiet: bool
    ) -> None:
        """Write what was asked for, and print the table."""
        from hydragen_tree.passk.plot import plot_curve
        from hydragen_tree.passk.table import render_summary

        result = self._tally.summary(ks)
        if summary is not None:
            record = {
                **result.to_json(),
                "isolation": self._judge.isolation.to_json(),
                "judged": self.judged,
                "from_cache": self.from_cache,
                "passed_over": self.passed_over,
                "faults": dict(self.faults),
            }
            _write(summary, json.dumps(record, indent=1) + "\n")
        if plot is not None:
            plot_curve(result, plot)
        if not quiet and result.problems:
            render_summary(result, console())
        note(self.progress(), quiet=quiet)
        for kind, number in self.faults.items():
            more = self._unnamed[kind]
            note(f"{kind}: {number:,}" + (f", {more:,} of them not named above" if more else ""))

    def progress(self) -> str:
        """How far it has come, in one line."""
        accepted = sum(self.verdicts.accepted.values())
        parts = [f"{count(self.judged, 'sample')} judged", f"{accepted:,} accepted"]
        if self.from_cache:
            parts.append(f"{self.from_cache:,} without running anything")
        earlier = self.verdicts.lines - self.judged
        if earlier:
            parts.append(f"{earlier:,} judged before")
        if self.passed_over:
            parts.append(f"{self.passed_over:,} passed over: their problems were solved")
        return ", ".join(parts)


def open_samples(name: str) -> IO[bytes]:
    """A file of samples, or stdin for `-`; unbuffered, so that nothing is held in a buffer's lock.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if name.endswith(".gz"):
            raise InputError(f"{name}: is compressed: zcat {name} | hydragen-eval -")
        if name != "-":
            return Path(name).open("rb", buffering=0)
        if sys.stdin is None:
            raise InputError("stdin: closed; name a file of samples instead of -")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None


def read_lines(source: IO[bytes], stop: threading.Event) -> Iterator[bytes]:
    """Lines as they arrive; ends at once when `stop` is set, though the writer may never end.

    Args:
        source: unbuffered; closed at the end.
        stop: a line that is not complete by then is left out.
    """
    poll = select.poll()
    poll.register(source, select.POLLIN)
    line = bytearray()
    with source:
        while not stop.is_set():
            if not poll.poll(_GLANCE_MS):
                continue
            chunk = source.read(_CHUNK)
            if not chunk:
                if line:
                    yield bytes(line)
                return
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield bytes(line) + end + b"\n"
                line.clear()
            line += rest


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
