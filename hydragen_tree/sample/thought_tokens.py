"""Thoughts that special tokens part from the answer: the text shows nothing of them (Magistral)."""

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.thoughts import is_thought_tag


class ThoughtTokens:
    """The special tokens of a tokenizer that begin or end a thought.

    Args:
        detokenizer: the tokenizer's.
    """

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        special = detokenizer.special.items()
        self._begins = [token for token, text in special if is_thought_tag(text, ends=False)]
        self._ends = [token for token, text in special if is_thought_tag(text, ends=True)]

    def marked(self, text: str, prompt: Int32, tokens: Int32) -> str:
        """A text with tags where such tokens were drawn; as it is where none were.

        Args:
            text: of the tokens, a stop cut off.
            prompt: the tokens before.
            tokens: those drawn.
        """
        if not (self._begins or self._ends):
            return text
        ends = np.flatnonzero(np.isin(tokens, self._ends))
        if ends.size:
            length = len(self._detokenizer.text(prompt, tokens[: ends[0]]))
            return f"<think>\n{text[:length]}\n</think>\n\n{text[length:]}"
        return f"<think>\n{text}" if np.isin(tokens, self._begins).any() else text
