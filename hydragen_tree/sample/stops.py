"""Where samples end: stop strings as one automaton over bytes, advanced a token at a time.

Aho and Corasick's automaton finds all stop strings of a prompt at once. What a token's bytes do to
each of its states is one row of a table, so that whether a sample ends is known from its state and
its next token alone, wherever the stop string begins or ends.

Source: Aho and Corasick, "Efficient string matching", 1975.
"""

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.sample.token_bytes import TokenBytes

BY_TOKEN = -1  # the token itself ends a sample; below it, -1 - b: at its byte b, counted from 1


class StopTable:
    """The next state for every state and token: `[states, vocabulary]`.

    Rows are computed when a state is first reached; a run reaches few of them.

    Args:
        tokens: the bytes of every token.
        stop_sets: the stop strings of each kind of prompt.
        ending: for each of these sets the tokens that end a sample, whatever they hold.

    Attributes:
        n_states: of all automata together.
        read: for each set the special tokens that are read as text, see `read_specials`.
    """

    def __init__(
        self,
        tokens: TokenBytes,
        stop_sets: Sequence[Sequence[str]],
        ending: Sequence[Collection[int]],
    ) -> None:
        self._tokens = tokens
        self._automata = [Automaton(list(map(encoded, stops))) for stops in stop_sets]
        sizes = [1 + automaton.n_states for automaton in self._automata]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.n_states = int(self._offsets[-1])
        longest = max(map(len, tokens.later), default=0)
        kind = np.int16 if max(self.n_states, longest + 2) < 1 << 15 else np.int32
        self._next = np.empty((self.n_states, len(tokens.later)), kind)
        self._known = np.zeros(self.n_states, np.bool_)
        self._ending = [sorted(ids) for ids in ending]
        self.read = [read_specials(tokens, stops) for stops in stop_sets]
        self._later = _Packed(tokens.later)
        self._first = self._later if tokens.first == tokens.later else _Packed(tokens.first)
        self._starts: dict[int, NDArray[np.int16] | Int32] = {}

    def start(self, stop_set: int, is_open: bool) -> int:
        """The state before the first token.

        Args:
            stop_set: number of the prompt's stop strings.
            is_open: the prompt has begun the text, so that a leading space stays.
        """
        return int(self._offsets[stop_set]) + is_open

    def advance(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The states after one more token each.

        Args:
            states: `[samples]`, none of which has ended.
            tokens: `[samples]`.

        Returns:
            int64 `[samples]`; negative where a sample ends, see `BY_TOKEN`.
        """
        self._compute(np.unique(states[~self._known[states]]))
        following: NDArray[np.int64] = self._next[states, tokens].astype(np.int64)
        return following

    def rows(self) -> NDArray[np.int16] | Int32:
        """The whole table, for a device that takes its steps without the host."""
        self._compute(np.flatnonzero(~self._known))
        return self._next

    def _compute(self, states: NDArray[np.int64]) -> None:
        """Fills rows. Of a set's states the first is that of a text not yet begun."""
        stop_sets = np.searchsorted(self._offsets, states, side="right") - 1
        for stop_set in np.unique(stop_sets).tolist():
            own = states[stop_sets == stop_set]
            first = int(self._offsets[stop_set])
            if own[0] == first:
                self._fill_first(stop_set)
            self._fill(stop_set, own[own > first])
            self._next[np.ix_(own, self._ending[stop_set])] = BY_TOKEN
        self._known[states] = True

    def _fill(self, stop_set: int, states: NDArray[np.int64]) -> None:
        """Rows of a text that has begun: the start's, but where tokens go on with a match."""
        automaton, base = self._automata[stop_set], int(self._offsets[stop_set]) + 1
        if states.size and stop_set not in self._starts:
            row = self._later.walk(automaton)
            self._starts[stop_set] = np.where(row < 0, row, row + base).astype(self._next.dtype)
        if states.size:
            self._next[states] = self._starts[stop_set]
        at, tokens, ends = self._later.deviations(automaton, states - base)
        self._next[states[at], tokens] = np.where(ends < 0, ends, ends + base)
        for token, text in self.read[stop_set].items():
            read = np.array([automaton.read(state - base, text) for state in states.tolist()])
            self._next[states, token] = np.where(read < 0, read, read + base)

    def _fill_first(self, stop_set: int) -> None:
        """The row of a text not yet begun; a token that does not begin it leaves it so."""
        automaton, base = self._automata[stop_set], int(self._offsets[stop_set]) + 1
        row = self._first.walk(automaton)
        for token, text in self.read[stop_set].items():
            row[token] = automaton.read(0, text)
        following = np.where(row < 0, row, row + base)
        following[~self._tokens.opens & (row == 0)] = base - 1
        self._next[base - 1] = following


class Automaton:
    """All of some byte strings, sought at once.

    Args:
        words: what is sought, none of it empty.

    Attributes:
        goto: int32 `[states, 256]` the state after one more byte; 0 is the start.
        is_end: bool `[states]`; a word ends here.
    """

    def __init__(self, words: Sequence[bytes]) -> None:
        children: list[dict[int, int]] = [{}]
        ends: set[int] = set()
        for word in words:
            state = 0
            for byte in word:
                if byte not in children[state]:
                    children[state][byte] = len(children)
                    children.append({})
                state = children[state][byte]
            ends.add(state)
        self.goto = np.zeros((len(children), 256), np.int32)
        self.is_end = np.zeros(len(children), np.bool_)
        self.is_end[list(ends)] = True
        self._link(children)

    def _link(self, children: list[dict[int, int]]) -> None:
        """Breadth-first: where a word goes on no further, its longest suffix in the trie does."""
        fallback = [0] * len(children)
        queue = deque([0])
        while queue:
            state = queue.popleft()
            self.is_end[state] |= self.is_end[fallback[state]]
            self.goto[state] = self.goto[fallback[state]]
            for byte, child in children[state].items():
                fallback[child] = int(self.goto[state, byte]) if state else 0
                self.goto[state, byte] = child
                queue.append(child)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.goto)

    def read(self, state: int, data: bytes) -> int:
        """The state after these bytes, or -1 - b where a word ends at byte b, counted from 1."""
        for at, byte in enumerate(data, start=1):
            state = int(self.goto[state, byte])
            if self.is_end[state]:
                return -1 - at
        return state


