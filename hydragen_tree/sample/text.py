"""Tokens back to text, and where a stop string ends it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ANCHOR_TOKENS = 4  # enough context for tokenizers that drop a leading space


class Detokenizer:
    """Decodes completions of one tokenizer, and finds stop strings in them.

    Args:
        tokenizer: a transformers tokenizer.
        vocabulary_size: of the model's logits; may exceed the tokenizer's.
        stop: all strings that may end a text.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self.stop = tuple(stop)
        self.may_end = self._tokens_that_may_end(vocabulary_size)

    def _tokens_that_may_end(self, vocabulary_size: int) -> NDArray[np.bool_]:
        """`[vocabulary]`: the token can complete a stop string, since it holds its last character.

        Only after such a token is a text decoded and searched; for all others the question is
        settled by a table.
        """
        may_end = np.zeros(vocabulary_size, np.bool_)
        last = {stop[-1] for stop in self.stop}
        if last:
            for token in range(min(vocabulary_size, len(self._tokenizer))):
                piece = self._tokenizer.decode([token])
                may_end[token] = "\ufffd" in piece or not last.isdisjoint(piece)
        return may_end

    def text(self, prompt: NDArray[np.int32], tokens: NDArray[np.int32]) -> str:
        """The text that `tokens` add after `prompt`."""
        anchor = prompt[-_ANCHOR_TOKENS:].tolist()
        before = self._decode(anchor)
        whole = self._decode(anchor + tokens.tolist())
        return whole[len(before) :] if whole.startswith(before) else self._decode(tokens.tolist())

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def cut(self, text: str, stop: Sequence[str]) -> str | None:
        """The text before the first of these stop strings; None if there is none."""
        found = [at for at in map(text.find, stop) if at >= 0]
        return text[: min(found)] if found else None
