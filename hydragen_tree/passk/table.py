"""The summary of a judged run as a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hydragen_tree.errors import first_of, one_line
from hydragen_tree.judge.verdicts import STATUSES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hydragen_tree.passk.summary import Curve, ProblemSummary, Summary

MOST_PROBLEMS = 60
FEW_PROBLEMS = 10
NARROW = 100  # characters; below, fewer k are shown
SHORT_NAME = 12  # characters of a problem's name that always have room on a line
_COUNTS = ("distinct", "majority")
_TOTALS = ("problems", "samples")
_NONE_RIGHT = "  if none right"


def render_summary(summary: Summary, console: Console) -> None:
    """Print pass@k for the set, by difficulty, by variant and by problem, with what was left out.

    Args:
        summary: of a run, finished or not.
        console: where to print; the judge's is on stderr.
    """
    narrow = console.width < NARROW and not summary.asked
    ks = shown_ks(summary, most=3 if narrow else 5)
    shown = _print_problems(summary, ks, console)
    curves = _curves(summary)
    if curves:
        spread = _print_curves(curves, ks, console)
        shown = [name for name in shown if name in spread or not name.startswith("pass@")]
        shown += [name for name in _TOTALS if name in spread]
    for line in remarks(summary):
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
    asked = (f"pass@{k}" for k in summary.asked)
    wanted = (*asked, *_statuses(summary), *_COUNTS, *(_TOTALS if curves else ()))
    unseen = [name for name in wanted if name not in shown]
    if unseen:
        line = f"no room in every table for {', '.join(unseen)}: see the JSON summary"
        console.print(line, style="dim", highlight=False, markup=False)


def shown_ks(summary: Summary, most: int) -> list[int]:
    """The k that have room: those asked for, or all; the first and the last are among them.

    Args:
        summary: of a run.
        most: of them.
    """
    ks = list(summary.asked) or [e.k for e in summary.overall.estimates]
    if len(ks) <= most:
        return ks
    return [ks[round(i * (len(ks) - 1) / (most - 1))] for i in range(most)]


def _print_problems(summary: Summary, ks: list[int], console: Console) -> list[str]:
    """Print the table of problems with the columns that have room, and say which they are.

    What a reader can do without goes first; the names and the accepted samples never do.
    """
    statuses = _statuses(summary)
    columns = [*(f"pass@{k}" for k in ks), *statuses, *_COUNTS]
    optional = [*_COUNTS[::-1], *(f"pass@{k}" for k in _spare(ks)), *statuses[:0:-1]]
    longest = max([len("problem"), *(len(p.task_id) for p in summary.problems[:MOST_PROBLEMS])])
    while True:
        room = console.width - _width(_problem_table(summary, columns, 0), console)
        if room >= min(longest, SHORT_NAME) or not optional:
            break
        columns.remove(optional.pop(0))
    console.print(_problem_table(summary, columns, max(1, min(longest, room))))
    return columns


def _statuses(summary: Summary) -> list[str]:
    return [status for status in STATUSES if status in summary.verdicts]


def _problem_table(summary: Summary, columns: list[str], name_width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title="By problem", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", overflow="fold", width=name_width)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for problem in summary.problems[:MOST_PROBLEMS]:
        name = Text(one_line(problem.task_id))
        table.add_row(name, *(_cell(problem, heading) for heading in columns))
    left_out = len(summary.problems) - MOST_PROBLEMS
    if left_out > 0:
        table.caption = f"and {left_out} problems more (all of them are in the JSON summary)"
    return table


def _cell(problem: ProblemSummary, heading: str) -> str:
    if heading.startswith("pass@"):
        return _value(problem.curve, int(heading.removeprefix("pass@")))
    if heading == "distinct":
        return str(problem.distinct_programs)
    if heading == "majority":
        return _majority(problem)
    return str(problem.verdicts.get(heading, 0))


def _width(table: Table, console: Console) -> int:
    """Characters that a table needs for all that is in it."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=1000), table).maximum


def _curves(summary: Summary) -> list[tuple[str, Curve]]:
    """The curves worth a row: groups are shown only where there is more than one."""
    rows = [("in all", summary.overall)] if summary.overall.problems else []
    if len(summary.by_difficulty) > 1:
        rows += summary.by_difficulty.items()
    if len(summary.by_variant) > 1:
        rows += [(f"variant {variant}", curve) for variant, curve in summary.by_variant.items()]
    return rows


