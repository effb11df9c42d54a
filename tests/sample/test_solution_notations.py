"""Programs in other notations, placeholders of a body, and answers that go on for ever."""

import gc
import time

import pytest

from hydragen_tree.sample.solution import extract_solution
from tests.sample.answers import ADD, CPP, FUNCTION, LOOP, MAIN, SHORT, block

NO_BREAK = "\u00a0"
APART = "n = int(input())\n\nprint(2 * n)\n"
TODO = f"{FUNCTION}    # Write it here.\n"


def added(code: str, mark: str = "+") -> str:
    """The lines as a difference between files would add them."""
    return "".join(f"{mark}{line}\n" for line in code.splitlines())


HEADER = "--- a/main.py\n+++ b/main.py\n@@ -0,0 +1,2 @@\n"
DIFFERENCES = [
    ("in a block of it", block(added(MAIN), "diff"), MAIN),
    ("in a block of Python", block(added(LOOP)), LOOP),
    ("in a block without a language", f"Sure:\n{block(added(MAIN), '')}Done.", MAIN),
    ("with a space", block(added(LOOP, "+ "), "diff"), LOOP),
    ("with a header", block(HEADER + added(MAIN), "patch"), MAIN),
    ("a header without a block", HEADER + added(MAIN), MAIN),
    ("alone", added(MAIN), MAIN),
    ("after words", f"Here it is:\n\n{added(MAIN)}\nDone.", MAIN),
    ("with empty lines", block(added(f"{MAIN}\n{SHORT}")), f"{MAIN}\n{SHORT}"),
    ("lines that compile", block("+print(1)\n+print(2)"), "print(1)\nprint(2)\n"),
    ("old lines", block("-n = input()\n+n = int(input())\n print(2 * n)", "diff"), MAIN),
    ("C++", block(added(CPP), "diff"), CPP),
    ("C++ in its block", block(added(CPP), "cpp"), CPP),
    ("a list is none", "+ Read n\n+ Print it\n", "+ Read n\n+ Print it\n"),
    ("a sum is none", block("x = (1\n+ 2\n)\nprint(x)"), "x = (1\n+ 2\n)\nprint(x)\n"),
    ("a number is none", f"{block(MAIN)}Output:\n{block('+4', '')}", MAIN),
]
SPANS = [  # programs between back-ticks in a line
    ("in a sentence", f"Use `{SHORT.rstrip()}`.", SHORT),
    ("alone", f"`{SHORT.rstrip()}`", SHORT),
    ("two back-ticks", f"``{SHORT.rstrip()}``", SHORT),
    ("over lines", f"So: `{MAIN.rstrip()}` prints it.", MAIN),
    ("a line each", "`n = int(input())`\n`print(2 * n)`\n", APART),
    ("a function", f"`{ADD.rstrip()}`", ADD),
    ("after a stray one", f"don`t. `{SHORT.rstrip()}`", SHORT),
    ("before its output", f"Use `{SHORT.rstrip()}`.\n{block('4', '')}", SHORT),
    ("a part of a block", f"`int(input())` reads:\n{block(MAIN)}", MAIN),
    ("a part of one that is cut", "`int(input())` reads:\n```python\nprint(2 *", "print(2 *\n"),
    ("a name", "Use `n`.", "Use `n`.\n"),
]
CELLS = [  # lines that a notebook's kernel takes, not Python
    ("timed", block(f"%%time\n{MAIN}", "ipython"), MAIN),
    ("plots", block(f"%matplotlib inline\n{MAIN}", "ipython"), MAIN),
    ("two", block(f"%load_ext autoreload\n%autoreload 2\n{MAIN}", "ipython3"), MAIN),
    ("in Python", block(f"%%time\n{MAIN}"), MAIN),
    ("the shell", block(f"!pip install numpy\n{MAIN}"), MAIN),
    ("a file", block(f"%%writefile main.py\n{MAIN}", ""), MAIN),
    ("in the middle", block("n = int(input())\n%timeit n * 2\nprint(2 * n)"), MAIN),
    ("a timed statement", block("%time n = int(input())\nprint(2 * n)"), MAIN),
    ("in a loop", block("for i in range(2):\n    %time x = i\n    print(x)"),
     "for i in range(2):\n    x = i\n    print(x)\n"),
    ("no block", f"%%time\n{MAIN}", MAIN),
    ("a remainder stays", block("x = (7\n% 4)\nprint(x)"), "x = (7\n% 4)\nprint(x)\n"),
    ("the shell alone", block("!pip install numpy") + block(MAIN), MAIN),
]  # fmt: skip
OPENED_TWICE = [
    ("in a row", f"```python\n{block(MAIN)}", MAIN),
    ("a line apart", f"```python\n\n{block(MAIN)}", MAIN),
    ("closed twice", f"```python\n{block(MAIN)}```\nIt prints.", MAIN),
    ("words after", f"Sure:\n```python\n{block(MAIN)}This prints.\n{block('4', '')}", MAIN),
    ("without a language", f"```\n{block(MAIN)}```\n", MAIN),
    ("by another name", f"```python\n{block(MAIN, 'py')}", MAIN),
    ("three times", f"```python\n```python\n{block(MAIN)}", MAIN),
    ("never closed", f"```python\n```python\n{MAIN}", MAIN),
    ("C++", f"```cpp\n{block(CPP, 'cpp')}", CPP),
    ("code on the line of both", "```python n = 1\n```python print(2)\n```", "print(2)\n"),
]
SPACES = [
    ("a line", block(f"n = int(input())\n{NO_BREAK}\nprint(2 * n)"), APART),
    ("a line of a loop", block(f"for i in range(2):\n{NO_BREAK * 4}\n    print(i)"),
     "for i in range(2):\n\n    print(i)\n"),
    ("a margin", block(f"for i in range(2):\n{NO_BREAK * 4}print(i)"),
     "for i in range(2):\n    print(i)\n"),
    ("an end", block(f"n = int(input()){NO_BREAK}\nprint(2 * n)"), MAIN),
    ("between words", block(f"n{NO_BREAK}= int(input())\nprint(2 * n)"), MAIN),
    ("of Japanese", block("n = int(input())\n\u3000\nprint(2 * n)"),
     APART),
    ("of no width", block("n = int(input())\n\u200bprint(2 * n)"), MAIN),
    ("no block", f"n = int(input())\n{NO_BREAK}\nprint(2 * n)\n", APART),
    ("after words", f"So:\n\nn = int(input())\n{NO_BREAK}\nprint(2 * n)\n\nDone.",
     APART),
    ("a string's stay", block(f"print('a{NO_BREAK}b')"), f"print('a{NO_BREAK}b')\n"),
]  # fmt: skip
ROWS = [*DIFFERENCES, *SPANS, *CELLS, *OPENED_TWICE, *SPACES]


