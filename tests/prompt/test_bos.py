"""A text that holds the token that begins every text: taken once at its start, else said."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from hydragen_tree.prompt.prompts import prompts_from_sources

BOS, A, X = 3, 1, 2


@pytest.fixture
def tokenizer() -> Any:
    core = Tokenizer(models.BPE(vocab={" ": 0, "a": A, "x": X}, merges=[]))
    core.add_special_tokens([AddedToken("<bos>", special=True)])
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        chat_template="<bos>{{ messages[0]['content'] }}",
    )


@pytest.mark.parametrize(
    ("text", "tokens", "said"),
    [
        ("a", [BOS, A], []),
        ("<bos>a", [BOS, A], ["no second one"]),
        ("a<bos>x", [BOS, A, BOS, X], ["behind their first"]),
        (" <bos>x", [BOS, 0, BOS, X], ["behind their first"]),
        ("<bos>a<bos>x", [BOS, A, BOS, X], ["behind their first", "no second one"]),
    ],
)
def test_plain_text(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, text: str, tokens: list[int], said: list[str]
) -> None:
    with caplog.at_level("WARNING", logger="hydragen_tree"):  # whatever a command has set
        (prompt,) = prompts_from_sources([text], tokenizer)
    assert prompt.token_ids.tolist() == tokens
    assert len(caplog.messages) == len(said)
    assert all(part in message for part, message in zip(said, caplog.messages, strict=True))


@pytest.mark.parametrize("content", ["a", "<bos>a"])
def test_a_chat_begins_with_one(tokenizer: Any, content: str) -> None:
    (prompt,) = prompts_from_sources([[{"role": "user", "content": content}]], tokenizer)
    assert prompt.token_ids.tolist() == [BOS, A]


def test_one_that_also_ends_texts_may_stand_anywhere(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.eos_token = "<bos>"
    with caplog.at_level("WARNING", logger="hydragen_tree"):
        (prompt,) = prompts_from_sources(["a<bos>x"], tokenizer)
    assert prompt.token_ids.tolist() == [BOS, A, BOS, X]
    assert caplog.messages == []
