"""Small pieces of HTML: text is escaped here, and nowhere else is it forgotten."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from hydragen_tree.judge.verdicts import STATUSES

_MEANINGS = {
    "AC": "accepted",
    "WA": "wrong answer",
    "TLE": "time limit exceeded",
    "MLE": "memory limit exceeded",
    "OLE": "output limit exceeded",
    "RE": "run-time error",
    "CE": "not compiled",
    "IE": "the judge's own fault",
}


def whole(text: str) -> str:
    """Text without half characters, as a browser has it: a problem is found by its name."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what is to be said about them."""
    rows = "".join(f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>" for a, b in pairs)
    return f'<dl class="facts">{rows}</dl>'


def tile(name: str, value: str, more: str = "") -> str:
    """One figure that is read at a glance."""
    rest = f'<span class="more">{escape(more)}</span>' if more else ""
    return f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}{rest}</dd></div>'


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its rows; the others are figures."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def verdict_bar(verdicts: Mapping[str, int]) -> str:
    """Samples by verdict as one bar, right ones first; its label says the counts."""
    total, left, parts = sum(verdicts.values()), 0.0, []
    for status in STATUSES:
        if share := 100 * verdicts.get(status, 0) / max(total, 1):
            x, width = f"{left:.2f}", f"{share:.2f}"
            parts.append(f'<rect class="v-{status}" x="{x}" width="{width}" height="10"/>')
            left += share
    said = escape(in_words(verdicts))
    return (
        '<svg class="verdicts" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}"><title>{said}</title>{"".join(parts)}</svg>'
    )


def verdict_legend(verdicts: Mapping[str, int]) -> str:
    """What the colours of the bars mean, with the counts of the run."""
    items = "".join(
        f'<li><span class="key v-{status}"></span><b>{status}</b> {_MEANINGS[status]} '
        f"<span>{verdicts[status]:,}</span></li>"
        for status in STATUSES
        if verdicts.get(status)
    )
    return f'<ul class="legend">{items}</ul>'


def in_words(verdicts: Mapping[str, int]) -> str:
    """`79 AC, 95 WA`."""
    counts = [f"{verdicts[status]:,} {status}" for status in STATUSES if verdicts.get(status)]
    return ", ".join(counts) or "not judged"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 7 s`, `2 h 3 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
