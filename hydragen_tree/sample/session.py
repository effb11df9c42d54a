"""What a manifest keeps of a session that has come to its end."""

from dataclasses import asdict
from typing import Any

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sampler import Sampler


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
        "max_rows": sampler.max_rows,
    }
    if why := sampler.why_slower:
        figures["attention_slower"] = why
    error = sampler.logit_error(first)
    if error is not None:
        figures["logit_error"] = asdict(error)
    return figures
