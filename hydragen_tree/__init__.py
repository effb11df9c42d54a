"""Exact, fast sampling of thousands of completions through one prompt trie.

The public names load on first use, so that importing the package (for `--help`, or to read a
problem file) never pays for importing torch.
"""

import os
from importlib import import_module
from typing import Any

_HOME = {
    "Plan": "attention.plan",
    "Problem": "problem.types",
    "Prompt": "prompt.prompts",
    "Sample": "sample.sample",
    "Sampler": "sample.sampler",
    "SamplingSettings": "settings",
    "SegmentTable": "attention.segment_table",
    "Tails": "attention.plan",
    "Trie": "trie.trie",
    "load_problems": "problem.reading",
    "tree_attention": "attention.tree_attention",
}
__all__ = sorted(_HOME)

# torch's threads wait for each other by spinning, for milliseconds. On a core that somebody else
# uses too, that is time in which nobody gets on: a decode step took ten times as long. GNU OpenMP
# reads this once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"hydragen_tree.{_HOME[name]}"), name)
