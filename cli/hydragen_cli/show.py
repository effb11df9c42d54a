"""`hydragen show`: a run, one of its problems, or one of its samples."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydragen_cli import arguments
from hydragen_cli.console import console, note
from hydragen_cli.options import flag_of, parse_ks
from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from hydragen_tree.results.judged_sample import JudgedSample
    from hydragen_tree.results.overview import Overview
    from hydragen_tree.results.programs import DistinctProgram
    from hydragen_tree.results.results import Results

_WHICH = "Which"
_SOLVED, _FAILING = "solved", "failing"

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A samples file, its verdicts file, or the folder of both (samples.jsonl, "
        "verdicts.jsonl).",
    ),
]
KeyNumbers = Annotated[
    str | None, typer.Option("-k", metavar="K,K,...", help="Show these k of pass@k.")
]


def show(
    run: Run,
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", show_default=False, help="One problem's id.")
    ] = None,
    index: Annotated[
        int | None,
        typer.Argument(metavar="[INDEX]", show_default=False, help="One of its samples.", min=0),
    ] = None,
    solved: Annotated[
        bool,
        typer.Option(
            "--solved", rich_help_panel=_WHICH, help="Only problems, or programs, that are solved."
        ),
    ] = False,
    failing: Annotated[
        bool,
        typer.Option(
            "--failing", rich_help_panel=_WHICH, help="Only problems, or programs, that are not."
        ),
    ] = False,
    top: Annotated[
        int,
        typer.Option(
            "--top",
            metavar="N",
            min=0,
            rich_help_panel=_WHICH,
            help="Programs of a problem that are shown, the most frequent first; 0 shows all.",
        ),
    ] = 5,
    k: KeyNumbers = None,
    problems: Annotated[
        list[str] | None,
        typer.Option(
            "--problems",
            metavar="PATH",
            help="Problem files, for failing tests; may be repeated. Default: what the samples or "
            "the manifest beside them name.",
        ),
    ] = None,
    as_json: arguments.AsJson = False,
    config: arguments.Config = None,
) -> None:
    """Look at a run: settings, counts and pass@k; the programs of a TASK; one sample and its test.

    Samples need not be judged, nor complete: what is there is shown.
    """
    ks = parse_ks(k)
    which = _which(solved, failing, index)

    from hydragen_tree.results.results import Results

    results = Results.read(run, problems or ())
    if results.files.passed_over:
        note(f"{results.files.passed_over}: holds verdicts of other samples; they are left out")
    if task is None:
        _show_run(results, which, ks, as_json)
    elif index is None:
        _show_task(results, task, which, ks, top, as_json)
    else:
        _show_sample(results, results.sample(task, index), as_json)
    if results.broken:
        first, more = results.broken[0], len(results.broken) - 1
        note(f"{first}" + (f" (and {more:,} lines more that are no samples)" if more else ""))


def _which(solved: bool, failing: bool, index: int | None) -> str | None:
    if solved and failing:
        raise InputError("is the opposite of --failing; choose one", setting="solved")
    if index is not None and (solved or failing):
        raise InputError(
            "chooses among problems or programs; leave it out for one sample",
            setting="solved" if solved else "failing",
        )
    return _SOLVED if solved else _FAILING if failing else None


def _require_verdicts(results: "Results", which: str | None, judged: int) -> None:
    if which is not None and not judged:
        raise InputError(
            f"{results.files.name}: nothing is judged yet; hydragen-eval {results.files.name} -o "
            "verdicts.jsonl judges it",
            setting=which,
        )


def _show_run(results: "Results", which: str | None, ks: Sequence[int], as_json: bool) -> None:
    from hydragen_tree.results.overview import Overview

    overview = Overview.of(results.samples(), ks)
    _require_verdicts(results, which, overview.judged)
    if which is not None:
        overview = _only(overview, solved=which == _SOLVED)
    if as_json:
        print_json(_run_record(results, overview))
        return
    from hydragen_cli.show_text import print_run

    print_run(results, overview, terminal())


def _only(overview: "Overview", *, solved: bool) -> "Overview":
    """The tables of the solved problems, or of the others; pass@k stays that of all."""
    assert overview.summary is not None
    kept = tuple(task for task in overview.tasks if (task.accepted > 0) == solved)
    names = {task.task_id for task in kept}
    listed = tuple(p for p in overview.summary.problems if p.task_id in names)
    return replace(overview, listed=kept, summary=replace(overview.summary, problems=listed))


def _run_record(results: "Results", overview: "Overview") -> dict[str, Any]:
    manifest = results.manifest
    return {
        "run": results.files.to_json(),
        "n": manifest.n if manifest else None,
        "model": dict(manifest.model) if manifest else None,
        "settings": dict(manifest.settings) if manifest else None,
        "ends": dict(manifest.ends) if manifest else None,
        "sessions": [dict(session) for session in manifest.sessions] if manifest else [],
        "counts": overview.to_json(),
        "problems": [task.to_json() for task in overview.listed],
        "summary": overview.summary.to_json() if overview.summary else None,
        "broken_lines": len(results.broken),
    }


def _show_task(
    results: "Results",
    task: str,
    which: str | None,
    ks: Sequence[int],
    top: int,
    as_json: bool,
) -> None:
    from hydragen_tree.results.overview import Overview
    from hydragen_tree.results.programs import distinct_programs

    samples = results.of_task(task)
    overview = Overview.of(samples, ks)
    _require_verdicts(results, which, overview.judged)
    programs = distinct_programs(samples)
    if which is not None:
        programs = [p for p in programs if p.is_accepted == (which == _SOLVED)]
    if as_json:
        print_json(_task_record(results, overview, programs))
        return
    from hydragen_cli.show_text import print_task

    print_task(overview, programs, top, terminal())


def _task_record(
    results: "Results", overview: "Overview", programs: "Sequence[DistinctProgram]"
) -> dict[str, Any]:
    (counts,) = overview.tasks
    summary = overview.summary.to_json() if overview.summary else None
    return {
        "run": results.files.to_json(),
        **counts.to_json(),
        "pass_at_k": summary["overall"]["estimates"] if summary else [],
        "programs": [program.to_json() for program in programs],
    }


def _show_sample(results: "Results", judged: "JudgedSample", as_json: bool) -> None:
    test = results.failing_test(judged)
    why = test.worded(flag_of) if isinstance(test, InputError) else None
    failing = None if isinstance(test, InputError) else test
    if as_json:
        record = {
            "run": results.files.to_json(),
            "task_id": judged.line.task_id,
            "sample_index": judged.index,
            "language": judged.language,
            "program": judged.program,
            "sample": judged.line.record,
            "verdict": judged.verdict.to_json() if judged.verdict else None,
            "failing_test": failing.to_json() if failing else None,
            "why_no_test": why,
        }
        print_json(record)
        return
    from hydragen_cli.show_text import print_sample

    print_sample(judged, failing, why, terminal())


def print_json(record: dict[str, Any]) -> None:
    """A record on stdout, for programs."""
    print(json.dumps(record, indent=1))


def terminal() -> "Console":
    """Stdout, which is what these commands are for."""
    return console(stdout=True)
