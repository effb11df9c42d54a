"""Which shared segments pay: the cost model, and folding of those that do not.

A segment read once for all rows below it saves memory traffic at every decode step; it also costs
one more partial to write and merge for each of those rows, and one more piece of work to start.
Folding gives a segment's tokens to each of its children: they are computed and kept once a child.

Per layer and decode step, for a segment of `t` tokens with `r` rows in `c` branches below it:

    saved   = (c - 1) * t * token_bytes / bandwidth
    spent   = r * merge_bytes / bandwidth + item_s

`token_bytes` are a token's keys and values in one layer; `merge_bytes` are one partial written and
read back, fp32 out and lse of every query head.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Trie

MAX_COPIED_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True)
class Fold:
    """One folded segment and why: its size, and what keeping it would have saved and spent."""

    depth: int
    n_tokens: int
    branches: int
    rows: int
    saved_s: float
    spent_s: float


def fold(
    trie: Trie, shape: KVShape, cost: CostModel, rows_per_leaf: float
) -> tuple[Trie, list[Fold]]:
    """Folds the segments whose sharing does not pay, deepest first.

    Leaves are never folded: the samples of a prompt start with empty tails. Nor is a segment whose
    copies would bring those of all folded ones beyond `MAX_COPIED_TOKENS`: keys and values of so
    many would not fit a device, whatever a step would gain.

    Args:
        trie: the exact radix tree.
        shape: sizes of the model's keys and values.
        cost: the device's constants.
        rows_per_leaf: rows expected below each leaf while sampling.

    Returns:
        The trie to run, with the same leaves in the same order, and what was folded.
    """
    folds: list[Fold] = []
    is_folded = np.zeros(len(trie.segments), np.bool_)
    branches = np.zeros(len(trie.segments), np.int64)  # of a segment, once those below are folded
    copied = 0
    for segment in reversed(trie.segments):
        size, index = segment.tokens.size, segment.index
        branches[index] += segment.ends_prompt
        if segment.children:
            count = int(branches[index])
            rows = max(round(len(segment.leaves) * rows_per_leaf), count)
            saved = cost.saved_s(size, count, shape.layer_token_bytes)
            spent = cost.spent_s(rows, shape.merge_bytes)
            copies = (count - 1) * size
            if saved < spent and copied + copies <= MAX_COPIED_TOKENS:
                folds.append(Fold(segment.depth, size, count, rows, saved, spent))
                is_folded[index] = True
                copied += copies
        if segment.parent >= 0:
            branches[segment.parent] += branches[index] if is_folded[index] else 1
    return _without(trie, is_folded), folds[::-1]


def _without(trie: Trie, is_folded: NDArray[np.bool_]) -> Trie:
    """The trie in which the folded segments' tokens stand in front of each of their branches.

    Where a prompt ends in a folded segment, it gets a segment of its own.
    """
    tokens: list[Int32] = []
    parents: list[int] = []
    ends: list[int] = []
    nothing = np.empty(0, np.int32)
    # Of each segment: the new one that what is below it hangs from, and folded tokens since then.
    hangs: list[tuple[int, Int32]] = []
    for segment in trie:
        parent, above = hangs[segment.parent] if segment.parent >= 0 else (-1, nothing)
        own = np.concatenate([above, segment.tokens]) if above.size else segment.tokens
        folded = bool(is_folded[segment.index])
        hangs.append((parent, own) if folded else (len(tokens), nothing))
        if segment.ends_prompt or not folded:
            tokens.append(own)
            parents.append(parent)
            ends.append(segment.leaves.start if segment.ends_prompt else -1)
    return Trie.assemble(tokens, parents, ends, trie.prompt_leaves)
