"""What has followed which tokens, in prompts and in all samples drawn so far: a source of drafts.

Samples of one problem say much the same, and each of them repeats itself and its prompt. So what
followed a row's last tokens before is likely to follow them again. A table of fixed size, indexed
by a hash of up to seven tokens, holds one next token for each such context. The longest one that is
known says what is proposed; `draft_hash.SOURCES` has their order.

What came last stays: so an entry follows the samples, and what is never met again gives way. What
is proposed changes nothing but speed, so hashes may collide.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.draft_hash import CONTEXT_TOKENS, ENTRY_BITS, after, find


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


def text_contexts(tokens: Int32) -> NDArray[np.int64]:
    """The contexts that the tokens of a text follow, one for each."""
    before = np.concatenate([np.zeros(CONTEXT_TOKENS, np.int32), tokens])
    windows = np.lib.stride_tricks.sliding_window_view(before, CONTEXT_TOKENS)[: tokens.size]
    return contexts_of(windows, np.full(tokens.size, CONTEXT_TOKENS))


class DraftTable:
    """Next tokens by context.

    Attributes:
        entries: `[size]` int64, see `hydragen_kernels.draft_hash`.
    """

    def __init__(self) -> None:
        self.entries = np.full(1 << ENTRY_BITS, -1, np.int64)

    def add_text(self, problem: int, tokens: Int32) -> None:
        """Takes in the tokens of a prompt."""
        self.add(np.full(tokens.size, problem), text_contexts(tokens), tokens)

    def add(
        self,
        problems: NDArray[np.integer],
        contexts: NDArray[np.int64],
        tokens: NDArray[np.integer],
    ) -> None:
        """Takes in what has followed contexts, `[n]` each."""
        places, tags = find(problems, contexts)
        self.entries[places] = (tags << 32) | tokens.astype(np.int64)[:, None]

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
            places, tags = find(problems[rows], contexts)
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
