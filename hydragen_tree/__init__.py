"""Exact, fast sampling of thousands of completions through one prompt trie.

The public names load on first use, so that importing the package (for `--help`, or to read a
problem file) never pays for importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hydragen_tree.threads import limit_spinning

if TYPE_CHECKING:  # so that checkers know what they are
    from hydragen_tree.attention.plan import Plan as Plan
    from hydragen_tree.attention.plan import Tails as Tails
    from hydragen_tree.attention.segment_table import SegmentTable as SegmentTable
    from hydragen_tree.attention.tree_attention import tree_attention as tree_attention
    from hydragen_tree.problem.reading import load_problems as load_problems
    from hydragen_tree.problem.types import Problem as Problem
    from hydragen_tree.prompt.prompts import Prompt as Prompt
    from hydragen_tree.results.results import Results as Results
    from hydragen_tree.sample.sample import Sample as Sample
    from hydragen_tree.sample.sampler import Sampler as Sampler
    from hydragen_tree.sample.shard import Shard as Shard
    from hydragen_tree.settings import SamplingSettings as SamplingSettings
    from hydragen_tree.trie.trie import Trie as Trie

_HOME = {
    "Plan": "attention.plan",
    "Problem": "problem.types",
    "Prompt": "prompt.prompts",
    "Results": "results.results",
    "Sample": "sample.sample",
    "Sampler": "sample.sampler",
    "SamplingSettings": "settings",
    "SegmentTable": "attention.segment_table",
    "Shard": "sample.shard",
    "Tails": "attention.plan",
    "Trie": "trie.trie",
    "load_problems": "problem.reading",
    "tree_attention": "attention.tree_attention",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    limit_spinning()  # the module may load torch
    return getattr(import_module(f"hydragen_tree.{_HOME[name]}"), name)
