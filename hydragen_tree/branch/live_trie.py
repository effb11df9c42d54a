"""The tree of a run while it is in use: prompts may join it, and no number changes when they do.

A prompt that comes late shares what the tree has of it. It goes down the tree as far as whole
segments are its own; where it parts from the next one within it, that segment becomes two. Its rows
stay below the lower part, which keeps the number, so that nothing in flight has to be told.

What is new hangs behind its siblings. So of two leaves the one that came first stays first, and the
order of rows that are there does not change either.
"""

from dataclasses import dataclass, field

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.trie.strands import common_prefix
from hydragen_tree.trie.trie import Trie


@dataclass(frozen=True, slots=True)
class Sharing:
    """What prompts that come late share with those before.

    Attributes:
        least_tokens: a segment is parted for so many common tokens; fewer save no memory worth a
            partial more in each step of each row.
        most_levels: segments on a path at the most.
        key_group: tokens that stay together, see `Backend.key_group`.
        may_part: not where running states are kept, which are there at the ends of segments only.
    """

    least_tokens: int
    most_levels: int
    key_group: int = 1
    may_part: bool = True


ALL_KNOWN = Sharing(1, 1 << 30)  # of a run whose prompts are all there from the start


@dataclass(slots=True)
class LiveSegment:
    """What the table does not say of a segment of a prompt.

    Attributes:
        tokens: its own, int32.
        start: tokens above.
        ends_prompt: a prompt ends with its last token.
        children: segments of prompts below, in the order in which they came.
    """

    tokens: Int32
    start: int
    ends_prompt: bool = False
    children: list[int] = field(default_factory=list)


class LiveTrie:
    """A trie that grows.

    Args:
        trie: the prompts that a run begins with, after folding.

    Attributes:
        table: where each segment hangs, frozen tails included, and where it lies.
        segments: those of prompts, by number.
        leaf_segments: `[leaves]` int32, the segment in which each distinct prompt ends.
    """

    def __init__(self, trie: Trie) -> None:
        self.table = SegmentTable(
            np.array([s.parent for s in trie], np.int32),
            np.array([s.depth for s in trie], np.int32),
            np.array([s.tokens.size for s in trie], np.int32),
        )
        self.segments = {
            s.index: LiveSegment(s.tokens, s.start, s.ends_prompt, [*s.children]) for s in trie
        }
        self.leaf_segments = trie.leaf_segments.copy()
        self._roots = [segment.index for segment in trie.roots]
        self._leaves = {segment: leaf for leaf, segment in enumerate(trie.leaf_segments.tolist())}

    @property
    def n_tokens(self) -> int:
        """Distinct tokens: what the trie computes and stores."""
        return sum(segment.tokens.size for segment in self.segments.values())

    def end(self, segment: int) -> int:
        """Tokens from the root to the end of a segment."""
        return self.segments[segment].start + self.segments[segment].tokens.size

    def leaf_tokens(self, leaf: int) -> Int32:
        """The tokens from the root to the end of a leaf."""
        segment, path = int(self.leaf_segments[leaf]), []
        while segment >= 0:
            path.append(self.segments[segment].tokens)
            segment = int(self.table.parent[segment])
        return np.concatenate(path[::-1])

    def leaf_of(self, segment: int) -> int:
        """The leaf of a segment in which a prompt ends."""
        return self._leaves[segment]

    def place_of(self, leaf: int) -> int:
        """The place of a leaf among all segments of prompts in depth-first order."""
        return int(self.table.order[self.leaf_segments[leaf]])

    def insert(self, prompt: Int32, sharing: Sharing) -> tuple[int, int | None]:
        """Takes a prompt in; `put_in_order` has to follow.

        Args:
            prompt: `[tokens]` int32, at least one.
            sharing: what it may share.

        Returns:
            Its leaf, and the lower part of the segment that was parted for it, if one was.
        """
        segment, rest, parted = -1, prompt, None
        while rest.size:
            child, common = self._nearest(segment, rest)
            if child < 0 or not self._is_whole(child, common, rest.size, sharing.key_group):
                if child >= 0 and (at := self._cut(child, common, sharing)):
                    segment, rest, parted = self._part(child, at), rest[at:], child
                break
            segment, rest = child, rest[common:]
        while rest.size and segment >= 0 and self.table.depth[segment] + 2 > sharing.most_levels:
            rest = np.concatenate([self.segments[segment].tokens, rest])
            segment = int(self.table.parent[segment])
        if rest.size:
            segment = self._hang(segment, rest)
        return self._leaf_at(segment), parted

    def put_in_order(self) -> None:
        """Numbers the places of segments in depth-first order anew."""
        stack, place = self._roots[::-1], 0
        while stack:
            segment = stack.pop()
            self.table.order[segment] = place
            place += 1
            stack += self.segments[segment].children[::-1]

    def _below(self, segment: int) -> list[int]:
        return self.segments[segment].children if segment >= 0 else self._roots

    def _nearest(self, segment: int, rest: Int32) -> tuple[int, int]:
        """The segment below one that has most in common with `rest`, -1 if none has, and that."""
        nearest, most = -1, 0
        for child in self._below(segment):
            tokens = self.segments[child].tokens
            common = common_prefix(tokens, rest) if tokens[0] == rest[0] else 0
            if common > most:
                nearest, most = child, common
        return nearest, most

    def _is_whole(self, child: int, common: int, size: int, group: int) -> bool:
        """Whether a prompt goes through all of a segment; only leaves end between groups."""
        if common < self.segments[child].tokens.size:
            return False
        return common == size or self.end(child) % group == 0

    def _cut(self, child: int, common: int, sharing: Sharing) -> int:
        """Where a segment is to be parted that begins with common tokens; 0: not at all."""
        at = min(common, self.segments[child].tokens.size - 1)
        at -= (self.segments[child].start + at) % sharing.key_group
        if not sharing.may_part or at < sharing.least_tokens:
            return 0
        deepest = int(self.table.depth[: self.table.size][self.table.below(child)].max())
        return at if deepest + 2 <= sharing.most_levels else 0

    def _part(self, lower: int, at: int) -> int:
        """Makes the first tokens of a segment one of their own, above it."""
        siblings, below = self._below(int(self.table.parent[lower])), self.segments[lower]
        upper = self.table.split(lower, at)
        siblings[siblings.index(lower)] = upper
        self.segments[upper] = LiveSegment(below.tokens[:at], below.start, children=[lower])
        below.tokens, below.start = below.tokens[at:], below.start + at
        return upper

    def _hang(self, parent: int, tokens: Int32) -> int:
        """A new segment below another, behind its siblings."""
        start = self.end(parent) if parent >= 0 else 0
        segment = self.table.add_prompt(parent, tokens.size)
        self.segments[segment] = LiveSegment(tokens.copy(), start)
        self._below(parent).append(segment)
        return segment

    def _leaf_at(self, segment: int) -> int:
        """The leaf of a segment; a new one where no prompt has ended."""
        if not self.segments[segment].ends_prompt:
            self.segments[segment].ends_prompt = True
            self._leaves[segment] = self.leaf_segments.size
            self.leaf_segments = np.append(self.leaf_segments, np.int32(segment))
        return self._leaves[segment]
