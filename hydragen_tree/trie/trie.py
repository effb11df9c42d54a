"""Token lists to a radix tree of segments.

A segment is a maximal run of tokens that the same prompts pass through. Its keys and values
depend on nothing but the tokens on its path, so they need to exist only once.

Building inserts one prompt after another and compares whole runs with numpy, and only the tokens it
adds are kept. Nothing here recurses or walks a path for each prompt: a hundred thousand prompts may
be prefixes of one another.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError
from hydragen_tree.trie.strands import Groups, Strand, walk


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
    tokens: Int32
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
        leaf_segments: Int32,
        prompt_leaves: Int32,
    ) -> None:
        self.segments = segments
        self.leaf_segments = leaf_segments
        self.prompt_leaves = prompt_leaves

    @classmethod
    def build(cls, prompts: Iterable[Sequence[int] | Int32], group: int = 1) -> "Trie":
        """Builds the trie of any number of token lists: duplicates, prefixes, several roots.

        Args:
            prompts: token ids, each prompt a sequence or a 1-D integer array. An iterator is
                read once, so the prompts need never be in memory together.
            group: tokens that only stay together: segments part at multiples of so many, and what
                a prompt has behind the last multiple is in its leaf.

        Raises:
            InputError: there is no prompt, or an empty one.
        """
        top = Strand(np.empty(0, np.int32))
        groups = Groups(group)
        prompt_ends: list[int] = []
        distinct = 0
        for prompt in prompts:
            tokens = np.asarray(prompt, dtype=np.int32)
            if tokens.ndim != 1 or tokens.size == 0:
                raise InputError(f"prompt {len(prompt_ends)}: expected at least one token")
            prompt_ends.append(top.insert(groups.numbers(tokens), distinct))
            distinct += prompt_ends[-1] == distinct
        if not prompt_ends:
            raise InputError("no prompts: expected at least one")
        nodes, parents, ends = walk(top)
        return cls.assemble(
            [groups.tokens(node) for node in nodes], parents, ends, np.array(prompt_ends)
        )

    @classmethod
    def assemble(
        cls,
        tokens: Sequence[Int32],
        parents: Sequence[int],
        ends: Sequence[int],
        prompt_ends: NDArray[np.integer],
    ) -> "Trie":
        """The trie of nodes that are given depth-first.

        Args:
            tokens: of each node its own tokens, at least one.
            parents: of each node its parent's index, -1 for a root.
            ends: of each node the number of the distinct prompt that ends with it, or -1. Leaves
                are counted in the order of the nodes, whatever these numbers are.
            prompt_ends: `[prompts]`, the number of each prompt.
        """
        ending = np.array(ends) >= 0
        leaf_segments = np.flatnonzero(ending).astype(np.int32)
        leaf_of = np.empty(leaf_segments.size, np.int32)
        leaf_of[np.array(ends)[leaf_segments]] = np.arange(leaf_segments.size)
        stop_leaf = np.cumsum(ending).tolist()
        first_leaf = [0, *stop_leaf[:-1]]
        children: list[list[int]] = [[] for _ in tokens]
        for index in range(len(tokens) - 1, -1, -1):  # children come after their parent
            if parents[index] >= 0:
                children[parents[index]].append(index)
                stop_leaf[parents[index]] = max(stop_leaf[parents[index]], stop_leaf[index])

        segments: list[Segment] = []
        for index, parent in enumerate(parents):
            above = segments[parent] if parent >= 0 else None
            segments.append(
                Segment(
                    index=index,
                    parent=parent,
                    depth=above.depth + 1 if above else 0,
                    start=above.start + above.tokens.size if above else 0,
                    tokens=tokens[index],
                    children=tuple(reversed(children[index])),
                    leaves=range(first_leaf[index], stop_leaf[index]),
                    ends_prompt=bool(ending[index]),
                )
            )
        return cls(segments, leaf_segments, leaf_of[prompt_ends])

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

    def prompt(self, index: int) -> Int32:
        """The tokens of a prompt, put together again."""
        return self.leaf_tokens(int(self.prompt_leaves[index]))

    def leaf_tokens(self, leaf: int) -> Int32:
        """The tokens from the root to the end of a leaf."""
        path = self.path(int(self.leaf_segments[leaf]))
        return np.concatenate([segment.tokens for segment in path])

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)
