"""`hydragen report`: a run as one page of HTML."""

from pathlib import Path
from typing import Annotated

import typer

from hydragen_cli import arguments
from hydragen_cli.console import note
from hydragen_cli.options import config_files
from hydragen_cli.outputs import check_outputs, refuse_existing
from hydragen_cli.show import Run
from hydragen_tree.units import size


def report(
    run: Run,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The page to write."),
    ] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> None:
    """Write a run as one page: pass@k, problems, the trie of each one's programs, time, settings.

    The page needs no network and no other file. Samples need not be judged, nor complete.
    """
    from hydragen_tree.results.report import write_report
    from hydragen_tree.results.results import Results

    results = Results.read(run)
    files = results.files
    read = [("the configuration", file) for file in config_files(config)]
    check_outputs({"output": output}, [*read, *files.named()])
    refuse_existing(output, force)
    if files.passed_over:
        note(f"{files.passed_over}: holds verdicts of other samples; they are left out")
    write_report(results, output)
    if results.broken:
        first, more = results.broken[0], len(results.broken) - 1
        note(f"{first}" + (f" (and {more:,} lines more that are no samples)" if more else ""))
    if output.is_file():
        note(f"{output}: written, {size(output.stat().st_size)}", quiet=quiet)
