"""The pass@k curve as SVG that stands in the page itself; its colours are the style sheet's."""

import math
from collections.abc import Sequence
from html import escape

from hydragen_tree.passk.summary import Curve, Estimate, Summary

MOST_LINES = 200  # problems that have a line of their own
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 58, 14, 44  # what lies around the plot
_SHARES = (0, 0.25, 0.5, 0.75, 1)
_DIGIT_WIDTH = 7.5


class _Scale:
    """Where k and pass@k lie in the picture."""

    def __init__(self, width: int, height: int, most_k: int) -> None:
        self.left, self.right = _LEFT, width - _RIGHT
        self.top, self.bottom = _TOP, height - _BOTTOM
        self._decades = math.log(most_k) if most_k > 1 else 1.0

    def x(self, k: int) -> float:
        return self.left + (self.right - self.left) * math.log(k) / self._decades

    def y(self, share: float) -> float:
        return self.bottom - (self.bottom - self.top) * share

    def points(self, pairs: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{self.x(k):.1f},{self.y(share):.1f}" for k, share in pairs)


def curve_svg(summary: Summary, width: int, height: int, shape: str) -> str:
    """pass@k over k: the mean with its band, and each problem as a thin line.

    Args:
        summary: with at least one estimate.
        width: of the picture, in pixels of text at its own size.
        height: the same.
        shape: its class, by which the style sheet shows one of several.
    """
    estimates = summary.overall.estimates
    scale = _Scale(width, height, estimates[-1].k)
    return (
        f'<svg class="curve {shape}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(in_words(summary))}">'
        f"{_grid(scale, estimates)}{_problems(scale, summary)}{_mean(scale, estimates)}</svg>"
    )


def in_words(summary: Summary) -> str:
    """What the curve shows, for those who do not see it."""
    first, last = summary.overall.estimates[0], summary.overall.estimates[-1]
    problems = f"{summary.overall.problems:,} problem{'s' * (summary.overall.problems != 1)}"
    said = f"pass@k over {problems}: {_named(first)}"
    return said if first.k == last.k else f"{said}, rising to {_named(last)}"


def _named(e: Estimate) -> str:
    return f"{e.value:.3f} at k = {e.k:,} (95 % interval {e.low:.3f} to {e.high:.3f})"


def _grid(scale: _Scale, estimates: Sequence[Estimate]) -> str:
    parts = []
    for share in _SHARES:
        y = scale.y(share)
        parts.append(
            f'<line class="grid" x1="{scale.left}" x2="{scale.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="label end" x="{scale.left - 8}" y="{y + 4:.1f}">{share:g}</text>'
        )
    free_from = -math.inf
    for k in [e.k for e in estimates]:
        half = len(f"{k:,}") * _DIGIT_WIDTH / 2
        if scale.x(k) - half >= free_from:
            free_from = scale.x(k) + half + _DIGIT_WIDTH
            x, y = f"{scale.x(k):.1f}", scale.bottom + 18
            parts.append(f'<text class="label middle" x="{x}" y="{y}">{k:,}</text>')
    middle = (scale.left + scale.right) / 2
    label = "k, samples a problem (logarithmic)"
    parts.append(f'<text class="axis middle" x="{middle}" y="{scale.bottom + 38}">{label}</text>')
    return "".join(parts)


def _problems(scale: _Scale, summary: Summary) -> str:
    """A thin line a problem."""
    found = [problem for problem in summary.problems if problem.curve.estimates]
    if not 1 < len(found) <= MOST_LINES:
        return ""
    return "".join(
        f'<polyline class="one" data-task="{escape(problem.task_id)}" '
        f'points="{scale.points(_values(problem.curve))}">'
        f"<title>{escape(problem.task_id)}</title></polyline>"
        for problem in found
    )


def _values(curve: Curve) -> list[tuple[int, float]]:
    return [(e.k, e.value) for e in curve.estimates]


def _mean(scale: _Scale, estimates: Sequence[Estimate]) -> str:
    last = estimates[-1]
    x, y = scale.x(last.k), scale.y(last.value)
    band = [(e.k, e.high) for e in estimates] + [(e.k, e.low) for e in reversed(estimates)]
    line = [(e.k, e.value) for e in estimates]
    dots = "".join(
        f'<circle class="dot" cx="{scale.x(e.k):.1f}" cy="{scale.y(e.value):.1f}" r="3.5">'
        f"<title>pass@{e.k:,} = {e.value:.3f} ({e.low:.3f} to {e.high:.3f})</title></circle>"
        for e in estimates
    )
    return (
        f'<polygon class="band" points="{scale.points(band)}"/>'
        f'<line class="band-edge" x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(last.low):.1f}" '
        f'y2="{scale.y(last.high):.1f}"/>'
        f'<polyline class="mean" points="{scale.points(line)}"/>{dots}'
        f'<text class="value" x="{x + 10:.1f}" y="{y + 5:.1f}">{last.value:.3f}</text>'
    )
