"""How much of a text continues a program, where a quick look must say what a full reading does."""

import pytest

from hydragen_tree.sample.python_code import longest_program

HEAD = 'def f(x):\n    """Doc."""\n'
CONTINUED = [  # name, head, text, what of it belongs to the program
    ("a body", HEAD, "    return x\n", "    return x\n"),
    ("a comment at the margin", HEAD, "    return x\n# So.\n", "    return x\n# So.\n"),
    ("nothing", HEAD, "", None),
    ("comments alone", HEAD, "    # To do.\n\n", None),
    ("a bracket left open by the head", "x = [\n", "    1\n  ]; word\n", "    1\n  ]; word\n"),
    ("a call left open by the head", "print([\n", "    1\n", None),
    ("a line left open by the head", "x = 1; \\\n", "    y\n", None),
    ("a form feed moves the margin", HEAD, "    # c\n  \fword\n", None),
    ("a carriage return ends a comment", HEAD, "    # c\rword[\n  0]\n", None),
    ("a string at the margin", HEAD, '    return """\na"""\n', '    return """\na"""\n'),
    ("another statement", HEAD, "    return x\nprint(f(1))\n", "    return x\nprint(f(1))\n"),
    ("a word after it", HEAD, "    return x\nword\n", "    return x\nword\n"),
    ("a word after it, and prose", HEAD, "    return x\nword\nSo it is.\n", "    return x"),
    ("half a statement", HEAD, "    y = x\n    return (", None),
    ("a branch of a branch", f"{HEAD}    if x:\n", "        return 1\n", "        return 1\n"),
]


@pytest.mark.parametrize(("head", "text", "part"), [c[1:] for c in CONTINUED], ids=lambda _: "")
def test_the_longest_program(head: str, text: str, part: str | None) -> None:
    assert longest_program(head, text) == part
