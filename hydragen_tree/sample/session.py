"""What a manifest keeps of a session that has come to its end."""

from dataclasses import asdict
from typing import Any

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sampler import Sampler

_NOT_ADDED = {"started", "samples_live", "rows_live", "kv_bytes_peak"}


def session_figures(sampler: Sampler, first: Prompt) -> dict[str, Any]:
    """Figures of a sampler's latest run, as plain JSON types.

    Args:
        sampler: it has just drawn its last sample.
        first: the run's first prompt, on which the error of 8 bits was measured.
    """
    figures = {
        **asdict(sampler.stats),
        "elapsed_s": round(sampler.stats.elapsed_s, 3),
        "attention": sampler.backend,
    }
    if why := sampler.why_slower:
        figures["attention_slower"] = why
    error = sampler.logit_error(first)
    if error is not None:
        figures["logit_error"] = asdict(error)
    return figures


def add_figures(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Figures of two runs of one session: counts and times added, the rest the later one's."""
    summed = {
        key: one[key] + value
        for key, value in other.items()
        if type(value) in (int, float) and key in one and key not in _NOT_ADDED
    }
    peak = max(one["kv_bytes_peak"], other["kv_bytes_peak"])
    return {**one, **other, **summed, "kv_bytes_peak": peak}
