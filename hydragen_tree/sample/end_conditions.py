"""What ends a sample, for people and the manifest; stop tokens by their text or id."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.stops import encoded
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.settings import SamplingSettings


@dataclass(frozen=True, slots=True)
class EndConditions:
    """Everything that ends a sample before its tokens run out.

    Attributes:
        eos: text by id of the tokens that the model's configuration names.
        stop_tokens: text by id of those that the settings name, special tokens among the stop
            strings included.
        stop: the settings' stop strings.
        template_stop: stop strings of the prompts' templates, each for its own prompts.
    """

    eos: Mapping[int, str]
    stop_tokens: Mapping[int, str]
    stop: tuple[str, ...]
    template_stop: tuple[str, ...]

    @classmethod
    def of(
        cls,
        detokenizer: Detokenizer,
        eos_ids: Collection[int],
        settings: SamplingSettings,
        prompts: Sequence[Prompt],
    ) -> "EndConditions":
        """Collects them.

        Raises:
            InputError: the tokenizer has no such stop token.
        """
        named = detokenizer.named_specials(settings.stop)
        ids = {*find_tokens(detokenizer, settings.stop_tokens), *named}.difference(eos_ids)
        return cls(
            _texts(detokenizer, sorted(eos_ids)),
            _texts(detokenizer, sorted(ids)),
            tuple(settings.stop),
            tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
        )

    def record(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        record = asdict(self)
        for key in ("eos", "stop_tokens"):
            record[key] = {str(token): text for token, text in record[key].items()}
        return record

    def __str__(self) -> str:
        tokens = [f"{text} ({token})" for token, text in {**self.eos, **self.stop_tokens}.items()]
        strings = [repr(stop) for stop in dict.fromkeys([*self.stop, *self.template_stop])]
        return ", ".join([*tokens, *strings]) or "nothing but the number of tokens"


def find_tokens(detokenizer: Detokenizer, names: Sequence[str | int]) -> list[int]:
    """Ids of tokens that are named by id, by their text, or as the vocabulary spells them.

    A text names all tokens that have it: byte-fallback vocabularies may hold two newlines.

    Raises:
        InputError: there is no such token.
    """
    return [token for name in names for token in _find(detokenizer, name)]


def _find(detokenizer: Detokenizer, name: str | int) -> list[int]:
    tokenizer, special = detokenizer.tokenizer, detokenizer.special
    if isinstance(name, int) or name.isdecimal():
        if int(name) in range(len(tokenizer)):
            return [int(name)]
        raise InputError(
            f"expected an id below {len(tokenizer)}, the size of the vocabulary",
            setting="stop_tokens",
            value=name,
        )
    if found := detokenizer.named_specials([name]) or _with_text(detokenizer, name):
        return found
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if name in vocabulary:
        return [vocabulary[name]]
    close = get_close_matches(name, special.values(), 1) or list(special.values())[:8]
    known = f"; its special tokens: {', '.join(close)}" if close else ""
    raise InputError(
        f"the tokenizer has no such token{known}; give another, its id, or the text as a stop "
        "string",
        setting="stop_tokens",
        value=repr(name),
    )


def _with_text(detokenizer: Detokenizer, text: str) -> list[int]:
    """All tokens that add this text within another."""
    tokenizer, table, sought = detokenizer.tokenizer, detokenizer.table, encoded(text)
    if table is not None:
        return [token for token, piece in enumerate(table.later) if piece == sought != b""]
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids if len(ids) == 1 and tokenizer.decode(ids) == text else []


def _texts(detokenizer: Detokenizer, ids: Sequence[int]) -> dict[int, str]:
    """How messages show tokens; an id that the vocabulary lacks is never drawn, and left out."""
    tokenizer, special = detokenizer.tokenizer, detokenizer.special
    known = [token for token in ids if token in range(len(tokenizer))]
    table = None if special.keys() >= set(known) else detokenizer.table

    def text(token: int) -> str:
        if table is None:
            return repr(tokenizer.decode([token]))
        return repr(table.later[token].decode("utf-8", "replace"))

    return {token: special.get(token) or text(token) for token in known}
