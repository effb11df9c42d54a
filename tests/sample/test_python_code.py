"""How much of a text continues a program, where a quick look must say what a full reading does."""

import pytest

from hydragen_tree.sample.code_in_prose import longest_program

HEAD = 'def f(x):\n    """Doc."""\n'
CONTINUED = [  # name, head, text, what of it belongs to the program
    ("a body", HEAD, "    return x\n", "    return x\n"),
    ("a comment at the margin", HEAD, "    return x\n# So.\n", "    return x\n# So.\n"),
    ("two words", HEAD, "\n So this\n", None),
    ("two words of a string", '"""\n', 'So this"""\nprint(1)\n', 'So this"""\nprint(1)\n'),
    ("two words that are a statement", HEAD, "    not x or f(x)\n", "    not x or f(x)\n"),
    (
        "a soft keyword",
        HEAD,
        "    match x:\n        case _: y = 1\n",
        "    match x:\n        case _: y = 1\n",
    ),
    ("a back-tick", HEAD, "```\nx = 1\n", None),
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
