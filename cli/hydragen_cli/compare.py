"""`hydragen compare`: two runs side by side."""

from typing import TYPE_CHECKING, Annotated

import typer

from hydragen_cli import arguments
from hydragen_cli.console import count, note, show
from hydragen_cli.options import parse_ks
from hydragen_cli.show import KeyNumbers, print_json, terminal
from hydragen_tree.errors import first_of, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hydragen_tree.passk.difference import Interval
    from hydragen_tree.results.comparison import Comparison
    from hydragen_tree.results.overview import Overview
    from hydragen_tree.results.results import Results

_MOST_PROBLEMS = 20
_MOST_NAMED = 6
_MOST_KS = 5
_INTERVALS = (
    "95 % intervals, paired by problem. These problems: analytic (MOVER), for the noise of their "
    "samples alone. Problems like these: bootstrap of their differences (Gaffke's), for all "
    "problems of which these were drawn"
)

_RUN = "A samples file, its verdicts file, or the folder of both."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_RUN)],
    b: Annotated[str, typer.Argument(metavar="B", help=_RUN)],
    k: KeyNumbers = None,
    as_json: arguments.AsJson = False,
    config: arguments.Config = None,
) -> None:
    """Compare two runs: pass@k by problem, settings that differ, speed, and where samples part.

    Differences are B's from A's. Runs that are not judged are compared in all else.
    """
    ks = parse_ks(k)

    from hydragen_tree.results.comparison import compare_runs
    from hydragen_tree.results.results import Results

    first, second = Results.read(a), Results.read(b)
    for results in (first, second):
        if passed_over := results.files.passed_over:
            note(f"{passed_over}: holds verdicts of other samples; they are left out")
    found = compare_runs(first, second, ks)
    for results in (first, second):
        if results.broken:
            note(results.broken[0])
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, terminal())


def _print(found: "Comparison", console: "Console") -> None:
    runs = zip("AB", (found.first, found.second), found.overviews, strict=True)
    show(console, [(name, _describe(results, overview)) for name, results, overview in runs])
    _print_settings(found, console)
    if found.pass_at_k:
        _print_pass_at_k(found, console)
        _print_problems(found, console)
    else:
        _say(console, "\nno problem is judged in both: pass@k is not compared")
    for remark in _remarks(found):
        _say(console, remark, style="dim")
    show(console, [("speed", _speed(found)), ("samples", _partings(found))])


def _describe(results: "Results", overview: "Overview") -> str:
    from hydragen_cli.show_text import describe_model

    text = str(results.files.name)
    if results.manifest is not None:
        text += f": {describe_model(results.manifest)}"
    text += f"; {count(overview.samples, 'sample')} of {count(len(overview.tasks), 'problem')}"
    if not overview.judged:
        return f"{text}, not judged"
    return f"{text}, {overview.accepted:,} accepted, {overview.solved} solved"


def _print_settings(found: "Comparison", console: "Console") -> None:
    settings = found.settings
    if settings is None:
        _say(console, "\nsettings are not known: there is no manifest beside one of the runs")
        return
    if not settings.settings:
        _say(console, "\nsettings and versions are the same")
    else:
        from hydragen_cli.show_text import printable

        table = _table("Settings that differ", ["A", "B"], first="setting")
        for name, was, now in settings.settings:
            table.add_row(name, printable(was), printable(now))
        console.print(table)
    for what, names in (
        ("are other problems by now", settings.problems),
        ("were asked by other prompts", settings.prompts),
    ):
        if names:
            _say(console, f"{first_of(names, _MOST_NAMED)}: {what}", style="yellow")


def _print_pass_at_k(found: "Comparison", console: "Console") -> None:
    ks = [difference.k for difference in found.pass_at_k]
    asked = set(found.overviews[0].summary.asked) if found.overviews[0].summary else set()
    if len(ks) > _MOST_KS:
        last = len(ks) - 1
        ks = [k for k in ks if k in asked] or [
            ks[round(i * last / (_MOST_KS - 1))] for i in range(_MOST_KS)
        ]
    title = f"pass@k over {count(len(found.problems), 'problem')} judged in both"
    columns = ["A", "B", "B - A", "these problems"]
    if len(found.problems) > 1:
        columns.append("problems like these")
    table = _table(title, columns, first="k")
    for difference in found.pass_at_k:
        if difference.k not in ks:
            continue
        cells = [f"{each:.3f}" for each in (difference.first, difference.second)]
        cells.append(_signed(difference.value))
        intervals = (difference.these, difference.alike)
        cells += [_interval(interval) for interval in intervals if interval is not None]
        table.add_row(str(difference.k), *cells)
    console.print(table)
    _say(console, _INTERVALS, style="dim")


