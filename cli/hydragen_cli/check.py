"""`hydragen check`: are these problems fit to grade with?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydragen_cli import arguments, judging
from hydragen_cli.console import console, count, note
from hydragen_cli.judging import open_judge
from hydragen_tree.errors import InputError, OutputError, one_line
from hydragen_tree.files import write_text

if TYPE_CHECKING:
    from hydragen_tree.judge.self_check import SelfCheck

_OUTPUT = "Output"


def check(
    problems: Annotated[
        list[str],
        typer.Argument(metavar="PROBLEM...", help="Problem files, directories, packages or globs."),
    ],
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure what time limit suits Python: twice the time of the slowest accepted "
            "program; report problems that no Python program solves in time.",
        ),
    ] = False,
    write: Annotated[
        bool,
        typer.Option("--write", help="With --calibrate: put that limit into the problem files."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print a JSON line a problem.")
    ] = False,
    workers: judging.Workers = None,
    sandbox: judging.Sandbox = "auto",
    unsandboxed: judging.Unsandboxed = False,
    python: judging.Python = None,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Check problems: right programs must be accepted, wrong ones rejected, as their files say.

    Exit code 1 if grading with any of them could not be trusted, 2 if any cannot be read or judged.
    """
    from hydragen_tree.judge.self_check import check_problems
    from hydragen_tree.problem.reading import load_valid_problems

    if write and not calibrate:
        raise InputError("writes what --calibrate measures; give both", setting="write")
    loaded, refused = load_valid_problems(problems)
    if not loaded:
        raise InputError("\n".join(refused) or "no problems to check")
    for message in refused:
        note(message)
    done: list[SelfCheck] = []
    with open_judge(
        workers=workers,
        sandbox=sandbox,
        unsandboxed=unsandboxed,
        cache=False,  # a check with old verdicts would check nothing
        python=python,
        quiet=quiet,
    ) as judge:
        for self_check in check_problems(judge, loaded, calibrate=calibrate):
            if as_json:
                print(json.dumps(self_check.to_json()), flush=True)
            if self_check.fault:  # which names the problem's file itself
                refused.append(self_check.fault)
                note(one_line(self_check.fault))
                continue
            done.append(self_check)
            for fault in self_check.faults():
                note(f"{self_check.problem.source or self_check.problem.id}: {one_line(fault)}")
            if self_check.limit_rule is not None and not calibrate:
                note(_about_limit(self_check), quiet=quiet)
            for skipped in self_check.skipped:
                note(
                    f"{self_check.problem.source or self_check.problem.id}: {skipped}", quiet=quiet
                )
            if write:
                _write_limit(self_check)
    place = {problem.id: index for index, problem in enumerate(loaded)}
    done.sort(key=lambda self_check: place[self_check.problem.id])
    if done and not quiet and not as_json:
        _print_table(done, calibrate=calibrate)
    bad = sum(not self_check.good for self_check in done)
    rest = f", {bad:,} not fit to grade with" if bad else ", all fit to grade with" if done else ""
    rest += f"; {count(len(refused), 'problem')} refused" if refused else ""
    note(f"{count(len(done), 'problem')} checked{rest}", quiet=quiet)
    return 2 if refused else 1 if bad else 0


def _about_limit(self_check: "SelfCheck") -> str:
    """What a package without a time limit is checked with, and what it would be graded with."""
    from hydragen_tree.problem.types import Limits

    checked, graded = self_check.problem.limits.time_s, Limits().time_s
    rule = self_check.limit_rule
    assert rule is not None
    return (
        f"{self_check.problem.source}: no time limit: checked with {checked:g} s (by its accepted "
        f"programs and its time_multiplier of {rule.multiplier:g}), graded with {graded:g} s; "
        "--calibrate proposes one for Python"
    )


def _write_limit(self_check: "SelfCheck") -> None:
    """Put the limit that suits Python into the problem's own file."""
    from hydragen_tree.problem.formats.kattis import package_of
    from hydragen_tree.problem.writing import with_time_limit

    suggested, problem = self_check.suggested_s, self_check.problem
    if suggested is None or suggested == problem.limits.time_s:
        return
    path = Path(problem.source)
    if package_of(path) is not None or not path.is_file():
        note(f"{problem.source}: not a problem file of ours, so its limit stays; `hydragen import`")
        return
    try:
        write_text(path, with_time_limit(path.read_bytes().decode(), suggested))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    note(f"{path}: limits.time_s: {problem.limits.time_s:g} is now {suggested:g}")


def _print_table(self_checks: "list[SelfCheck]", *, calibrate: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", overflow="fold")
    headings = ["accepted", "rejected", "slowest accepted", "limit"]
    for heading in headings + (["suggested"] if calibrate else []):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for self_check in self_checks:
        right = [trial for trial in self_check.trials if trial.expected == "AC"]
        wrong = [trial for trial in self_check.trials if trial.expected != "AC"]
        cells = [
            f"{sum(t.verdict.accepted for t in right)}/{len(right)}",
            f"{sum(t.good for t in wrong)}/{len(wrong)}",
            _seconds(self_check.slowest_s),
            _seconds(self_check.problem.limits.time_s),
        ]
        cells += [_seconds(self_check.suggested_s)] if calibrate else []
        table.add_row(self_check.problem.id, *cells, "" if self_check.good else "NOT FIT")
    console().print(table)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
