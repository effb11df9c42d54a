"""What ends a sample: named for people and the manifest; stop tokens by text or id."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from hydragen_tree.errors import InputError
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.end_conditions import EndConditions, find_tokens
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.token_bytes import TokenBytes
from hydragen_tree.settings import SamplingSettings
from tests.sample.test_endings import llama

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_DIR)
DETOKENIZER = Detokenizer(TOKENIZER, len(TOKENIZER))
PROMPT = Prompt("a", 0, np.arange(3, dtype=np.int32), ("\n```",))


def test_everything_that_ends_is_said() -> None:
    settings = SamplingSettings(stop=("Q:",), stop_tokens=("=",))
    ends = EndConditions.of(DETOKENIZER, [0], settings, [PROMPT])
    (equals,) = find_tokens(DETOKENIZER, ["="])
    assert str(ends) == f"<|end|> (0), '=' ({equals}), 'Q:', '\\n```'"
    assert ends.record()["eos"] == {"0": "<|end|>"}
    nothing = EndConditions.of(DETOKENIZER, [], SamplingSettings(), [])
    assert str(nothing) == "nothing but the number of tokens"


def test_a_special_token_among_the_stops_is_a_stop_token() -> None:
    ends = EndConditions.of(DETOKENIZER, [], SamplingSettings(stop=("<|end|>",)), [PROMPT])
    assert ends.stop_tokens == {0: "<|end|>"}


def test_tokens_by_text_spelling_and_id() -> None:
    newline = TOKENIZER.get_vocab()["Ċ"]
    assert find_tokens(DETOKENIZER, ["\n", "Ċ", str(newline), newline]) == [newline] * 4


def test_tokens_by_text_where_encoding_adds_a_space() -> None:
    tokenizer = llama()
    detokenizer, vocabulary = Detokenizer(tokenizer, len(tokenizer)), tokenizer.get_vocab()
    assert find_tokens(detokenizer, ["\n"]) == [vocabulary["<0x0A>"], vocabulary["\n"]]
    assert find_tokens(detokenizer, [" return", "▁return"]) == [vocabulary["▁return"]] * 2
    assert find_tokens(detokenizer, ["return", "</s>"]) == [
        vocabulary["return"],
        vocabulary["</s>"],
    ]
    shown = EndConditions.of(detokenizer, [], SamplingSettings(stop_tokens=(" return",)), [])
    assert str(shown) == f"' return' ({vocabulary['▁return']})"


def test_text_comes_before_spelling() -> None:
    vocabulary = TOKENIZER.get_vocab()
    assert vocabulary["é"] not in find_tokens(DETOKENIZER, ["\n"])  # the spelling of the byte 0xE9
    for text in ("\n", "=", " "):
        assert [TOKENIZER.decode([t]) for t in find_tokens(DETOKENIZER, [text])] == [text]


def test_ids_that_are_never_drawn_are_not_shown() -> None:
    ends = EndConditions.of(DETOKENIZER, [-1, 0, 999_999], SamplingSettings(), [PROMPT])
    assert ends.eos == {0: "<|end|>"}


@pytest.mark.parametrize("name", ["", -1, "<|im_end|>", "no single token", "99999", 99999])
def test_tokens_that_are_none(name: str | int) -> None:
    with pytest.raises(InputError, match="stop_tokens"):
        find_tokens(DETOKENIZER, [name])


def test_a_run_ends_at_a_stop_token() -> None:
    sampler = Sampler.from_pretrained("tiny")
    settings = SamplingSettings(max_tokens=40, stop_tokens="\n")  # one token, not its letters
    (newline,) = find_tokens(DETOKENIZER, ["\n"])
    drawn = list(sampler.sample(["def add(a, b):"], 8, settings))
    ended = [sample for sample in drawn if newline in sample.token_ids]
    assert ended
    for sample in ended:
        assert sample.finish_reason == "stop"
        assert sample.token_ids.index(newline) == sample.n_tokens - 1
    with pytest.raises(InputError, match="stop_tokens"):
        list(sampler.sample(["a"], 1, SamplingSettings(stop_tokens=("<|no|>",))))


def manifest(ends: dict[str, object], settings: SamplingSettings) -> Manifest:
    return Manifest.describe([PROMPT], n=1, settings=settings, model={}, problems={}, ends=ends)


def test_a_run_is_resumed_only_with_the_same_ends() -> None:
    settings = SamplingSettings()
    one, other = manifest({"eos": {"0": "x"}}, settings), manifest({"eos": {"1": "y"}}, settings)
    assert one.changes(one) == []
    assert other.changes(one) == ['ends.eos.1 was "y", is absent', 'ends.eos.0 was absent, is "x"']
    old = replace(
        manifest({}, settings),
        settings={k: v for k, v in one.settings.items() if k != "stop_tokens"},
    )
    assert old.changes(one) == []
    stopped = manifest({}, SamplingSettings(stop_tokens=(3,)))
    assert old.changes(stopped) == ["settings.stop_tokens was [], is [3]"]


def test_bytes_of_tokens_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all checks, messages and runs of a sampler: a large vocabulary takes its time."""
    read: list[int] = []
    whole = TokenBytes.of

    def counted(tokenizer: Any, size: int) -> TokenBytes | None:
        read.append(size)
        return whole(tokenizer, size)

    monkeypatch.setattr(TokenBytes, "of", counted)
    sampler = Sampler.from_pretrained("tiny")
    settings = SamplingSettings(max_tokens=2, stop_tokens=("\n", "="))
    sampler.ends([PROMPT], settings)
    for _ in range(2):
        assert len(list(sampler.sample(["def add(a, b):"], 1, settings))) == 1
    assert len(read) == 1
