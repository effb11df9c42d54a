"""Text to token ids, whole and exactly as the tokenizer gives them, or a clear refusal.

One thing is not left as the tokenizer gives it: where a text already begins with the token that the
tokenizer or its chat template puts before every text (BOS), it does not stand there twice.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError, ModelError, Setting

_LOG = logging.getLogger(__name__)
_BATCH = 1024  # texts a call: the ids are Python integers until they are packed


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    name_or_path: str
    unk_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    def __call__(self, text: list[str], *, add_special_tokens: bool, verbose: bool) -> Any:
        """Encodes texts; `["input_ids"]` holds a list of ids each."""

    def __len__(self) -> int:
        """Number of tokens."""

    def apply_chat_template(
        self,
        conversation: list[Any],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **switches: Any,
    ) -> Any:
        """Renders messages."""


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], names: Sequence[str], *, special: bool
) -> list[Int32]:
    """Token ids of whole texts, in few calls.

    Args:
        tokenizer: the model's.
        texts: what to encode.
        names: what messages call each of them.
        special: let the tokenizer add its special tokens, such as BOS.

    Returns:
        For each text int32 `[tokens]`, read-only.

    Raises:
        ModelError: the tokenizer has no tokens for a part of a text; the message names the part.
    """
    encoded: list[Int32] = []
    any_twice = False
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        try:
            ids = tokenizer(batch, add_special_tokens=special, verbose=False)["input_ids"]
        except Exception as error:  # tokenizers raise what they like
            _refuse(tokenizer, batch, names[start:], str(error))
        if any(_has_unknown(tokenizer, tokens) for tokens in ids):
            _refuse(tokenizer, batch, names[start:], "unknown token")
        for tokens in ids:
            twice = _begins_twice(tokenizer, tokens)
            any_twice |= twice
            encoded.append(packed(tokens[1:] if twice else tokens))
    if special and any(_holds_second(tokenizer, tokens) for tokens in encoded):
        _LOG.warning("prompts hold the tokenizer's BOS token behind their first: it is left there")
    if any_twice:
        _LOG.warning("prompts begin with the tokenizer's BOS token already: no second one is added")
    return encoded


def _begins_twice(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether a text that begins with BOS was given one more."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(ids[:2]) == [bos, bos]


def _holds_second(tokenizer: Tokenizer, ids: Int32) -> bool:
    """Whether a text has BOS in its middle, which as EOS also it may well."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return False
    return bool(ids[0] == bos and (ids[1:] == bos).any()) if ids.size else False


def packed(ids: Sequence[int] | NDArray[Any]) -> Int32:
    """Token ids as int32 `[tokens]`, read-only."""
    array = np.array(ids, np.int32)
    array.flags.writeable = False
    return array


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    name: str,
    options: Mapping[str, Any],
) -> str:
    """Messages through the tokenizer's chat template, up to where the answer begins.

    Args:
        tokenizer: the model's.
        messages: with `role` and `content`.
        name: what error messages call the conversation.
        options: the template's own switches, such as `enable_thinking`.

    Raises:
        InputError: the template has no such switch.
        ModelError: there is no template, or it refuses the conversation.
    """
    model = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name}: the tokenizer of {model} has no chat template; "
            "choose a chat model, or sample without ",
            Setting("chat"),
            " and chat messages",
        )
    _check_switches(tokenizer, options)
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **options
            )
        )
    except Exception as error:  # a template is a program of the model's authors
        raise ModelError(f"{name}: the chat template of {model} refuses it: {error}") from error


def _check_switches(tokenizer: Tokenizer, options: Mapping[str, Any]) -> None:
    """Refuses what a template does not read: it would pass over it in silence."""
    if not options:
        return
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template]
    words = {word for text in texts for word in re.findall(r"[A-Za-z_]\w*", str(text))}
    words -= {"messages", *signature(tokenizer.apply_chat_template).parameters}
    for name in options:
        if name not in words:
            close = get_close_matches(name, words, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(
                f"the chat template of {tokenizer.name_or_path} has no such switch{hint}",
                setting="chat_options",
                value=name,
            )


def _has_unknown(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether something was lost. Where the id doubles as BOS or EOS it says nothing."""
    unknown = tokenizer.unk_token_id
    return unknown not in (None, tokenizer.bos_token_id, tokenizer.eos_token_id) and unknown in ids


def _refuse(
    tokenizer: Tokenizer, texts: Sequence[str], names: Sequence[str], reason: str
) -> NoReturn:
    """Names the first character or word, or at least text, that cannot be encoded."""
    model = tokenizer.name_or_path
    for text, name in zip(texts, names, strict=False):
        for part in dict.fromkeys([*text, *text.split(), text]):
            if not _is_encodable(tokenizer, part):
                raise ModelError(
                    f"{name}: the tokenizer of {model} cannot encode {part[:40]!r} ({reason}); "
                    "change the text, or choose another model"
                )
    raise ModelError(f"the tokenizer of {model} fails: {reason}; choose another model")


def _is_encodable(tokenizer: Tokenizer, text: str) -> bool:
    try:
        (ids,) = tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"]
    except Exception:
        return False
    return not _has_unknown(tokenizer, ids)
