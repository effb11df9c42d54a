"""What a run cost and how it was set, as its manifest says it."""

from collections.abc import Mapping
from typing import Any

from hydragen_tree.results.report.markup import duration, facts, table
from hydragen_tree.sample.end_conditions import EndConditions
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.units import size

_NO_MANIFEST = "<p>Not known: there is no manifest beside the samples.</p>"


class Figures:
    """The end figures of the sessions that came to their end, added up."""

    def __init__(self, manifest: Manifest | None) -> None:
        sessions = manifest.sessions if manifest else ()
        self._found = [session["figures"] for session in sessions if session.get("figures")]

    def __bool__(self) -> bool:
        return bool(self._found)

    def total(self, name: str) -> float:
        """The sum of a figure."""
        return sum(figures.get(name) or 0 for figures in self._found)

    def most(self, name: str) -> float:
        """The greatest of a figure."""
        return max((figures.get(name) or 0 for figures in self._found), default=0)

    @property
    def rows_spared(self) -> float | None:
        """The share of tokens that needed no row of their own; None where it is not known."""
        tokens, rows = self.total("tokens_sampled"), self.total("rows_computed")
        return 1 - rows / tokens if tokens and rows else None


def accounting(manifest: Manifest | None) -> str:
    """Time and tokens: totals, what the trie saved, and a row for each session."""
    figures = Figures(manifest)
    if manifest is None:
        return _NO_MANIFEST
    if not figures or manifest.speed is None:
        return "<p>Not known: the run has not come to its end.</p>"
    speed = manifest.speed
    rows, tokens = figures.total("rows_computed"), figures.total("tokens_sampled")
    shared, unshared = figures.total("prompt_tokens"), figures.total("prompt_tokens_unshared")
    pairs = [
        ("Time", f"{duration(speed.elapsed_s)} of sampling, from when the weights were there"),
        (
            "Speed",
            f"{speed.tokens_a_second:,.0f} tokens and {speed.samples_a_second:,.1f} samples a "
            "second",
        ),
        ("Tokens drawn", f"{tokens:,.0f}, {tokens / max(speed.samples, 1):,.1f} a sample"),
        (
            "Rows computed",
            f"{rows:,.0f}: samples that had drawn the same tokens shared a row, which spared "
            f"{tokens - rows:,.0f} ({_share(tokens - rows, tokens)})",
        ),
        (
            "Prompt tokens",
            f"{shared:,.0f} stand in the trie; independent samples would compute {unshared:,.0f} "
            f"({_times(unshared, shared)})",
        ),
        ("Prefilled", f"{figures.total('prefilled_tokens'):,.0f} tokens, repeats included"),
        ("Keys and values", f"{size(figures.most('kv_bytes_peak'))} at most"),
    ]
    return facts(pairs) + _sessions(manifest)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _times(more: float, less: float) -> str:
    return f"{more / less:,.0f} times as many" if less else "none"


def _sessions(manifest: Manifest) -> str:
    rows = []
    for number, session in enumerate(manifest.sessions, start=1):
        figures: Mapping[str, Any] = session.get("figures") or {}
        elapsed, tokens = figures.get("elapsed_s"), figures.get("tokens_sampled", 0)
        rows.append(
            [
                str(number),
                _moment(session.get("started")),
                _moment(session.get("ended")) if session.get("ended") else "not ended",
                duration(elapsed) if elapsed else "",
                f"{figures['samples_done']:,}" if "samples_done" in figures else "",
                f"{tokens:,}" if figures else "",
                f"{tokens / elapsed:,.0f}" if elapsed else "",
                str(figures.get("attention", "")),
            ]
        )
    columns = ["session", "started", "ended", "time", "samples", "tokens", "a second", "attention"]
    return table("Sessions of the run", columns, rows)


def _moment(stamp: Any) -> str:
    """`2026-11-29 06:34`, in UTC."""
    return str(stamp or "").replace("T", " ")[:16]


def settings(manifest: Manifest | None) -> str:
    """How samples were drawn, by what, and what ended them."""
    if manifest is None:
        return _NO_MANIFEST
    parts = [
        ("Sampling", {"n": manifest.n, **manifest.settings}),
        ("Model", dict(manifest.model)),
        ("Versions", dict(manifest.sessions[-1].get("versions", {})) if manifest.sessions else {}),
    ]
    options = manifest.sessions[-1].get("options", {}) if manifest.sessions else {}
    given = {flag: f"{value} ({source})" for flag, (value, source) in options.items()}
    parts.append(("Given, and where; the rest by default", given))
    if manifest.stopping:
        parts.insert(1, ("A problem ends before n by", dict(manifest.stopping)))
    if manifest.shard is not None:
        parts.append(("Shard", {"part": str(manifest.shard)}))
    if manifest.ends:
        parts.append(("Ends", {"a sample ends at": str(EndConditions(**manifest.ends))}))
    groups = "".join(
        f'<div class="group"><h3>{name}</h3>'
        f"{facts((key, _value(value)) for key, value in values.items())}</div>"
        for name, values in parts
        if values
    )
    return f'<div class="groups">{groups}</div>'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value)) or "none"
    return str(value) if value not in ("", None) else "none"