def _print_curves(curves: list[tuple[str, Curve]], ks: list[int], console: Console) -> list[str]:
    """Print the table of curves with the columns that have room, and say which they are.

    No number is ever cut; where even the last ones have no room beside it, a name is folded.
    """
    columns = [*_TOTALS, *(f"pass@{k}" for k in ks)]
    optional = [*(f"pass@{k}" for k in _spare(ks)), *_TOTALS]
    names = [name for name, _ in curves] + [_NONE_RIGHT] * bool(curves[0][1].rated)
    longest = max(map(len, names))
    while True:
        room = console.width - _width(_curve_table(curves, columns, 0), console)
        if room >= longest or not optional:
            break
        columns.remove(optional.pop(0))
    console.print(_curve_table(curves, columns, max(1, min(longest, room))))
    return columns


def _spare(ks: list[int]) -> list[int]:
    """The k that may be left out, in that order: the first stays, the last goes last."""
    return [*ks[-2:0:-1], *ks[1:][-1:]]


def _curve_table(curves: list[tuple[str, Curve]], columns: list[str], name_width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = "With 95 % intervals"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", width=name_width)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, curve in curves:
        table.add_row(Text(name), *(_curve_cell(curve, heading) for heading in columns))
        if curve.rated and curve is curves[0][1]:
            bounds = (_bound_cell(curve, heading) for heading in columns)
            table.add_row(_NONE_RIGHT, *bounds, style="dim")
    return table


def _curve_cell(curve: Curve, heading: str) -> str:
    if heading in _TOTALS:
        return str(curve.problems if heading == "problems" else curve.samples)
    return _value_with_interval(curve, int(heading.removeprefix("pass@")))


def _bound_cell(curve: Curve, heading: str) -> str:
    if heading in _TOTALS:
        return str(curve.rated) if heading == "problems" else ""
    return _by_false_accepts(curve, int(heading.removeprefix("pass@")))


def _value(curve: Curve, k: int) -> str:
    return next((f"{e.value:.3f}" for e in curve.estimates if e.k == k), "-")


def _value_with_interval(curve: Curve, k: int) -> str:
    found = next((e for e in curve.estimates if e.k == k), None)
    return f"{found.value:.3f}\n{found.low:.3f}-{found.high:.3f}" if found else "-"


def _by_false_accepts(curve: Curve, k: int) -> str:
    found = next((e.by_false_accepts for e in curve.estimates if e.k == k), None)
    return f"<= {found:.3f}" if found is not None else "-"


def _majority(problem: ProblemSummary) -> str:
    return f"{problem.majority} ({problem.majority_verdict})" if problem.majority_verdict else "-"


def remarks(summary: Summary) -> list[str]:
    """What a reader must know: refusals, problems left out, samples the judge could not judge."""
    found = [f"pass@{k} is refused: {why}" for k, why in summary.overall.refused]
    problems = summary.overall.problems
    if problems == 1:
        [of] = [p for p in summary.problems if p.curve.problems]
        kind = "exact for its rule" if of.stopped else "Clopper and Pearson's"
        found.append(f"95 % interval: {kind}, for this problem alone")
    elif problems:
        few = f"; {problems} are few" if problems < FEW_PROBLEMS else ""
        found.append(f"95 % intervals: Gaffke's, for the mean over all problems like these{few}")
    if rated := summary.overall.rated:
        names = f"{rated} of {problems} problems state a rate"
        found.append(f"if none right: by false accepts alone, at most; {names}")
    found += _rules(summary)
    stopped = [p.task_id for p in summary.problems if p.until_solved]
    if stopped:
        named = first_of(stopped, 5)
        found.append(f"left out of the estimates, judged only until solved: {named}")
    unjudged = [p.task_id for p in summary.problems if not p.samples]
    if unjudged:
        named = first_of(unjudged, 5)
        found.append(f"left out of the estimates, nothing could be judged: {named}")
    if errors := summary.verdicts.get("IE", 0):
        found.append(f"{errors} samples met an infrastructure error and count as not drawn")
    return found


def _rules(summary: Summary) -> Iterator[str]:
    """Which problems were drawn by which rule, and which samples of theirs count."""
    by_rule: dict[str, list[str]] = {}
    for problem in summary.problems:
        if problem.stopped is not None:
            rule = problem.stopped.rule
            if rule.until_solved is not None:
                text = f"drawn in rounds until {rule.until_solved} right: pass@k by that rule"
            elif rule.until_width is not None:
                width = f"pass@1 is known to {rule.until_width:g}"
                text = f"drawn in rounds until {width}: pass@k by that rule"
            else:
                text = "with samples missing: those before the first of these count"
            by_rule.setdefault(text, []).append(problem.task_id)
    for text, names in by_rule.items():
        yield f"{len(names):,} of {len(summary.problems):,} problems {text}"