def _print_problems(found: "Comparison", console: "Console") -> None:
    won, lost = found.won, found.lost
    equal = len(found.problems) - len(won) - len(lost)
    clear = [sum(problem.is_clear for problem in problems) for problems in (won, lost)]
    _say(
        console,
        f"\nB solves more of {count(len(won), 'problem')} ({clear[0]} clearly), less of "
        f"{len(lost)} ({clear[1]} clearly), as much of {equal}",
    )
    for name, only in zip("AB", found.solved_by_one, strict=True):
        if only:
            _say(console, f"solved by {name} alone: {first_of(only, _MOST_NAMED)}")
    listed = [problem for problem in found.problems if problem.value][:_MOST_PROBLEMS]
    if not listed:
        return
    table = _table("Accepted by problem", ["A", "B", "B - A", "interval"], first="problem")
    for problem in listed:
        a, b = problem.evidence.first, problem.evidence.second
        style = "" if not problem.is_clear else "green" if problem.value > 0 else "red"
        table.add_row(
            one_line(problem.task_id),
            f"{a.accepted:,}/{a.samples:,}",
            f"{b.accepted:,}/{b.samples:,}",
            _signed(problem.value),
            _interval(problem.interval),
            style=style,
        )
    if more := len(won) + len(lost) - len(listed):
        table.caption = f"and {count(more, 'problem')} more (--json has them all)"
    console.print(table)


def _remarks(found: "Comparison") -> list[str]:
    remarks = [f"pass@{k} is refused: {why}" for k, why in found.refused]
    for what, names in (
        ("judged in A alone", found.only_first),
        ("judged in B alone", found.only_second),
        ("left out, judged only until solved", found.left_out),
    ):
        if names:
            remarks.append(f"{what}: {first_of(names, _MOST_NAMED)}")
    return remarks


def _speed(found: "Comparison") -> str:
    speeds = [r.manifest.speed if r.manifest else None for r in (found.first, found.second)]
    first, second = (f"{s.tokens_a_second:,.0f}" if s else "not known" for s in speeds)
    text = f"A {first}, B {second} tokens a second"
    if speeds[0] and speeds[1]:
        text += f" ({speeds[1].tokens_a_second / speeds[0].tokens_a_second:.2f} times)"
    return text


def _partings(found: "Comparison") -> str:
    from hydragen_cli.show_text import printable

    partings = found.partings
    if partings is None:
        return f"not meant to be the same: {found.why_no_partings}"
    text = f"{partings.equal:,} of {partings.compared:,} in both are the same"
    if (one := partings.earliest) is None:
        return text
    before, first, second = map(printable, (one.before, one.first, one.second))
    half, task = (partings.median_position or 0) + 1, one_line(one.task_id)
    return (
        f"{text}; of the others the earliest parts at {one.unit} {one.position + 1} (half by "
        f"{half}): {task}, sample {one.sample_index}, after "
        f"{before!r} A has {first!r}, B {second!r}{_logprobs(one.logprobs)}"
    )


def _logprobs(known: tuple[float, float] | None) -> str:
    """With as many digits as tell neighbours in float32 apart."""
    if known is None:
        return ""
    return f" (log-probabilities {known[0]:.9g} and {known[1]:.9g})"


def _interval(interval: "Interval") -> str:
    return f"{_signed(interval.low)} to {_signed(interval.high)}"


def _signed(difference: float) -> str:
    """`+0.250`; what rounds to zero is `+0.000`, whichever side of it sums came out at."""
    return f"{round(difference, 3) + 0.0:+.3f}"


def _table(title: str, columns: list[str], *, first: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _say(console: "Console", text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)
