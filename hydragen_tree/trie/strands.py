"""A radix tree that grows by one prompt at a time: where long prompts are, it is one array.

A *strand* is a run of tokens as long as possible: at every branching the longest way on belongs to
the strand, and the others are strands that leave it. Where prompts end and where strands leave are
positions in it, so a hundred thousand prompts that are prefixes of one another are one array and
a hundred thousand numbers, and inserting one compares it with that array once. With N distinct
tokens no prompt passes through more than sqrt(2 N) strands, in whatever order prompts come.

Source: long-path decomposition, Bender and Farach-Colton 2004, The Level Ancestor Problem
Simplified, section 3.
"""

from itertools import pairwise

import numpy as np

from hydragen_kernels.arrays import Int32


class Strand:
    """A run of tokens, the prompts that end in it, and the strands that leave it.

    Positions count tokens from the strand's beginning: what happens at position p comes after p
    tokens of it.

    Attributes:
        ends: position to the number of the prompt that ends there.
        branches: position to the strands that leave there, by their first token.
    """

    def __init__(self, tokens: Int32) -> None:
        self._buffer = tokens
        self._size = tokens.size
        self.ends: dict[int, int] = {}
        self.branches: dict[int, dict[int, Strand]] = {}

    @property
    def tokens(self) -> Int32:
        """`[tokens]` int32, a view."""
        return self._buffer[: self._size]

    def insert(self, prompt: Int32, number: int) -> int:
        """Takes in a prompt that begins where this strand does.

        Args:
            prompt: `[tokens]` int32, at least one.
            number: what it is called if it is new.

        Returns:
            The number of this prompt, an earlier one if it is not new.
        """
        strand, rest = self, prompt
        while True:
            at = common_prefix(strand.tokens, rest)
            rest = rest[at:]
            if not rest.size:
                return strand.ends.setdefault(at, number)
            branch = strand.branches.get(at, {}).get(int(rest[0]))
            if branch is None:
                strand._grow(at, rest, number)
                return number
            strand = branch

    def _grow(self, at: int, rest: Int32, number: int) -> None:
        """A prompt goes on with `rest` after `at` tokens, where nothing else does."""
        left = self._size - at
        if rest.size <= left:
            self._leave(at, Strand(rest.copy()))
            self.branches[at][int(rest[0])].ends[rest.size] = number
            return
        if left:  # what was longest is so no more
            self._leave(at, self._cut(at))
        self._append(rest)
        self.ends[self._size] = number

    def _leave(self, at: int, branch: "Strand") -> None:
        self.branches.setdefault(at, {})[int(branch.tokens[0])] = branch

    def _cut(self, at: int) -> "Strand":
        """Takes what follows a position off; the steps are as many as its tokens."""
        lower = Strand(self.tokens[at:].copy())
        for position in range(at + 1, self._size + 1):
            if position in self.ends:
                lower.ends[position - at] = self.ends.pop(position)
            if position in self.branches:
                lower.branches[position - at] = self.branches.pop(position)
        self._size = at
        return lower

    def _append(self, tokens: Int32) -> None:
        size = self._size + tokens.size
        if size > self._buffer.size:
            room = size if not self._size else max(size, 2 * self._buffer.size)
            grown = np.empty(room, np.int32)
            grown[: self._size] = self.tokens
            self._buffer = grown
        self._buffer[self._size : size] = tokens
        self._size = size


class Groups:
    """Groups of tokens by number, so that a tree of the numbers parts between groups only.

    Args:
        size: tokens of a group; 1 leaves tokens as they are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers: dict[bytes, int] = {}
        self._groups: list[Int32] = []

    def numbers(self, tokens: Int32) -> Int32:
        """The number of each group `[groups]`; the last one may have fewer tokens."""
        if self._size == 1:
            return tokens
        starts = range(0, tokens.size, self._size)
        return np.array([self._number(tokens[at : at + self._size]) for at in starts], np.int32)

    def tokens(self, numbers: Int32) -> Int32:
        """The tokens of groups, one after the other."""
        if self._size == 1:
            return numbers
        return np.concatenate([self._groups[number] for number in numbers.tolist()])

    def _number(self, group: Int32) -> int:
        number = self._numbers.setdefault(group.tobytes(), len(self._groups))
        if number == len(self._groups):
            self._groups.append(group.copy())
        return number


def walk(top: Strand) -> tuple[list[Int32], list[int], list[int]]:
    """The radix tree's nodes, depth-first, children in the order in which prompts brought them.

    Args:
        top: the strand in which all prompts were inserted.

    Returns:
        Of each node its tokens, its parent's index (-1 for a root), and the number of the prompt
        that ends with it (-1 if none does).
    """
    tokens: list[Int32] = []
    parents: list[int] = []
    ends: list[int] = []
    stack = [(top, -1)]
    while stack:
        strand, parent = stack.pop()
        cuts = sorted({0, *strand.ends, *strand.branches})
        for start, stop in pairwise(cuts):
            stack += [(branch, parent) for branch in strand.branches.get(start, {}).values()]
            tokens.append(strand.tokens[start:stop])
            parents.append(parent)
            ends.append(strand.ends.get(stop, -1))
            parent = len(tokens) - 1

    order = _depth_first(parents, ends)
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1  # a root's parent is found at -1
    return (
        [tokens[node] for node in order],
        place[np.array(parents)[order]].tolist(),
        [ends[node] for node in order],
    )


def _depth_first(parents: list[int], ends: list[int]) -> list[int]:
    """Nodes in depth-first order, siblings by the first prompt that came through them."""
    never = max(ends) + 1
    first = [end if end >= 0 else never for end in ends]
    for node in range(len(parents) - 1, -1, -1):  # children come after their parent
        if parents[node] >= 0:
            first[parents[node]] = min(first[parents[node]], first[node])
    children: list[list[int]] = [[] for _ in range(len(parents) + 1)]  # the roots are the last
    for node in sorted(range(len(parents)), key=first.__getitem__, reverse=True):
        children[parents[node]].append(node)
    order: list[int] = []
    stack = children[-1]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += children[node]
    return order


def common_prefix(a: Int32, b: Int32) -> int:
    """Length of the common prefix."""
    n = min(a.size, b.size)
    if not n:
        return 0
    differs = a[:n] != b[:n]
    first = int(differs.argmax())
    return first if differs[first] else n
