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

from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Segment, Tokens, Trie


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

    Leaves are never folded: the samples of a prompt start with empty tails.

    Args:
        trie: the exact radix tree.
        shape: sizes of the model's keys and values.
        cost: the device's constants.
        rows_per_leaf: rows expected below each leaf while sampling.

    Returns:
        The trie to run, with the same leaves in the same order, and what was folded.
    """
    folds: list[Fold] = []
    below: list[list[_Branch]] = [[] for _ in trie.segments]
    tops: list[_Branch] = []
    for segment in reversed(trie.segments):
        branches = below[segment.index]
        kept = _Branch(segment.tokens, [], -1)
        if segment.ends_prompt:
            branches = [_Branch(np.empty(0, np.int32), [], segment.leaves.start), *branches]
        if segment.children:
            rows = max(round(len(segment.leaves) * rows_per_leaf), len(branches))
            saved = cost.saved_s(segment.tokens.size, len(branches), shape.layer_token_bytes)
            spent = cost.spent_s(rows, shape.merge_bytes)
            if saved < spent:
                folds.append(
                    Fold(segment.depth, segment.tokens.size, len(branches), rows, saved, spent)
                )
                result = [branch.under(segment.tokens) for branch in branches]
            else:
                result = [kept.over(branches)]
        else:
            result = [kept.over(branches)]
        home = tops if segment.parent < 0 else below[segment.parent]
        home[:0] = result
    return _assemble(tops, trie), folds[::-1]


@dataclass(slots=True, eq=False)
class _Branch:
    """A segment of the trie in the making; `leaf` is the leaf that ends in it, or -1."""

    tokens: Tokens
    children: "list[_Branch]"
    leaf: int

    def under(self, tokens: Tokens) -> "_Branch":
        """This branch with a folded parent's tokens put in front of its own."""
        return _Branch(np.concatenate([tokens, self.tokens]), self.children, self.leaf)

    def over(self, branches: "list[_Branch]") -> "_Branch":
        """This segment kept above `branches`; one without tokens is the end of a prompt in it."""
        children = [branch for branch in branches if branch.tokens.size]
        ends = [branch.leaf for branch in branches if not branch.tokens.size]
        return _Branch(self.tokens, children, ends[0] if ends else -1)


def _assemble(tops: list[_Branch], trie: Trie) -> Trie:
    """Numbers the branches depth-first as segments; leaves keep their numbers."""
    order: list[tuple[_Branch, int]] = []
    stack = [(branch, -1) for branch in reversed(tops)]
    while stack:
        branch, parent = stack.pop()
        stack.extend((child, len(order)) for child in reversed(branch.children))
        order.append((branch, parent))

    children: list[list[int]] = [[] for _ in order]
    leaves: list[list[int]] = [[branch.leaf] if branch.leaf >= 0 else [] for branch, _ in order]
    for index in range(len(order) - 1, -1, -1):
        parent = order[index][1]
        if parent >= 0:
            children[parent].insert(0, index)
            leaves[parent].extend(leaves[index])

    leaf_segments = np.empty_like(trie.leaf_segments)
    segments: list[Segment] = []
    for index, (branch, parent) in enumerate(order):
        above = segments[parent] if parent >= 0 else None
        if branch.leaf >= 0:
            leaf_segments[branch.leaf] = index
        segments.append(
            Segment(
                index=index,
                parent=parent,
                depth=above.depth + 1 if above else 0,
                start=above.start + above.tokens.size if above else 0,
                tokens=branch.tokens,
                children=tuple(children[index]),
                leaves=range(min(leaves[index]), max(leaves[index]) + 1),
                ends_prompt=branch.leaf >= 0,
            )
        )
    return Trie(segments, leaf_segments, trie.prompt_leaves)