class _Packed:
    """The bytes of all tokens in one array."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._longest_first = np.argsort(-self._lengths, kind="stable")
        longer = np.bincount(self._lengths, minlength=1)[::-1].cumsum()[::-1]
        self._counts = longer[1:].tolist()  # of tokens that have a first, second, ... byte
        filled = np.flatnonzero(self._lengths)
        firsts = self._bytes[self._starts[filled]]
        self._by_first = filled[np.argsort(firsts, kind="stable")]
        self._n_by_first = np.bincount(firsts, minlength=256)

    def walk(self, automaton: Automaton) -> NDArray[np.int64]:
        """What every token does to the start: `[tokens]`, see `Automaton.read`."""
        starts = self._starts[self._longest_first]
        states = np.zeros(starts.size, np.int64)
        ends = np.zeros(starts.size, np.int64)
        for at, count in enumerate(self._counts):
            here = automaton.goto[states[:count], self._bytes[starts[:count] + at]]
            states[:count] = here
            ends[:count][automaton.is_end[here] & (ends[:count] == 0)] = at + 1
        row = np.empty_like(states)
        row[self._longest_first] = np.where(ends > 0, -1 - ends, states)
        return row

    def deviations(
        self, automaton: Automaton, states: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where tokens do something else to states than to the start.

        They do while they go on with what a state has matched. Once both are in one state, they
        stay so; and what ends for the start has ended for any other state by then.

        Args:
            automaton: of the stop strings.
            states: `[states]` of it.

        Returns:
            `[pairs]` each: position in `states`, token, and what it does to that state.
        """
        at, byte = np.nonzero(automaton.goto[states] != automaton.goto[0])
        counts = self._n_by_first[byte]
        firsts = (np.cumsum(self._n_by_first) - self._n_by_first)[byte]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at, tokens = np.repeat(at, counts), self._by_first[np.repeat(firsts, counts) + within]
        here, base = states[at], np.zeros(at.size, np.int64)
        without = np.flatnonzero(self._lengths == 0)  # a token without bytes changes no state
        rows = np.arange(states.size)
        found = [
            (
                np.repeat(rows, without.size),
                np.tile(without, rows.size),
                states.repeat(without.size),
            )
        ]
        read = 0
        while at.size:
            byte = self._bytes[self._starts[tokens] + read]
            here, base = automaton.goto[here, byte], automaton.goto[base, byte]
            read += 1
            ended = automaton.is_end[here]
            differs = (here != base) | ended
            goes_on = differs & ~ended & (self._lengths[tokens] > read)
            done = differs & ~goes_on
            found.append((at[done], tokens[done], np.where(ended, -1 - read, here)[done]))
            at, tokens, here, base = at[goes_on], tokens[goes_on], here[goes_on], base[goes_on]
        where, which, what = (np.concatenate(part) for part in zip(*found, strict=True))
        return where, which, what


def encoded(stop: str) -> bytes:
    """A stop string as the bytes that tokens hold."""
    return stop.encode("utf-8", "surrogatepass")


def read_specials(tokens: TokenBytes, stops: Collection[str]) -> dict[int, bytes]:
    """Special tokens that stand within a longer stop string: the automaton reads their text.

    All others leave no trace, in the text or in a state.
    """
    return {
        token: text.encode()
        for token, text in tokens.special.items()
        if text and any(text in stop and text != stop for stop in stops)
    }
