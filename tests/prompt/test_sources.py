"""Whatever can be a prompt, in any mixture."""

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.prompt.template import PLAIN_STOP
from tests.prompt.summing import problem


def test_sources_of_all_kinds_in_order(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    given = Prompt("given", 3, np.array([5], np.int32), ())
    sources = [
        problem(),
        "text",
        [{"role": "user", "content": "Hi"}],
        [7, 8],
        np.array([9]),
        given,
        ("named", "text"),
        ("listed", (1, 2)),
    ]
    prompts = prompts_from_sources(iter(sources), chat_tokenizer)
    names = ["sum", "prompt-1", "prompt-2", "prompt-3", "prompt-4", "given", "named", "listed"]
    assert [prompt.task_id for prompt in prompts] == names
    assert prompts[1].token_ids.tolist() == chat_tokenizer("text")["input_ids"]
    assert [p.token_ids.tolist() for p in (prompts[3], prompts[4], prompts[7])] == [
        [7, 8],
        [9],
        [1, 2],
    ]
    assert prompts[3].text is None
    assert prompts[5] is given
    assert [prompt.stop for prompt in prompts] == [PLAIN_STOP, *[()] * 7]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "the prompt is empty"),
        ([], "the prompt is empty"),
        (np.array([], np.int32), "the prompt is empty"),
        ([1, -1], "got a list of other things"),
        ([True], "got a list of other things"),
        ([1.5], "got a list of other things"),
        (["text"], "got a list of other things"),
        ([{"content": "Hi"}], "got a list of other things"),
        (b"bytes", "got bytes, expected text, messages"),
        (None, "got NoneType, expected text, messages"),
        (3, "got int, expected text, messages"),
        ([2**70], "token id 1180591620717411303424, expected less than"),
        (Prompt("prompt-0", 0, np.array([], np.int32), ()), "the prompt has no tokens"),
    ],
)
def test_what_is_no_prompt(tokenizer: PreTrainedTokenizerFast, source: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"^prompt-0: {reason}"):
        prompts_from_sources([source], tokenizer)


def test_one_text_is_no_list_of_letters(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"^prompts: got one text, expected a list"):
        prompts_from_sources("text", tokenizer)


def test_a_text_without_tokens_is_empty() -> None:
    core = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=core)
    with pytest.raises(InputError, match="prompt-0: the prompt has no tokens"):
        prompts_from_sources(["  "], words)


def test_task_ids_differ(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="task id 'sum' comes twice"):
        prompts_from_sources([problem(), ("sum", "text")], tokenizer)
