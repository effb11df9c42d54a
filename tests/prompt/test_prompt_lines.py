"""Lines of prompts that come in, and programs that are taken out of completions."""

import json

import numpy as np
import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompt_lines import read_prompt_lines
from hydragen_tree.sample.solution import extract_solution


def test_lines_of_every_kind() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    lines = [
        json.dumps({"prompt": "a", "task_id": "HumanEval/0", "entry_point": "f"}),
        "\n",
        json.dumps({"prompt": messages}),
        json.dumps({"prompt": [1, 2]}) + "\r\n",
    ]
    *texts, (name, tokens) = read_prompt_lines(lines)
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


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("print(1)", "print(1)\n"),
        ("print(1)\n\n \n", "print(1)\n"),
        ("    x = 1\n", "    x = 1\n"),
        ("", "\n"),
        ("Sure:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```python\na\n```\nBetter:\n```python\nb\n```\n", "b\n"),
        ("```py\na\n```\nIt prints\n```\n3\n```\n", "a\n"),
        ("```Python3 title=x\na\n```", "a\n"),
        ("```\na\n```\n```text\n3\n```", "a\n"),
        ("```python\na\nb", "a\nb\n"),
        ("```cpp\nint x;\n```", "```cpp\nint x;\n```\n"),
        ('s = """\n```"""', 's = """\n```"""\n'),
    ],
)
def test_extract_solution(completion: str, program: str) -> None:
    assert extract_solution(completion) == program
