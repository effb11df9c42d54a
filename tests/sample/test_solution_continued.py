"""The program in an answer to a prompt that ends in half a statement, or that gives a function."""

import pytest

from hydragen_tree.sample.solution import extract_solution
from tests.sample.answers import ADD, FUNCTION, HELPERS, MAIN, SHORT, TYPED, block

READ_ALL = "import sys\nprint(sys.stdin.read())\n"
TASK = "Write a program.\n\n"

HALVES = [  # name, end of the prompt, completion, program
    ("half an import", "import", " sys\nprint(sys.stdin.read())\n", READ_ALL),
    ("half a keyword", "im", "port sys\nprint(sys.stdin.read())\n", READ_ALL),
    ("half an assignment", "n =", " int(input())\nprint(2 * n)\n", MAIN),
    ("half a value", "n = in", "t(input())\nprint(2 * n)\n", MAIN),
    ("a name", "n", " = int(input())\nprint(2 * n)\n", MAIN),
    ("half a name", "def ad", "d(a, b):\n    return a + b\n", ADD),
    ("def", "def", " add(a, b):\n    return a + b\n", ADD),
    ("from", "from", " math import pi\nprint(pi)\n", "from math import pi\nprint(pi)\n"),
    ("class", "class", " A:\n    x = 1\n", "class A:\n    x = 1\n"),
    ("a function's name", "print", "(2 * int(input()))\n", SHORT),
    ("a loop", "for", " i in (1, 2):\n    print(i)\n", "for i in (1, 2):\n    print(i)\n"),
    ("prose after it", "n =", " int(input())\nprint(2 * n)\n\nThis doubles n.", MAIN),
    ("after a comment", "# So\nimport", " sys\nprint(sys.stdin.read())\n", READ_ALL),
    ("after code", "import sys\nn =", " 1\nprint(n)\n", "import sys\nn = 1\nprint(n)\n"),
    ("in a block", "```python\nn =", " int(input())\nprint(2 * n)\n```\nDone.", MAIN),
    ("a name in a block", "```python\ndef ad", "d(a, b):\n    return a + b\n```\nx y", ADD),
    (
        "after a comment in a block",
        "```python\n# So\nimport",
        " sys\nprint(sys.stdin.read())\n```\nx y",
        f"# So\n{READ_ALL}",
    ),
    # What is none.
    ("a title", "Solution", f"\n{MAIN}", f"\n{MAIN}"),
    ("a label", "Answer", f": x = 1 is no answer\n{block(MAIN)}", MAIN),
    ("a label and code", "Answer:", f" {SHORT}", SHORT),
    ("prose", "Please double n in Python", f", then\n{block(MAIN)}", MAIN),
    ("prose that begins like code", "for all of import", f"ant n:\n{block(MAIN)}", MAIN),
]


@pytest.mark.parametrize(
    ("end", "completion", "program"), [row[1:] for row in HALVES], ids=[row[0] for row in HALVES]
)
@pytest.mark.parametrize("before", ["", TASK], ids=["alone", "after prose"])
def test_half_a_statement_is_gone_on_with(
    before: str, end: str, completion: str, program: str
) -> None:
    assert extract_solution(completion, before + end) == program


CHATS = {
    "ChatML": "<|im_start|>user\nComplete this.\n\n{}<|im_end|>\n<|im_start|>assistant\n",
    "ChatML, without words": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "Llama 2": "<s>[INST] Complete this:\n{}[/INST]",
    "Llama 3": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "Gemma": "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "Alpaca": "### Instruction:\nComplete this.\n\n{}\n\n### Response:\n",
    "names": "User: Complete this.\n\n{}\nAssistant:",
    "words after it": "<|im_start|>user\n{}\nComplete it.<|im_end|>\n<|im_start|>assistant\n",
    "an example before it": "User:\ndef other(x):\n    return x\n\nComplete.\n\n{}\nAssistant:",
}
WHOLE = "def add(a: List, b):\n    return one()\n"
STUBS = {
    "a docstring": TYPED,
    "no newline": TYPED.rstrip(),
    "pass": f"{TYPED}    pass\n",
    "a comment": f"{TYPED}    # your code here\n",
    "not implemented": f"{TYPED}    raise NotImplementedError\n",
}


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("given", STUBS)
def test_a_chats_function_keeps_its_imports_and_helpers(chat: str, given: str) -> None:
    prompt = CHATS[chat].format(STUBS[given])
    usage = block("print(add([1], 2))")
    for answer in (block(WHOLE), f"Sure:\n{block(WHOLE)}Usage:\n{usage}", WHOLE):
        assert extract_solution(answer, prompt) == HELPERS + WHOLE


def test_a_chats_function_is_given_back_to_a_body() -> None:
    prompt = CHATS["ChatML"].format(TYPED)
    assert extract_solution(block("    return one()"), prompt) == f"{TYPED}    return one()\n"


def test_a_whole_function_in_a_prompt_is_not_asked_for() -> None:
    prompt = CHATS["ChatML"].format(f"{ADD}is wrong. Write a program that doubles n.")
    assert extract_solution(f"{block(ADD)}{block(MAIN)}", prompt) == MAIN


def test_a_title_above_a_function_is_no_part_of_it() -> None:
    assert extract_solution("    return a\n", f"Task\n\n{FUNCTION}") == f"{FUNCTION}    return a\n"
