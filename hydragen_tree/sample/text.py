"""Tokens back to text: what they add after a prompt."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from hydragen_kernels.arrays import Int32
from hydragen_tree.sample.token_bytes import TokenBytes

_CONTEXT_TOKENS = 64  # of a prompt, where a text has to be decoded: decoders look at neighbours


class Detokenizer:
    """The text of completions of one tokenizer.

    A completion is the bytes of its tokens, read as UTF-8. That is what decoding prompt and answer
    together gives, less the prompt; only bytes that are no character give U+FFFD. Where the
    tokenizer has no table of bytes, prompt and answer are in fact decoded together.

    Args:
        tokenizer: a transformers tokenizer.
        vocabulary_size: of the model's logits; may exceed the tokenizer's.

    Attributes:
        tokenizer: the same.
        vocabulary_size: the same.
        special: text of each special token by its id.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocabulary_size = vocabulary_size
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special: dict[int, str] = {
            token: entry.content for token, entry in added.items() if entry.special
        }

    @cached_property
    def table(self) -> TokenBytes | None:
        """The bytes of each token, if the tokenizer has them; of 128,000 tokens in 0.7 s."""
        return TokenBytes.of(self.tokenizer, self.vocabulary_size)

    def named_specials(self, stops: Collection[str]) -> list[int]:
        """Special tokens that are a stop by their text."""
        return [token for token, text in self.special.items() if text in stops]

    def text(self, prompt: Int32, tokens: Int32) -> str:
        """The text that `tokens` add after `prompt`, all of it."""
        if self.table is None:
            return self._decoded(prompt, tokens)
        pieces = self.table.pieces(tokens, self.table.is_open(prompt))
        return b"".join(pieces).decode("utf-8", "replace")

    def _decoded(self, prompt: Int32, tokens: Int32) -> str:
        context = prompt[-_CONTEXT_TOKENS:].tolist()
        before = self._decode(context)
        if not before:  # special tokens alone: what is before them decides
            context = prompt.tolist()
            before = self._decode(context)
        whole = self._decode(context + tokens.tolist())
        return whole[_common(before, whole) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _common(one: str, other: str) -> int:
    """Length of what two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
