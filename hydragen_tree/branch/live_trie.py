"""The tree of a run while it is in use: prompts may join it, and leave it when they are done with.

A prompt that comes late shares what the tree has of it. It goes down the tree as far as whole
segments are its own; where it parts from the next one within it, that segment becomes two. Its rows
stay below the lower part, which keeps the number, so that nothing in flight has to be told.

What is new hangs behind its siblings. So of two leaves the one that came first stays first, and the
order of rows that are there does not change either.

A stream may bring prompts without end. What one costs depends on its own tokens and on the segments
above it, not on how many have come before: those beside it are found by their first tokens, and
places in depth-first order are numbers with room between them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.growing import Growing
from hydragen_tree.branch.places import Places
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


_LOOKED_AT = 64  # of segments that begin alike and could not be parted, so many are compared

ALL_KNOWN = Sharing(1, 1 << 30)  # of a run whose prompts are all there from the start


@dataclass(slots=True)
class LiveSegment:
    """What the table does not say of a segment of a prompt.

    Attributes:
        tokens: its own, int32.
        start: tokens above.
        ends_prompt: a prompt ends with its last token.
    """

    tokens: Int32
    start: int
    ends_prompt: bool = False


class LiveTrie:
    """A trie that grows.

    Args:
        trie: the prompts that a run begins with, after folding.
        sharing: what others may share.

    Attributes:
        table: where each segment hangs, frozen tails included, and where it lies.
        segments: those of prompts, by number.
        n_tokens: distinct tokens: what the trie computes and stores.
    """

    def __init__(self, trie: Trie, sharing: Sharing) -> None:
        self.table = SegmentTable(
            np.array([s.parent for s in trie], np.int32),
            np.array([s.depth for s in trie], np.int32),
            np.array([s.tokens.size for s in trie], np.int32),
        )
        self.segments = {s.index: LiveSegment(s.tokens, s.start, s.ends_prompt) for s in trie}
        self.n_tokens = trie.n_tokens
        self._sharing = sharing
        self._leaf_segments = Growing(trie.leaf_segments)
        self._leaves = {segment: leaf for leaf, segment in enumerate(trie.leaf_segments.tolist())}
        # below each segment those that begin alike, by these tokens; and lengths of shorter ones
        self._alike: defaultdict[tuple[int, bytes], dict[int, None]] = defaultdict(dict)
        self._short: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._places = Places()  # of where segments begin, and of where what is below them ends
        if sharing is not ALL_KNOWN:
            self._prepare(trie)

    def _prepare(self, trie: Trie) -> None:
        """Makes what joining needs, of segments that are given depth-first."""
        for segment in trie:
            self._note(segment.index)
            above = _end_of(segment.parent) if segment.parent >= 0 else Places.END
            self._places.put(segment.index, above)
            self._places.put(_end_of(segment.index), above)
        self._put_in_order()

    @property
    def leaf_segments(self) -> Int32:
        """`[leaves]` int32, the segment in which each distinct prompt ends; -1: it has left."""
        return self._leaf_segments.values

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

    def insert(self, prompt: Int32) -> tuple[int, int | None]:
        """Takes a prompt in.

        Args:
            prompt: `[tokens]` int32, at least one.

        Returns:
            Its leaf, and the lower part of the segment that was parted for it, if one was.
        """
        segment, rest, parted, sharing = -1, prompt, None, self._sharing
        while rest.size:
            child, common = self._nearest(segment, rest)
            if child < 0 or not self._is_whole(child, common, rest.size, sharing.key_group):
                if child >= 0 and (at := self._cut(child, common)):
                    segment, rest, parted = self._part(child, at), rest[at:], child
                break
            segment, rest = child, rest[common:]
        while rest.size and segment >= 0 and self.table.depth[segment] + 2 > sharing.most_levels:
            rest = np.concatenate([self.segments[segment].tokens, rest])
            segment = int(self.table.parent[segment])
        if rest.size:
            segment = self._hang(segment, rest)
        return self._leaf_at(segment), parted

    def finish(self, leaf: int) -> int:
        """Nothing more is drawn of a prompt: should it come again, it is another leaf.

        Returns:
            The segment in which it ends, which `remove` may take out.
        """
        segment = int(self.leaf_segments[leaf])
        self.segments[segment].ends_prompt = False
        del self._leaves[segment]
        self.leaf_segments[leaf] = -1
        return segment

    def remove(self, segment: int) -> None:
        """Takes out a segment, of a prompt or a frozen tail, that nothing hangs from or needs."""
        if not self.table.is_tail[segment]:
            self._forget(segment)
            self._places.remove(segment)
            self._places.remove(_end_of(segment))
            self.n_tokens -= self.segments.pop(segment).tokens.size
        self.table.remove(segment)

    def _put_in_order(self) -> None:
        for segment in self.segments:
            self.table.order[segment] = self._places[segment]

    def _place(self, segment: int, behind: int, behind_end: int) -> None:
        """Gives a segment its place in depth-first order.

        Args:
            segment: it is new.
            behind: what comes after its beginning.
            behind_end: what comes after all that is below it.
        """
        has_moved = self._places.put(segment, behind)
        if self._places.put(_end_of(segment), behind_end) or has_moved:
            self._put_in_order()
        self.table.order[segment] = self._places[segment]

    def _head(self, segment: int) -> tuple[int, bytes]:
        """What segments are found by: where they hang, and their first tokens."""
        first = self.segments[segment].tokens[: self._sharing.least_tokens]
        return int(self.table.parent[segment]), first.tobytes()

    def _note(self, segment: int) -> None:
        """Lets a segment be found."""
        self._alike[self._head(segment)][segment] = None
        if (size := self.segments[segment].tokens.size) < self._sharing.least_tokens:
            self._short[int(self.table.parent[segment])][size] += 1

    def _forget(self, segment: int) -> None:
        """Lets a segment not be found any more."""
        head, above = self._head(segment), int(self.table.parent[segment])
        del self._alike[head][segment]
        if not self._alike[head]:
            del self._alike[head]
        if (size := self.segments[segment].tokens.size) < self._sharing.least_tokens:
            self._short[above] -= Counter({size: 1})
            if not self._short[above]:
                del self._short[above]

    def _nearest(self, segment: int, rest: Int32) -> tuple[int, int]:
        """The segment below one that shares most with `rest`, -1 if none can, and the tokens.

        Of many that begin alike, since they could not be parted, the last ones are looked at.
        """
        nearest, most = -1, 0
        least, short = self._sharing.least_tokens, self._short.get(segment, ())
        for size in [*short, least]:
            if size > rest.size:
                continue
            alike = self._alike.get((segment, rest[:size].tobytes()), {})
            for child in islice(reversed(alike), _LOOKED_AT):
                common = common_prefix(self.segments[child].tokens, rest)
                if common > most:
                    nearest, most = child, common
        return nearest, most

    def _is_whole(self, child: int, common: int, size: int, group: int) -> bool:
        """Whether a prompt goes through all of a segment; only leaves end between groups."""
        if common < self.segments[child].tokens.size:
            return False
        return common == size or self.end(child) % group == 0

    def _cut(self, child: int, common: int) -> int:
        """Where a segment is to be parted that begins with common tokens; 0: not at all."""
        sharing = self._sharing
        at = min(common, self.segments[child].tokens.size - 1)
        at -= (self.segments[child].start + at) % sharing.key_group
        if not sharing.may_part or at < sharing.least_tokens:
            return 0
        deepest = int(self.table.depth[self.table.below(child)].max())
        return at if deepest + 2 <= sharing.most_levels else 0

    def _part(self, lower: int, at: int) -> int:
        """Makes the first tokens of a segment one of their own, above it."""
        below = self.segments[lower]
        self._forget(lower)
        upper = self.table.split(lower, at)
        self.segments[upper] = LiveSegment(below.tokens[:at], below.start)
        below.tokens, below.start = below.tokens[at:], below.start + at
        self._note(upper)
        self._note(lower)
        self._place(upper, lower, self._places.behind(_end_of(lower)))
        return upper

    def _hang(self, parent: int, tokens: Int32) -> int:
        """A new segment below another, behind its siblings."""
        start = self.end(parent) if parent >= 0 else 0
        segment = self.table.add_prompt(parent, tokens.size)
        self.segments[segment] = LiveSegment(tokens.copy(), start)
        self.n_tokens += tokens.size
        self._note(segment)
        above = _end_of(parent) if parent >= 0 else Places.END
        self._place(segment, above, above)
        return segment

    def _leaf_at(self, segment: int) -> int:
        """The leaf of a segment; a new one where no prompt has ended."""
        if not self.segments[segment].ends_prompt:
            self.segments[segment].ends_prompt = True
            self._leaves[segment] = self.leaf_segments.size
            self._leaf_segments.append(np.array([segment], np.int32))
        return self._leaves[segment]


def _end_of(segment: int) -> int:
    """What stands in the order for the end of all that is below a segment."""
    return -2 - segment
