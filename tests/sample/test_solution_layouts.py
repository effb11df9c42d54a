"""The program in an answer, however its author laid it out: fences, titles, tags, languages."""

import pytest

from hydragen_tree.sample.solution import extract_solution
from tests.sample.answers import ADD, CPP, LOOP, MAIN, SHORT, block

READ_ALL = "import sys\nprint(sys.stdin.read())\n"

ON_THE_FENCE = [  # code on the line of its opening fence
    ("one line", "```python print(1)\n```", "print(1)\n"),
    ("one line, cut off", "```python print(1)", "print(1)\n"),
    ("an assignment", "```python n = int(input())\nprint(2 * n)\n```\nDone.", MAIN),
    ("an import", f"Sure!\n```python {READ_ALL}```\nThat prints.", READ_ALL),
    ("behind words", "Sure: ```python n = int(input())\nprint(2 * n)```", MAIN),
    ("a function", f"```py {ADD}```", ADD),
    ("no language", f"```{MAIN}```", MAIN),
    ("no language, an import", f"```{READ_ALL}```", READ_ALL),
    ("tildes", f"~~~python {MAIN}~~~", MAIN),
    ("a tab", f"Answer: ```python\t{SHORT}```", SHORT),
    ("C++", f"```cpp {CPP}```", CPP),
    ("in a list", "1. ```python n = int(input())\n   print(2 * n)\n   ```", MAIN),
    ("a title is none", f'```python title="a.py"\n{MAIN}```', MAIN),
    ("classes are none", f"```python {{.line-numbers}}\n{MAIN}```", MAIN),
    ("words are none", f"```python for beginners\n{MAIN}```", MAIN),
    ("a file's name is none", f"```main.py\n{MAIN}```\n```\n4\n```", MAIN),
]
TITLES = [  # words by themselves, which compile, around code without a fence
    ("a title", f"Solution\n{MAIN}", MAIN),
    ("a title apart", f"Solution\n\n\n{LOOP}", LOOP),
    ("two", f"Answer\nCode\n\n{ADD}", ADD),
    ("a language", f"python\n{READ_ALL}", READ_ALL),
    ("a file's name", f"main.py\n{MAIN}", MAIN),
    ("a field", f"Language: Python\n{MAIN}", MAIN),
    ("a name that is bound later", f"n\n\n{MAIN}", MAIN),
    ("a word at the end", f"{MAIN}\nDone\n", MAIN),
    ("a title in a block", block(f"Solution\n{MAIN}", ""), MAIN),
    ("a language in a block", block(f"python\n{MAIN}", ""), MAIN),
    ("underlined", f"Solution\n========\n\n{MAIN}", MAIN),
    ("between marks", f"[BEGIN]\n{MAIN}[DONE]", MAIN),
    ("between marks, then words", f"[PYTHON]\n{MAIN}[/PYTHON]\nIt prints.", MAIN),
    ("between marks that go on", f"[BEGIN]\n{ADD}[DONE]\nYou are an expert.\n[BEGIN]\nx", ADD),
    ("a list stays", "n = 1\nprint(n)\n[n]\n", "n = 1\nprint(n)\n[n]\n"),
    ("a declaration stays", "n: int\nn = 1\nprint(n)\n", "n: int\nn = 1\nprint(n)\n"),
    ("a docstring stays", f'"""Doubles."""\n{MAIN}', f'"""Doubles."""\n{MAIN}'),
    ("a notebook's last line stays", "x = 1\nprint(x)\nx\n", "x = 1\nprint(x)\nx\n"),
    ("words alone stay", "YES\n", "YES\n"),
    ("another statement on its line", "Solution; print(1)\n", "Solution; print(1)\n"),
]
TAGS = [  # tags that name no language
    ("program and output", block(MAIN, "txt") + "Output:\n" + block("4", "txt"), MAIN),
    ("as text", block(MAIN, "text") + "Output:\n" + block("4", "text"), MAIN),
    ("words in the output", block(MAIN, "txt") + block("Output: 4", "txt"), MAIN),
    ("numbers in the output", block(MAIN, "txt") + block("4 8\n15 16", "txt"), MAIN),
    ("output of words", block(MAIN, "plain") + block("the number is 4", "plain"), MAIN),
    ("an example", block(ADD, "plaintext") + block("add(1, 2) -> 3", "plaintext"), ADD),
    ("input before it", block("3", "txt") + block(MAIN, "txt"), MAIN),
    ("input and output", block(MAIN, "txt") + block("3", "txt") + block("6", "txt"), MAIN),
    ("code, then output", block(MAIN, "code") + block("4", "output"), MAIN),
    ("C++ as text", block(CPP, "txt") + block("84", "txt"), CPP),
]
STRUCK = [  # words between tildes are no blocks
    ("before code", f"~~~wrong~~~ that.\n\n{MAIN}", MAIN),
    ("a line of them", f"~~~This is wrong~~~\n\n{block(MAIN)}", MAIN),
    ("in a sentence", f"I first thought ~~~wrong~~~ but\n{block(MAIN)}done", MAIN),
    ("code", f"~~~Old: print(1)~~~\n{block(MAIN)}", MAIN),
    ("around", f"~~~old~~~ new:\n{block(MAIN)}~~~more~~~\nEnd.", MAIN),
    ("four", f"~~~~wrong~~~~\n{block(MAIN)}", MAIN),
    ("a block of tildes", f"~~~wrong~~~\n{block(MAIN, mark='~~~')}End.", MAIN),
]
TYPED = ">>> n = int(input())\n3\n>>> print(2 * n)\n6"
SESSIONS = [  # what was typed into the interpreter
    ("alone", ">>> n = int(input())\n>>> print(2 * n)\n", MAIN),
    ("a block of it", block(TYPED, "pycon"), MAIN),
    ("a block of Python", block(TYPED), MAIN),
    ("a function", block(">>> def f(x):\n...     return x\n...\n"), "def f(x):\n    return x\n"),
    ("after a function", block(ADD) + block(">>> add(1, 2)\n3"), ADD),
    ("before a program", block(TYPED, "pycon") + block(SHORT), SHORT),
    ("in a docstring", block(f'"""\n{TYPED}\n"""\n{MAIN}'), f'"""\n{TYPED}\n"""\n{MAIN}'),
]
INDENTED = [  # code that its margin tells from prose
    ("four spaces", "Here it is:\n\n    n = int(input())\n    print(2 * n)\n\nIt works.", MAIN),
    ("a tab", "Here it is:\n\n\tn = int(input())\n\tprint(2 * n)\n", MAIN),
    ("a body stays", "    x = 1\n    y = 2\n", "    x = 1\n    y = 2\n"),
    ("a quotation stays", "He says:\n\n    so it is\n", "He says:\n\n    so it is\n"),
]
ROWS = [*INDENTED, *SESSIONS, *ON_THE_FENCE, *TITLES, *TAGS, *STRUCK]


