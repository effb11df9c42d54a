"""Programs that are written in a notation of something else, and what they mean.

A session with the interpreter, the new side of a difference between files, a notebook's cell, and
code whose spaces are not those of ASCII. A text is read so only where Python does not take it as
it is, and a program comes of it.
"""

import re
import textwrap

from hydragen_tree.sample.python_syntax import compiled, compiles, is_real

DIFFERENCES = frozenset({"diff", "patch", "udiff"})  # names of the language
_HEADER = re.compile(
    r"diff |index |--- |\+\+\+ |@@ |(?:new|old|deleted) (?:file )?mode |\\ No newline"
)
_MAGIC = re.compile(r"^[ \t]*(?:%%?[A-Za-z]\w*|![A-Za-z])[^\n]*(?:\n|\Z)", re.MULTILINE)
_TIMED = re.compile(r"^([ \t]*)%time[ \t]+(?=\S)", re.MULTILINE)  # the statement is run as well
_SPACES = "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_NO_WIDTH = "\u200b\u2060\ufeff"
_ODD = re.compile(f"[{_SPACES}{_NO_WIDTH}]")
_IN_ASCII = str.maketrans(_SPACES, " " * len(_SPACES), _NO_WIDTH)
_EDGE = " \t" + _SPACES + _NO_WIDTH


def meant(code: str, *, is_difference: bool = False) -> str:
    """The program that a text stands for; the text itself where it stands for none.

    Args:
        code: the text, which may compile.
        is_difference: something says that it is a difference between files.
    """
    program = _new_side(code, is_difference=is_difference)
    for read in (_cell, spaced):
        if compiles(program):
            return program
        program = read(program)
    return program if is_difference or compiles(program) else code


def typed(code: str) -> str | None:
    """The statements of a session with the interpreter; None if it is none."""
    if ">>> " not in code or compiles(code):
        return None
    lines = code.split("\n")
    statements = "\n".join(line[4:] for line in lines if line.startswith((">>> ", "...")))
    return statements if compiles(statements) else None


def spaced(code: str, head: str = "") -> str:
    """A text with spaces of ASCII for others: at the edges of lines, or if need be everywhere.

    Args:
        code: the text.
        head: the beginning of the program that it goes on with.
    """
    if _ODD.search(code) is None:
        return code
    at_edges = "\n".join(map(_with_plain_edges, code.split("\n")))
    everywhere = code.translate(_IN_ASCII)
    return next((text for text in (code, at_edges, everywhere) if compiles(head + text)), at_edges)


def _with_plain_edges(line: str) -> str:
    held = line.strip(_EDGE)
    if not held:
        return ""
    margin = line[: len(line) - len(line.lstrip(_EDGE))]
    return margin.translate(_IN_ASCII) + held


def is_all_new(code: str) -> bool:
    """Whether each line says that it is new, as no program's do."""
    return code.startswith("+") and _marks(code.split("\n")) == {"+"}


def _marks(lines: list[str]) -> set[str]:
    return {line[0] for line in lines if line.strip()}


def _new_side(code: str, *, is_difference: bool) -> str:
    """What a difference between files leaves; words alone, as in a list, are no difference."""
    first = code.lstrip()
    if "+" not in code or not (
        first.startswith(("+", "-")) or _HEADER.match(first) or is_difference
    ):
        return code
    lines = [line for line in code.split("\n") if not _HEADER.match(line)]
    marks = _marks(lines)
    is_marked = is_difference or "\n@@ " in f"\n{code}"
    if marks != {"+"} and not (is_marked and marks <= set("+- ")):
        return code
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    for program in (new, textwrap.dedent(new)):
        tree = compiled(program)
        if tree is not None and any(map(is_real, tree.body)):
            return program
    return new if is_difference else code


def _cell(code: str) -> str:
    """A notebook's cell without what is for the notebook: `%%time`, `%matplotlib`, `!pip`."""
    if "%" not in code and "!" not in code:
        return code
    return _MAGIC.sub("", _TIMED.sub(r"\1", code))
