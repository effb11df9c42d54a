"""What has followed which tokens, in prompts and in all samples drawn so far: a source of drafts.

Samples of one problem say much the same, and each of them repeats itself and its prompt. So what
followed a row's last tokens before is likely to follow them again. A table of fixed size, indexed
by a hash of up to three tokens, holds one next token for each such context:

    three tokens of this problem, else two, else three of any problem, else one

Each entry is decided by votes: an occurrence that agrees adds one, another takes one away, and
below zero the entry changes hands. An entry of another context is replaced at once, so that what
is old and never met again gives way. Nothing depends on what is proposed but speed, so hashes may
collide.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

CONTEXT_TOKENS = 3
_TOKEN_BITS = 21  # a context is its last three tokens in one number of 63 bits
_CONTEXT_MASK = (1 << CONTEXT_TOKENS * _TOKEN_BITS) - 1
_ENTRY_BITS = 20
_MOST_VOTES = 7
_ANY = -1  # in place of a problem's number

# Sources of a proposal, the surest first: tokens of context, and whether of this problem's only.
_SOURCES = ((3, True), (2, True), (3, False), (1, True))
N_SOURCES = len(_SOURCES)
_MASKS = np.array([(1 << _TOKEN_BITS * tokens) - 1 for tokens, _ in _SOURCES], np.int64)
_IS_OWN = np.array([is_own for _, is_own in _SOURCES])
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93], np.uint64)
_PROBLEM_FACTOR, _SOURCE_FACTOR, _FACTOR = _FACTORS.view(np.int64)[:, None]


def after(contexts: NDArray[np.int64], tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """The contexts that tokens make of contexts, `[n]` each."""
    return ((contexts << _TOKEN_BITS) | tokens.astype(np.int64)) & _CONTEXT_MASK


def contexts_of(drawn: Int32, n_drawn: Int32) -> NDArray[np.int64]:
    """The contexts of rows: their last tokens; zeros before the first.

    Args:
        drawn: `[rows, most]` tokens.
        n_drawn: `[rows]` how many there are.
    """
    rows, contexts = np.arange(n_drawn.size), np.zeros(n_drawn.size, np.int64)
    for back in range(CONTEXT_TOKENS, 0, -1):
        place = n_drawn - back
        token = np.where(place >= 0, drawn[rows, np.maximum(place, 0)], 0)
        contexts = after(contexts, token)
    return contexts


class DraftTable:
    """Next tokens by context.

    Attributes:
        entries: `[size]` int64, a tag of the context in the upper half, the token in the lower;
            -1 where there is none.
    """

    def __init__(self) -> None:
        self.entries = np.full(1 << _ENTRY_BITS, -1, np.int64)
        self._votes = np.zeros(1 << _ENTRY_BITS, np.int8)

    def add_text(self, problem: int, tokens: Int32) -> None:
        """Takes in the tokens of a prompt."""
        place = np.arange(tokens.size)
        before = np.concatenate([np.zeros(CONTEXT_TOKENS, np.int32), tokens])
        windows = np.lib.stride_tricks.sliding_window_view(before, CONTEXT_TOKENS)[: place.size]
        contexts = contexts_of(windows, np.full(place.size, CONTEXT_TOKENS))
        self.add(np.full(place.size, problem), contexts, tokens)

    def add(
        self,
        problems: NDArray[np.integer],
        contexts: NDArray[np.int64],
        tokens: NDArray[np.integer],
    ) -> NDArray[np.int64]:
        """Takes in what has followed contexts, `[n]` each.

        Returns:
            `[4 n]` places of the entries that may have changed.
        """
        places, tags = self._find(problems, contexts)
        values = (tags << 32) | tokens.astype(np.int64)[:, None]
        places, values, tags = places.ravel(), values.ravel(), tags.ravel()
        np.add.at(self._votes, places, np.where(self.entries[places] == values, 1, -1))
        votes = np.clip(self._votes[places], -1, _MOST_VOTES)
        is_new = (votes < 0) | (self.entries[places] >> 32 != tags)
        self._votes[places] = np.where(is_new, 0, votes)
        self.entries[places[is_new]] = values[is_new]
        return places

    def propose(
        self, problems: NDArray[np.integer], contexts: NDArray[np.int64], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Guesses what follows.

        Args:
            problems: `[rows]`.
            contexts: `[rows]`.
            most: tokens for each row at the most.

        Returns:
            `[rows, most]` tokens, and the source of each; -1 from where on nothing is known.
        """
        tokens = np.full((problems.size, most), -1, np.int64)
        sources = tokens.copy()
        rows = np.arange(problems.size)
        for step in range(most):
            places, tags = self._find(problems[rows], contexts)
            entries = self.entries[places]
            is_known = entries >> 32 == tags
            source = is_known.argmax(1)
            here = np.arange(rows.size)
            found = is_known[here, source]
            rows, source = rows[found], source[found]
            token = entries[here[found], source] & 0xFFFFFFFF
            tokens[rows, step], sources[rows, step] = token, source
            contexts = after(contexts[found], token)
        return tokens, sources

    def _find(
        self, problems: NDArray[np.integer], contexts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`[n, sources]` places of entries, and the tags they must have."""
        owners = np.where(_IS_OWN, problems.astype(np.int64)[:, None], _ANY)
        keys: NDArray[np.int64] = (contexts[:, None] & _MASKS) + owners * _PROBLEM_FACTOR
        keys += np.arange(N_SOURCES) * _SOURCE_FACTOR
        keys = (keys ^ (keys >> 31)) * _FACTOR
        tags = (keys >> (32 - _ENTRY_BITS)) & 0x7FFFFFFF
        return (keys >> (64 - _ENTRY_BITS)) & ((1 << _ENTRY_BITS) - 1), tags
