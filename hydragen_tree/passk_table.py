"""The summary of a judged run as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hydragen_tree.passk import Curve, ProblemSummary, Summary

VERDICTS = ("AC", "WA", "TLE", "MLE", "OLE", "RE", "CE", "IE")
MOST_PROBLEMS = 60
FEW_PROBLEMS = 10
NARROW = 100  # characters; below, fewer k are shown


def render_summary(summary: Summary, console: Console) -> None:
    """Print pass@k for the set, by difficulty, by variant and by problem, with what was left out.

    Args:
        summary: of a run, finished or not.
        console: where to print; the judge's is on stderr.
    """
    ks = _columns(summary, most=3 if console.width < NARROW else 5)
    console.print(_problem_table(summary, ks))
    curves = _curves(summary)
    if curves:
        console.print(_curve_table(curves, ks))
    for line in _remarks(summary):
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def _columns(summary: Summary, most: int) -> list[int]:
    """The k shown: those asked for, or all; at most `most`, the first and last among them."""
    ks = list(summary.asked) or [e.k for e in summary.overall.estimates]
    if len(ks) <= most:
        return ks
    return [ks[round(i * (len(ks) - 1) / (most - 1))] for i in range(most)]


def _problem_table(summary: Summary, ks: list[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    statuses = [s for s in VERDICTS if s in summary.verdicts]
    table = Table(title="By problem", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", overflow="fold")
    for heading in (*(f"pass@{k}" for k in ks), *statuses, "distinct", "majority"):
        table.add_column(heading, justify="right", no_wrap=True)
    for problem in summary.problems[:MOST_PROBLEMS]:
        table.add_row(
            problem.task_id,
            *(_value(problem.curve, k) for k in ks),
            *(str(problem.verdicts.get(status, 0)) for status in statuses),
            str(problem.distinct_programs),
            _majority(problem),
        )
    left_out = len(summary.problems) - MOST_PROBLEMS
    if left_out > 0:
        table.caption = f"and {left_out} problems more (all of them are in the JSON summary)"
    return table


def _curves(summary: Summary) -> list[tuple[str, Curve]]:
    """The curves worth a row: groups are shown only where there is more than one."""
    rows = [("in all", summary.overall)] if summary.overall.problems else []
    if len(summary.by_difficulty) > 1:
        rows += summary.by_difficulty.items()
    if len(summary.by_variant) > 1:
        rows += [(f"variant {variant}", curve) for variant, curve in summary.by_variant.items()]
    return rows


def _curve_table(curves: list[tuple[str, Curve]], ks: list[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = "With 95 % intervals"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("problems", "samples", *(f"pass@{k}" for k in ks)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, curve in curves:
        cells = (_value_with_interval(curve, k) for k in ks)
        table.add_row(name, str(curve.problems), str(curve.samples), *cells)
    return table


def _value(curve: Curve, k: int) -> str:
    return next((f"{e.value:.3f}" for e in curve.estimates if e.k == k), "-")


def _value_with_interval(curve: Curve, k: int) -> str:
    found = next((e for e in curve.estimates if e.k == k), None)
    return f"{found.value:.3f}\n{found.low:.3f}-{found.high:.3f}" if found else "-"


def _majority(problem: ProblemSummary) -> str:
    return f"{problem.majority} ({problem.majority_verdict})" if problem.majority_verdict else "-"


def _remarks(summary: Summary) -> list[str]:
    """What a reader must know: refusals, problems left out, samples the judge could not judge."""
    remarks = [f"pass@{k} is refused: {why}" for k, why in summary.overall.refused]
    if 2 <= summary.overall.problems < FEW_PROBLEMS:
        remarks.append(
            f"{summary.overall.problems} problems are few: the interval over them is rough"
        )
    stopped = [p.task_id for p in summary.problems if p.until_solved]
    if stopped:
        remarks.append(f"left out of the estimates, judged only until solved: {_names(stopped)}")
    unjudged = [p.task_id for p in summary.problems if not p.samples]
    if unjudged:
        remarks.append(f"left out of the estimates, nothing could be judged: {_names(unjudged)}")
    if errors := summary.verdicts.get("IE", 0):
        remarks.append(f"{errors} samples met an infrastructure error and count as not drawn")
    return remarks


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