@pytest.mark.parametrize(
    ("completion", "program"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_notations(completion: str, program: str) -> None:
    assert extract_solution(completion) == program


OPEN = "Double n.\n```python\n"


@pytest.mark.parametrize(
    ("completion", "prompt", "program"),
    [
        (f"```python\n{MAIN}```\n", OPEN, MAIN),
        (f"\n```python\n{MAIN}```\nDone.", OPEN, MAIN),
        (f"%%time\n{MAIN}```\n", OPEN, MAIN),
        (f"    x = a\n{NO_BREAK}\n    return x + b\n", FUNCTION,
         f"{FUNCTION}    x = a\n\n    return x + b\n"),
        (block("-    pass\n+    return a + b", "diff"), f"```python\n{FUNCTION}    pass\n```\n",
         f"{FUNCTION}    return a + b\n"),
    ],
    ids=["opened again", "opened again, a line apart", "a cell", "a space", "a body's difference"],
)  # fmt: skip
def test_notations_in_what_a_prompt_began(completion: str, prompt: str, program: str) -> None:
    assert extract_solution(completion, prompt) == program


PLACEHOLDERS = [
    "    raise NotImplementedError\n",
    "    raise NotImplementedError()\n",
    '    raise NotImplementedError("write it")',
    "    pass\n",
    "    ...\n",
]
BODY = "    return a + b\n"


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("is_fenced", [False, True], ids=["plain", "in a block"])
@pytest.mark.parametrize("answer", [BODY, block(BODY), block("return a + b"), "return a + b"])
def test_a_body_takes_the_place_of_what_holds_it(
    answer: str, is_fenced: bool, placeholder: str
) -> None:
    prompt = FUNCTION + placeholder
    if is_fenced and not answer.startswith("```"):
        prompt = f"Write it:\n```python\n{prompt}"
    elif is_fenced:
        prompt = f"Write it:\n{block(prompt)}"
    assert extract_solution(answer, prompt) == FUNCTION + BODY


@pytest.mark.parametrize(
    ("answer", "prompt", "program"),
    [
        (ADD, FUNCTION + PLACEHOLDERS[0], ADD),
        (block(ADD), FUNCTION + PLACEHOLDERS[0], ADD),
        ("    return 1\n", "def one(): pass\n", "def one():\n    return 1\n"),
        ("        return 1\n", "class A:\n    def f(self):\n        pass\n",
         "class A:\n    def f(self):\n        return 1\n"),
        ("    def g(self):\n        return 1\n", "class A:\n    def f(self):\n        pass\n",
         "class A:\n    def f(self):\n        pass\n    def g(self):\n        return 1\n"),
        ("\nprint(f())\n", "def f():\n    pass\n", "def f():\n    pass\n\nprint(f())\n"),
        (BODY, f"{TODO}    pass\n", TODO + BODY),
    ],
    ids=["all of it", "all of it, in a block", "one line", "a method", "another method", "its use",
         "a comment"],
)  # fmt: skip
def test_what_holds_a_place_stays_where_no_body_comes(
    answer: str, prompt: str, program: str
) -> None:
    assert extract_solution(answer, prompt) == program


ENDLESS = [
    "```python print(1)\n",
    "```python print('''1''')\n",
    "```python print(1)```\n",
    "```python\nprint(1)\n```\n",
    "```python\nprint(x)\n```\nand\n```python\nx = 1\n```\n",
    "```python\n",
    "```python\n<think>\n",
    "```cpp\n",
    "`print(1)` and\n",
    "x = (\n",
]


@pytest.mark.parametrize("piece", ENDLESS)
@pytest.mark.parametrize("prompt", ["", OPEN, FUNCTION], ids=["plain", "block", "function"])
def test_an_answer_that_repeats_itself_is_read_in_time(piece: str, prompt: str) -> None:
    """Four times as long an answer takes about four times as long, not sixteen.

    Without the garbage collector, which goes through all that other tests have left.
    """

    def seconds(pieces: int) -> float:
        began = time.process_time()
        extract_solution(piece * pieces, prompt)
        return time.process_time() - began

    gc.disable()
    try:
        short = min(seconds(2_000), seconds(2_001))
        assert min(seconds(8_000), seconds(8_001)) < 0.2 + 8 * short
    finally:
        gc.enable()
