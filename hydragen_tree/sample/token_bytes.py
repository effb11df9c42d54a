"""The bytes of every token, so that a text is put together without decoding it again and again.

Byte-level BPE (GPT-2's alphabet of bytes), byte-fallback BPE and unigram (`<0x0A>`, `▁` for a
space) and WordPiece decode a token at a time: a token's bytes are the same wherever it stands, but
for the first of a text, which may lose a leading space. The table is read from the tokenizer's own
decoder and checked against it; a tokenizer that does something else has no table.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_CHECKED_TOKENS = 1024
_NEWEST_TOKENS = 64  # at the vocabulary's end, where added ones are; all of them are checked
_CHECKED_LENGTH = 8  # tokens of a text that the table is checked with
_WORDPIECE_CLEANUP = (  # in this order, as the tokenizers library does it
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass(frozen=True, eq=False, slots=True)
class TokenBytes:
    """What each token adds to a text.

    Args:
        later: `[tokens]` the bytes of a token within a text.
        first: `[tokens]` the bytes of a token that opens a text.
        opens: bool `[tokens]`; after such a token the next one is within the text. Special tokens,
            of which a text holds nothing, are not among them.
        special: text of each special token by its id.
    """

    later: Sequence[bytes]
    first: Sequence[bytes]
    opens: NDArray[np.bool_]
    special: Mapping[int, str]

    @classmethod
    def of(cls, tokenizer: Any, vocabulary_size: int) -> "TokenBytes | None":
        """The table of a tokenizer; None if its decoder does not work a token at a time.

        Args:
            tokenizer: a transformers tokenizer.
            vocabulary_size: of the model's logits; ids without a token have no bytes.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = getattr(backend, "decoder", None)
        if backend is None or decoder is None:
            return None
        rule = _rule(json.loads(decoder.__getstate__()))
        if rule is None:
            return None
        table = _fill(rule, backend, max(vocabulary_size, len(tokenizer)))
        return table if _agrees(table, tokenizer) else None

    def is_open(self, tokens: Int32) -> bool:
        """Whether a text has begun with these tokens: the next one is not its first."""
        last = bool(self.opens[tokens[-1:]].any())  # as of nearly every prompt
        return last or bool(self.opens[tokens].any())

    def pieces(self, tokens: Int32, is_open: bool) -> list[bytes]:
        """The bytes that each token adds.

        Args:
            tokens: `[tokens]`.
            is_open: what stands before them has begun the text.
        """
        first = 0 if is_open else int(np.append(self.opens[tokens], True).argmax()) + 1
        numbers = tokens.tolist()
        before = [self.first[token] for token in numbers[:first]]
        return before + [self.later[token] for token in numbers[first:]]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a decoder turns one token into bytes, within a text and as its first token."""

    later: Callable[[str], bytes]
    first: Callable[[str], bytes]
    empty_opens: bool  # a first token without bytes counts as the first


def _rule(spec: Mapping[str, Any]) -> _Rule | None:
    steps = spec["decoders"] if spec["type"] == "Sequence" else [spec]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _Rule(_byte_level, _byte_level, False)
    if kinds == ["WordPiece"]:
        return _word_piece(steps[0])
    if kinds == ["Metaspace"]:
        return _metaspace(steps[0])
    if kinds[-1] == "ByteLevel":  # as GGUF files' tokenizers have it, behind steps for other kinds
        return _byte_level_behind(_byte_fallback(steps[:-1]))
    return _byte_fallback(steps)


def _byte_fallback(steps: Sequence[Mapping[str, Any]]) -> _Rule | None:
    """Replacements of single strings, bytes, and at most a space lost at the start of the whole."""
    replacements: list[tuple[str, str]] = []
    has_bytes = is_fused = False
    stripped = b""
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": old}, "content": new} if (
                not has_bytes or len(old) == 1  # one character lies within one token
            ):
                replacements.append((old, new))
            case {"type": "ByteFallback"} if not is_fused:
                has_bytes = True
            case {"type": "Fuse"}:
                is_fused = True
            case {"type": "Strip", "content": content, "start": 1, "stop": 0} if (
                is_fused and not stripped
            ):
                stripped = content.encode()
            case _:
                return None

    def later(piece: str) -> bytes:
        for old, new in replacements:
            piece = piece.replace(old, new)
        byte = _BYTE.fullmatch(piece) if has_bytes else None
        return bytes([int(byte[1], 16)]) if byte else piece.encode()

    return _Rule(later, lambda piece: later(piece).removeprefix(stripped), False)


def _byte_level_behind(rule: _Rule | None) -> _Rule | None:
    """Byte-level decoding of what another rule makes of a token."""
    if rule is None:
        return None
    later, first = rule.later, rule.first
    return _Rule(
        lambda piece: _byte_level(later(piece).decode("utf-8", "replace")),
        lambda piece: _byte_level(first(piece).decode("utf-8", "replace")),
        rule.empty_opens,
    )


def _metaspace(step: Mapping[str, Any]) -> _Rule:
    mark, keeps = step["replacement"], step["prepend_scheme"] == "never"
    return _Rule(
        lambda piece: piece.replace(mark, " ").encode(),
        lambda piece: piece.replace(mark, " " if keeps else "").encode(),
        True,
    )


def _word_piece(step: Mapping[str, Any]) -> _Rule:
    prefix, cleanup = step["prefix"], step["cleanup"]

    def cleaned(piece: str) -> bytes:
        for old, new in _WORDPIECE_CLEANUP if cleanup else ():
            piece = piece.replace(old, new)
        return piece.encode()

    def later(piece: str) -> bytes:
        return cleaned(piece[len(prefix) :] if piece.startswith(prefix) else f" {piece}")

    return _Rule(later, cleaned, True)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the rest for 256 + i."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _byte_level(piece: str) -> bytes:
    """An added token may hold other characters; it then stands for its own text."""
    try:
        return bytes(map(_ALPHABET.__getitem__, piece))
    except KeyError:
        return piece.encode()


def _fill(rule: _Rule, backend: Any, size: int) -> TokenBytes:
    pieces = {token: piece for piece, token in backend.get_vocab().items()}
    added = backend.get_added_tokens_decoder()
    # Some are normalised before they are decoded: Llama's gain a leading space.
    pieces |= {token: backend.id_to_token(token) for token in added}
    special_texts = {entry.content for entry in added.values() if entry.special}
    special = {token: piece for token, piece in pieces.items() if piece in special_texts}
    later, first = [b""] * size, [b""] * size
    opens = np.zeros(size, np.bool_)
    for token, piece in pieces.items():
        if token < size and token not in special:
            later[token], first[token] = rule.later(piece), rule.first(piece)
            opens[token] = rule.empty_opens or bool(later[token])
    return TokenBytes(later, first, opens, special)


def _agrees(table: TokenBytes, tokenizer: Any) -> bool:
    """Whether texts of tokens from all over the vocabulary are what the tokenizer decodes.

    Texts that are not valid UTF-8 are passed over: decoders differ in what they put there.
    """
    size = len(tokenizer)
    step = max(1, size // _CHECKED_TOKENS)
    spread, newest = np.arange(0, size, step), np.arange(max(0, size - _NEWEST_TOKENS), size)
    chosen = np.union1d(spread, newest).astype(np.int32)
    shuffled = np.random.default_rng(0).permutation(chosen)
    texts = [*shuffled[:, None], *np.array_split(shuffled, -(-chosen.size // _CHECKED_LENGTH))]
    for tokens in texts:
        try:
            text = b"".join(table.pieces(tokens, is_open=False)).decode()
        except UnicodeDecodeError:
            continue
        decoded = tokenizer.decode(
            tokens.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if text != decoded:
            return False
    return True
