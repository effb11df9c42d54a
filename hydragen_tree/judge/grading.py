"""One run of the judge over a stream of samples, and what became of each of them."""

import json
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Protocol

from hydragen_tree.errors import InputError, one_line
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.languages import find_language
from hydragen_tree.judge.verdict_file import VerdictFile, program_digest
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.problem.types import Problem
from hydragen_tree.sample.lines import BrokenLine, SampleLine, read_samples

_NAMED = 10  # faults of one kind that are named; the rest is counted
_POLL_MS = 200
_CHUNK = 1 << 16

_Tag = tuple[SampleLine, Problem, str, str]  # ..., program, language


class Problems(Protocol):
    """Finds the problem of a sample: a `ProblemIndex`, for one."""

    def find(self, line: SampleLine, /) -> Problem | InputError:
        """The problem of a sample, or why there is none."""

    def changed(self, problem: Problem, /) -> bool:
        """Whether a problem is not as it was when the samples were drawn."""


class Grading:
    """Samples on their way through the judge, and what became of them.

    Args:
        judge: judges them.
        problems: finds the problem of each.
        verdicts: where the verdicts go; what stands in it is not judged again.
        until_solved: judge no more samples of a problem after so many are accepted; None: all.
        say: told of faults as they are met, a line each.
        worded: the text of an error, where settings have other names.
        stopping: the rule by which the samples are drawn, for every verdict's line.

    Attributes:
        faults: kind of fault to how many samples met it.
        unnamed: kind of fault to how many messages were not passed to `say`.
        judged: samples that got a verdict.
        from_cache: those of them for which nothing was run.
        passed_over: samples of problems that were solved by then.
        doubled: lines that repeat an earlier one; they are left out.
    """

    def __init__(
        self,
        judge: Judge,
        problems: Problems,
        verdicts: VerdictFile,
        until_solved: int | None,
        say: Callable[[str], None],
        worded: Callable[[InputError], str] = str,
        stopping: Mapping[str, Any] | None = None,
    ) -> None:
        self.judge, self._problems, self.verdicts = judge, problems, verdicts
        self._until_solved, self._say, self._worded = until_solved, say, worded
        self._stopping = stopping
        self._named: dict[str, set[str]] = {}
        self._refusals: dict[int, InputError | None] = {}  # by the identity of the problem
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], bytes] = {}
        self.unnamed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.judged = 0
        self.from_cache = 0
        self.passed_over = 0
        self.doubled = 0

    def run(
        self, sources: Mapping[str, Iterable[bytes]], language: str, stop: threading.Event
    ) -> None:
        """Judge every sample that is not judged yet, file by file.

        Args:
            sources: by name, the lines of a file of samples, as they come; read in a thread.
            language: of the programs whose lines name none.
            stop: when set, no further sample is judged.
        """
        items = self._items(_read(sources), language)
        for (line, problem, program, _), verdict in self.judge.judge_stream(
            items, lambda tag: tag[3], stop=stop, wanted=self._is_wanted
        ):
            self.verdicts.write(self._record(line, problem, program, verdict))
            self.judged += 1
            self.from_cache += verdict.cached
            if verdict.status == "IE":
                self._fault("infrastructure errors", f"{line.task_id}: {verdict.message}")
        self.verdicts.finish()

    def figures(self) -> dict[str, Any]:
        """What the judge adds to a summary, as plain JSON types."""
        return {
            "isolation": self.judge.isolation.to_json(),
            "judged": self.judged,
            "from_cache": self.from_cache,
            "passed_over": self.passed_over,
            "doubled": self.doubled,
            "faults": dict(self.faults),
        }

    def _items(
        self, lines: Iterable[SampleLine | BrokenLine], default: str
    ) -> Iterator[tuple[Problem, str, _Tag]]:
        for line in lines:
            if isinstance(line, BrokenLine):
                self._fault("broken lines", str(line))
                continue
            problem = self._problems.find(line)
            if isinstance(problem, InputError):
                self._fault("samples without a problem", self._worded(problem))
                continue
            language = self._language(line, default)
            if language is None or not self._can_be_judged(problem):
                continue
            program = line.program(problem.starter)
            if self._is_doubled(line, program):
                continue
            if self.verdicts.has(line.task_id, line.sample_index, program):
                continue
            tag = line, problem, program, language
            if self._is_wanted(tag):
                yield problem, program, tag

    def _is_doubled(self, line: SampleLine, program: str) -> bool:
        """Whether an earlier line was the same sample: it is judged, and counts, once."""
        key, digest = (line.task_id, line.sample_index), program_digest(program)
        if key not in self._seen:
            self._seen[key] = digest
            return False
        if self._seen[key] == digest:
            self.doubled += 1
        else:
            self._fault(
                "lines that repeat the index of another program",
                f"{line.where}: sample {line.sample_index} of {line.task_id!r} came "
                "before with another program, which was judged",
            )
        return True

    def _language(self, line: SampleLine, default: str) -> str | None:
        """The name of a sample's language; one that cannot be judged here is a fault."""
        name = line.record.get("language")
        if name is None:
            return default
        try:
            find_language(name if isinstance(name, str) else json.dumps(name))
        except InputError as error:
            self._fault(
                "samples in a language that cannot be judged",
                f"{line.where}: {self._worded(error)}",
            )
            return None
        return str(name)

    def _can_be_judged(self, problem: Problem) -> bool:
        """Whether the judge takes the problem; a refusal is a fault of each of its samples."""
        if id(problem) not in self._refusals:
            self._refusals[id(problem)] = self._look_at(problem)
        refusal = self._refusals[id(problem)]
        if refusal is not None:
            self._fault("samples of a problem that cannot be judged", self._worded(refusal))
        return refusal is None

    def _look_at(self, problem: Problem) -> InputError | None:
        """Why the judge refuses a problem, if it does. Asked once a problem: all of it is read."""
        try:
            self.judge.require_judgeable(problem)
        except InputError as error:
            return error
        if self._problems.changed(problem):
            self._say(f"{problem.source}: has changed since its samples were drawn")
        return None

    def _is_wanted(self, tag: _Tag) -> bool:
        """Whether the sample's problem is not solved yet; asked when it comes, and at its turn."""
        accepted = self.verdicts.accepted.get(tag[0].task_id, 0)
        if self._until_solved is None or accepted < self._until_solved:
            return True
        with self._lock:
            self.passed_over += 1
        return False

    def _record(
        self, line: SampleLine, problem: Problem, program: str, verdict: Verdict
    ) -> dict[str, Any]:
        isolation = self.judge.isolation
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
        if problem.false_accept_rate is not None:
            record["false_accept_rate"] = problem.false_accept_rate
        if self._until_solved is not None:
            record["until_solved"] = True
        if self._stopping is not None:
            record["stopping"] = dict(self._stopping)
        return record

    def _fault(self, kind: str, message: str) -> None:
        """Count a fault, and name it if it is new and one of the first of its kind."""
        self.faults[kind] += 1
        named, message = self._named.setdefault(kind, set()), one_line(message)
        if message in named:
            return
        if len(named) == _NAMED:
            self.unnamed[kind] += 1
            return
        named.add(message)
        self._say(message)


def _read(sources: Mapping[str, Iterable[bytes]]) -> Iterator[SampleLine | BrokenLine]:
    for name, lines in sources.items():
        yield from read_samples(lines, name if len(sources) > 1 else None)


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
            if not poll.poll(_POLL_MS):
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
