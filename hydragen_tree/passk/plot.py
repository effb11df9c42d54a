"""The pass@k curve as a picture: PNG or SVG, legible without colour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydragen_tree.errors import InputError
from hydragen_tree.picture import check_ending, save_picture

if TYPE_CHECKING:
    from hydragen_tree.passk.summary import Curve, Summary

MOST_NAMED = 6
_DASHES = ["--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))]
_MARKERS = ["s", "^", "D", "v", "P", "X"]


def plot_curve(summary: Summary, path: str | Path) -> None:
    """Draw pass@k over k with its 95 % band: the set as a thick line, each problem as a thin one.

    Up to six problems are named, told apart by dashes and markers; more are drawn in plain grey.

    Args:
        summary: a run with at least one estimate.
        path: ends in `.png` or `.svg`.

    Raises:
        InputError: another ending, nothing to draw, or matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    check_ending(path)
    if not summary.overall.estimates:
        raise InputError("no problem has a pass@k estimate to draw", setting="plot", value=path)
    save_picture(path, (6.4, 4.4), 10, lambda axes: _draw(axes, summary))


def _draw(axes: Any, summary: Summary) -> None:
    problems = [p for p in summary.problems if p.curve.estimates]
    several = len(problems) > 1
    if several:
        named = len(problems) <= MOST_NAMED
        for index, problem in enumerate(problems):
            look = (
                {"linestyle": _DASHES[index], "marker": _MARKERS[index], "label": problem.task_id}
                if named
                else {"linestyle": "-", "alpha": 0.35}
            )
            _line(axes, problem.curve, color="0.35", linewidth=0.9, markersize=4, **look)
    label = f"all {len(problems)} problems" if several else problems[0].task_id
    _line(axes, summary.overall, color="black", linewidth=2.2, marker="o", label=label)
    ks = [e.k for e in summary.overall.estimates]
    axes.fill_between(
        ks,
        [e.low for e in summary.overall.estimates],
        [e.high for e in summary.overall.estimates],
        color="0.88",
        edgecolor="0.5",
        linewidth=0.6,
        label="95 % interval",
        zorder=0,
    )
    axes.set_xscale("log")
    axes.set_xticks(ks, labels=[str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("k (samples)")
    axes.set_ylabel("pass@k")
    axes.grid(visible=True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _line(axes: Any, curve: Curve, **look: Any) -> None:
    axes.plot([e.k for e in curve.estimates], [e.value for e in curve.estimates], **look)
