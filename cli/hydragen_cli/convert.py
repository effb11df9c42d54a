"""`hydragen import` and `hydragen export`: other people's problems in, our samples out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from hydragen_cli import arguments
from hydragen_cli.console import count, note
from hydragen_cli.options import config_files
from hydragen_cli.outputs import (
    check_outputs,
    file_or_stdout,
    open_output,
    refuse_existing,
    what_it_covers,
)
from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.sample.lines import SampleLine

PARTIAL = 3

Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]


def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Problem packages (Kattis/ICPC; directories or .zip), or files of HumanEval, "
            "MBPP, evalplus, APPS, CodeContests, LiveCodeBench (.json, .jsonl, .gz).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Where the problem files go."),
    ],
    force: Force = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Turn other people's problems into YAML problem files, one a problem.

    What cannot be judged rightly is refused by name; the rest is written, and the exit code is 3.
    """
    from hydragen_tree.problem.importing import (
        Refused,
        problem_paths,
        read_sources,
        sources_in,
        write_problem,
    )

    read = [("a source", part) for source in sources for part in sources_in(source)]
    written: dict[Path, str] = {}
    refused: list[str] = []
    for found in read_sources(sources):
        if not isinstance(found, Refused):
            paths = problem_paths(found, output)
            sources_lost = [path for path in paths if what_it_covers(path, read)]
            if paths[0] in written:
                found = Refused(found.where, f"{paths[0]} already holds {written[paths[0]]}")
            elif sources_lost:
                found = Refused(found.where, f"{sources_lost[0]} is a source (--output)")
        if isinstance(found, Refused):
            refused.append(str(found))
            continue
        written[write_problem(found, output, force=force)] = found.where
        for remark in found.notes:
            note(f"{found.where}/{remark}", quiet=quiet)
    if not written:
        why = "every problem was refused" if refused else "there is no problem in it"
        raise InputError("\n".join([*refused, f"nothing was imported: {why}"]))
    for message in refused:
        note(message)
    rest = f"; {count(len(refused), 'problem')} refused" if refused else ""
    note(f"{output}: {count(len(written), 'problem file')} written{rest}", quiet=quiet)
    return PARTIAL if refused else 0


def export(
    samples: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLES",
            help="A file of samples; - reads stdin. For a log, a run: samples, verdicts or folder.",
        ),
    ],
    format_: Annotated[
        Literal[
            "human-eval",
            "evalplus",
            "apps",
            "openai-batch",
            "openai-batch-completions",
            "inspect",
            "lm-eval",
        ],
        typer.Option("--format", help="What to write; logs (inspect, lm-eval) hold verdicts too."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to a file, not to stdout; a log in a directory is named as its tool does.",
        ),
    ] = None,
    force: Force = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Write samples as human-eval, evalplus, APPS, OpenAI batch output, inspect's or lm-eval's log.

    Lines that are no samples are named and left out, and the exit code is 3.
    """
    from hydragen_tree.sample.export import FORMATS, export_samples
    from hydragen_tree.sample.manifest import Manifest, manifest_path

    output = file_or_stdout(output)
    read = [("the configuration", file) for file in config_files(config)]
    if format_ not in FORMATS:
        return _export_log(samples, format_, output, read, force=force, quiet=quiet)
    if samples != "-":
        path = Path(samples)
        read += [
            ("the file of the samples", path),
            ("the manifest of the samples", manifest_path(path)),
        ]
    check_outputs({"output": output}, read)
    refuse_existing(output, force)
    beside = None if samples == "-" else manifest_path(Path(samples))
    manifest = Manifest.read(beside) if beside is not None and beside.is_file() else None
    reader = _Reader()
    with _source(samples) as source, open_output(output) as target:
        for text in export_samples(reader.read(source), format_, manifest):
            target.write(text.encode())
    broken = f"; {count(reader.broken, 'line')} left out" if reader.broken else ""
    note(f"{count(reader.good, 'sample')} written{broken}", quiet=quiet)
    return PARTIAL if reader.broken else 0


def _export_log(
    run: str,
    format_: str,
    output: Path | None,
    read: list[tuple[str, Path]],
    *,
    force: bool,
    quiet: bool,
) -> int:
    """Writes a run, with what the judge said of it."""
    if run == "-":
        raise InputError("a log is of a run; name its samples, its verdicts or its folder")
    from hydragen_tree.results.logs import check_name, export_log, name_of_log
    from hydragen_tree.results.results import Results

    results = Results.read(run)
    if output is not None and output.is_dir():
        output /= name_of_log(results, format_)
    check_name(output, format_)
    check_outputs({"output": output}, [*read, *results.files.named()])
    refuse_existing(output, force)
    with open_output(output) as target:
        for text in export_log(results, format_):
            target.write(text.encode())
    if broken := results.broken:
        note(f"{broken[0]}; {count(len(broken), 'line')} left out")
    where = "" if output is None else f", to {output}"
    note(f"{results.files.name}: written as {format_}{where}", quiet=quiet)
    return PARTIAL if broken else 0


class _Reader:
    """Passes samples on, names broken lines, and counts both."""

    def __init__(self) -> None:
        self.good = 0
        self.broken = 0

    def read(self, stream: IO[bytes]) -> "Iterator[SampleLine]":
        from hydragen_tree.sample.lines import BrokenLine, read_samples

        for item in read_samples(stream):
            if isinstance(item, BrokenLine):
                self.broken += 1
                note(str(item))
            else:
                self.good += 1
                yield item


@contextmanager
def _source(path: str) -> "Iterator[IO[bytes]]":
    if path == "-":
        yield sys.stdin.buffer
        return
    from hydragen_tree.sample.foreign_files import open_samples

    try:
        file = open_samples(Path(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield file
