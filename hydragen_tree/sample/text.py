"""Tokens back to text: what they add after a prompt."""

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
        table: the bytes of each token, if the tokenizer has them.
        special: text of each special token by its id.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self.vocabulary_size = vocabulary_size
        self.table = TokenBytes.of(tokenizer, vocabulary_size)
        self.special = special_tokens(tokenizer)

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
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Text of each special token by its id."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {token: entry.content for token, entry in added.items() if entry.special}


def _common(one: str, other: str) -> int:
    """Length of what two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