@pytest.mark.parametrize(
    ("completion", "program"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_layouts(completion: str, program: str) -> None:
    assert extract_solution(completion) == program


IN_CPP = [
    "Write it in C++17, not Python.",
    "Solve the task. This is C++17, not Python.",
    "Solve in C++ (no Python please).",
    "Language: C++17. Do not use Python.",
    "Write a C++ program. Python is too slow.",
    "Use C++ instead of Python.",
    "Answer in C++ rather than in Python 3.",
    "Translate this Python program to C++.",
]
IN_PYTHON = [
    "Write it in Python, not C++.",
    "Solve in Python (the reference is in C++).",
    "Translate this C++ program to Python.",
    "This is Python, not C++17.",
    "Solve the task. Python or C++ are fine.",
    "Don't use C++.",
]


@pytest.mark.parametrize("prompt", IN_CPP + IN_PYTHON)
@pytest.mark.parametrize("cpp_first", [False, True], ids=["python first", "C++ first"])
def test_of_two_languages_the_one_that_is_asked_for_is_taken(prompt: str, cpp_first: bool) -> None:
    both = [f"In Python:\n{block(MAIN)}", f"In C++:\n{block(CPP, 'cpp')}"]
    answer = "".join(reversed(both) if cpp_first else both)
    assert extract_solution(answer, prompt) == (CPP if prompt in IN_CPP else MAIN)
    assert extract_solution(f"Sure:\n{block(MAIN)}", prompt) == MAIN  # there is no other
