"""Exact, fast sampling of thousands of completions through one prompt trie.

The public names load on first use, so that importing the package (for `--help`, or to read a
problem file) never pays for importing torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Problem": "problem",
    "Prompt": "prompts",
    "Sample": "samples",
    "Sampler": "sampler",
    "SamplingSettings": "settings",
    "Trie": "trie",
    "tree_attention": "attention",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"hydragen_tree.{_HOME[name]}"), name)
