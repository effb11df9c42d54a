"""The program in a completion without a prompt: a table of answers."""

import pytest

from hydragen_tree.sample.solution import extract_solution
from tests.sample.answers import ADD, CPP, LOOP, MAIN, SHORT, block

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
    ("a thought", f"<think>\n{block('x = input()')}\n</think>\n{block(MAIN)}", MAIN),
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
    (
        "prose behind a fence that is missing",
        f"Sure:\n```python\n{MAIN}\nThis doubles n.\n\nOutput:\n```\n4\n```\nDone.",
        MAIN,
    ),
    ("prose in a block that is cut", f"Sure:\n```\n{MAIN}\nThis doubles the number.", MAIN),
    ("closed by another mark", f"```python\n{MAIN}~~~\nThat is it.", MAIN),
    ("four closed by three", f"````python\n{MAIN}```\nThat is it.", MAIN),
    ("closed far to the right", f"```python\n{MAIN}        ```\nThe end.", MAIN),
    ("cut in the closing fence", f"```python\n{MAIN}``", MAIN),
    ("cut in its last line", "```python\nn = 1\nprint(2 *", "n = 1\nprint(2 *\n"),
    ("a draft after the answer", f"{block(MAIN)}<think>\nOr\n{block(SHORT)}</think>\n", MAIN),
    ("the same, cut", f"{block(MAIN)}<think>\nOr\n{block(SHORT)}", MAIN),
    ("drafts around it", f"<think>\na\n</think>\n{block(MAIN)}<think>\nb", MAIN),
    ("C++ and its output", f"{block(CPP, 'cpp')}Output:\n{block('84', '')}", CPP),
    ("C++ and one line of it", f"{block(CPP, 'cpp')}where\n{block('x = read();', 'cpp')}", CPP),
    ("C++, its fence on a code line", f"```cpp\n{CPP.rstrip()}```\nPrints\n```\n1\n```\n", CPP),
    ("C++ without a language", f"{block(CPP, '')}Output:\n{block('84', '')}", CPP),
    ("a line of it explained", f"{block(ADD)}where\n{block('    return a + b')}adds.", ADD),
    (
        "a line of a loop explained",
        f"{block(LOOP)}where\n{block('    x = int(input())')}reads.",
        LOOP,
    ),
    (
        "HumanEval's check",
        block(ADD) + block("def check(f):\n    assert f(1, 2) == 3\n\ncheck(add)"),
        ADD,
    ),
    (
        "all of a module",
        block("from math import *") + block("print(sqrt(float(input())))"),
        "from math import *\n\nprint(sqrt(float(input())))\n",
    ),
    (
        "a table, filled, shown",
        block("seen = {}")
        + block("for line in open(0):\n    seen[line] = 1")
        + block("print(len(seen))"),
        "seen = {}\n\nfor line in open(0):\n    seen[line] = 1\n\nprint(len(seen))\n",
    ),
]


@pytest.mark.parametrize(
    ("completion", "program"),
    [(text, program) for _, text, program in SAME],
    ids=[name for name, _, _ in SAME],
)
def test_without_a_prompt(completion: str, program: str) -> None:
    assert extract_solution(completion) == program
