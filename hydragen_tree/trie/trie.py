"""Token lists to a radix tree of segments.

A segment is a maximal run of tokens that the same prompts pass through. Its keys and values
depend on nothing but the tokens on its path, so they need to exist only once.

Building inserts one prompt after another and compares whole runs with numpy, so that a prompt
costs as many steps as it has segments, and only the tokens it adds are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError

Tokens = NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One node of the trie.

    Attributes:
        index: its number in depth-first order.
        parent: the parent's index, -1 for a root.
        depth: number of segments above.
        start: number of tokens above, so the position of its first token.
        tokens: its own tokens, int32, at least one.
        children: indices of the segments below, in order of first appearance.
        leaves: the leaves at or below it, one contiguous range.
        ends_prompt: a prompt ends with its last token.
    """

    index: int
    parent: int
    depth: int
    start: int
    tokens: Tokens
    children: tuple[int, ...]
    leaves: range
    ends_prompt: bool


class Trie:
    """The exact radix tree of some prompts.

    Attributes:
        segments: all segments, depth-first.
        leaf_segments: `[leaves]` int32, the segment in which each distinct prompt ends.
        prompt_leaves: `[prompts]` int32, the leaf of each prompt, in the order given; equal
            prompts share a leaf.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        leaf_segments: NDArray[np.int32],
        prompt_leaves: NDArray[np.int32],
    ) -> None:
        self.segments = segments
        self.leaf_segments = leaf_segments
        self.prompt_leaves = prompt_leaves

    @classmethod
    def build(cls, prompts: Iterable[Sequence[int] | Tokens]) -> "Trie":
        """Builds the trie of any number of token lists: duplicates, prefixes, several roots.

        Args:
            prompts: token ids, each prompt a sequence or a 1-D integer array. An iterator is
                read once, so the prompts need never be in memory together.

        Raises:
            InputError: there is no prompt, or an empty one.
        """
        top = _Node(np.empty(0, np.int32))
        n_prompts = 0
        for prompt in prompts:
            tokens = np.asarray(prompt, dtype=np.int32)
            if tokens.ndim != 1 or tokens.size == 0:
                raise InputError(f"prompt {n_prompts}: expected at least one token")
            _insert(top, tokens, n_prompts)
            n_prompts += 1
        if n_prompts == 0:
            raise InputError("no prompts: expected at least one")
        return _number(top, n_prompts)

    @property
    def roots(self) -> list[Segment]:
        """The segments with nothing above them."""
        return [segment for segment in self.segments if segment.parent < 0]

    @property
    def n_tokens(self) -> int:
        """Distinct tokens: what the trie computes and stores."""
        return sum(segment.tokens.size for segment in self.segments)

    @property
    def n_prompt_tokens(self) -> int:
        """Tokens of all prompts together: what sampling without sharing computes."""
        lengths = np.array([self.end(int(leaf)) for leaf in self.leaf_segments])
        return int(lengths[self.prompt_leaves].sum())

    def end(self, segment: int) -> int:
        """Tokens from the root to the end of a segment."""
        return self.segments[segment].start + self.segments[segment].tokens.size

    def path(self, segment: int) -> list[Segment]:
        """The segments from the root down to this one, itself included."""
        above: list[Segment] = []
        while segment >= 0:
            above.append(self.segments[segment])
            segment = self.segments[segment].parent
        return above[::-1]

    def prompt(self, index: int) -> Tokens:
        """The tokens of a prompt, put together again."""
        leaf = int(self.leaf_segments[self.prompt_leaves[index]])
        return np.concatenate([segment.tokens for segment in self.path(leaf)])

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)


@dataclass(slots=True, eq=False)
class _Node:
    """A segment in the making. Few nodes have children, so their dict comes late."""

    tokens: Tokens
    children: "dict[int, _Node] | None" = None
    prompts: list[int] = field(default_factory=list)

    def adopt(self, child: "_Node") -> None:
        if self.children is None:
            self.children = {}
        self.children[int(child.tokens[0])] = child


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the common prefix."""
    n = min(a.size, b.size)
    differs = a[:n] != b[:n]
    first = int(differs.argmax())
    return first if differs[first] else n


def _insert(top: _Node, tokens: Tokens, prompt: int) -> None:
    node, at = top, 0
    while at < tokens.size:
        child = node.children.get(int(tokens[at])) if node.children else None
        if child is None:
            child = _Node(tokens[at:].copy())
            node.adopt(child)
        shared = _common(child.tokens, tokens[at:])
        if shared < child.tokens.size:  # the prompt leaves in the middle: split
            upper = _Node(child.tokens[:shared].copy())
            child.tokens = child.tokens[shared:].copy()
            upper.adopt(child)
            node.adopt(upper)
            child = upper
        node, at = child, at + shared
    node.prompts.append(prompt)


def _number(top: _Node, n_prompts: int) -> Trie:
    """Numbers nodes and leaves depth-first, without recursion: tries can be deep."""
    nodes: list[_Node] = []
    parents: list[int] = []
    prompt_leaves = np.empty(n_prompts, np.int32)
    leaf_segments: list[int] = []
    first_leaf: list[int] = []
    stack = [(node, -1) for node in reversed((top.children or {}).values())]
    while stack:
        node, parent = stack.pop()
        index = len(nodes)
        nodes.append(node)
        parents.append(parent)
        first_leaf.append(len(leaf_segments))
        if node.prompts:
            prompt_leaves[node.prompts] = len(leaf_segments)
            leaf_segments.append(index)
        stack.extend((child, index) for child in reversed((node.children or {}).values()))

    stop_leaf = [first + bool(node.prompts) for first, node in zip(first_leaf, nodes, strict=True)]
    children: list[list[int]] = [[] for _ in nodes]
    for index in range(len(nodes) - 1, -1, -1):  # children come after their parent
        parent = parents[index]
        if parent >= 0:
            children[parent].append(index)
            stop_leaf[parent] = max(stop_leaf[parent], stop_leaf[index])

    segments: list[Segment] = []
    for index, (node, parent) in enumerate(zip(nodes, parents, strict=True)):
        above = segments[parent] if parent >= 0 else None
        segments.append(
            Segment(
                index=index,
                parent=parent,
                depth=above.depth + 1 if above else 0,
                start=above.start + above.tokens.size if above else 0,
                tokens=node.tokens,
                children=tuple(reversed(children[index])),
                leaves=range(first_leaf[index], stop_leaf[index]),
                ends_prompt=bool(node.prompts),
            )
        )
    return Trie(segments, np.array(leaf_segments, np.int32), prompt_leaves)
