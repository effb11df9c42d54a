"""Pieces of prompts and answers that the tables of solutions are made of."""

OPEN = "### Problem\nDouble n.\n\n### Solution\n```python\n"
FUNCTION = 'def add(a, b):\n    """Add."""\n'
HELPERS = "from typing import List\n\n\ndef one():\n    return 1\n\n\n"
TYPED = f'{HELPERS}def add(a: List, b):\n    """Add."""\n'
CHAT = "<|im_start|>user\nDouble n.<|im_end|>\n<|im_start|>assistant\n"
ADD = "def add(a, b):\n    return a + b\n"
SHORT = "print(2 * int(input()))\n"
CPP = "int main() { print(2 * read()); }\n"
LOOP = "for i in range(int(input())):\n    x = int(input())\n    print(x)\n"
MAIN = "n = int(input())\nprint(2 * n)\n"


def block(code: str, language: str = "python", mark: str = "```") -> str:
    """A block of code in Markdown."""
    return f"{mark}{language}\n{code.rstrip()}\n{mark}\n"
