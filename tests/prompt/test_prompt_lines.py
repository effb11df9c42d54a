"""Lines of prompts that come in."""

import json

import numpy as np
import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompt_lines import read_prompt_lines


def test_lines_of_every_kind() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    lines = [
        json.dumps({"prompt": "a", "task_id": "HumanEval/0", "entry_point": "f"}),
        "\n",
        json.dumps({"prompt": messages}),
        json.dumps({"prompt": [1, 2]}) + "\r\n",
    ]
    *texts, (name, tokens) = read_prompt_lines(lines).prompts
    assert texts == [("HumanEval/0", "a"), ("prompt-1", messages)]
    assert (name, tokens.dtype, tokens.tolist()) == ("prompt-2", np.int32, [1, 2])


def test_all_broken_lines_are_named() -> None:
    lines = [
        '{"prompt": "fine", "task_id": "a"}',
        '{"prompt": "b"',
        '["prompt"]',
        '{"text": "b"}',
        '{"prompt": ""}',
        '{"prompt": 3}',
        '{"prompt": "b", "task_id": 3}',
        '{"prompt": "b", "task_id": "a"}',
        "[" * 100_000,
    ]
    with pytest.raises(InputError) as caught:
        read_prompt_lines(lines)
    faults = str(caught.value).splitlines()
    assert [fault.split(":")[1] for fault in faults] == [f" line {n}" for n in range(2, 10)]
    assert "not valid JSON" in faults[0]
    assert 'the key "prompt"' in faults[1]
    assert 'the key "prompt"' in faults[2]
    assert "the prompt is empty" in faults[3]
    assert "got int, expected text" in faults[4]
    assert "task_id: got 3, expected text" in faults[5]
    assert "task_id 'a' comes twice" in faults[6]


@pytest.mark.parametrize("lines", [[], ["\n", "  \n"]])
def test_no_lines(lines: list[str]) -> None:
    with pytest.raises(InputError, match="prompts: no prompts, expected lines"):
        read_prompt_lines(lines)
