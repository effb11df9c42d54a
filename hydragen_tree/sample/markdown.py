"""A text as blocks of code and prose, read as people write Markdown rather than as its standard.

A fence may be indented, quoted or follow words on its line; it may be closed on a line of code, or
never. Where the standard's end of a Python block leaves code that does not compile and another
end does not, the other is meant: three back-ticks in a docstring end nothing. Prose after a program
in a block is left out.
"""

import re
import textwrap
from dataclasses import dataclass, replace
from itertools import islice

from hydragen_tree.sample.code_in_prose import without_prose
from hydragen_tree.sample.python_syntax import compiles

PYTHON = frozenset(
    {"python", "py", "ipython", "python3", "python2", "py3", "sage", "cpython", "pypy"}
)
CPP = frozenset({"cpp", "c++", "cc", "cxx", "c"})
LANGUAGES = CPP | {"java", "javascript", "js", "rust", "go", "kotlin", "csharp", "ruby"}
# Names that stand where a language should, and tell none.
UNNAMED = frozenset(
    {"", "text", "txt", "plaintext", "plain", "raw", "none", "code", "solution", "answer"}
)
_MARKDOWN = frozenset({"markdown", "md"})
_OPENING = re.compile(r"(?P<lead>.*?)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_MARGIN = re.compile(r"[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*")
_ONE_LINE = re.compile(
    r"(?P<lead>[^`]*)```+(?:(?P<language>python3?|py|cpp|c\+\+|c|java)[ \t]+)?(?P<code>[^`]+)```+"
    r"[.\s]*$",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"[\s{.]*([A-Za-z][\w+#-]*)")
# The first line of a program on its fence's own line, where `title="a.py"` or `{1,3}` may stand.
_PYTHON_CODE = re.compile(
    r"(?:from|import|def|async|class)\s+\w|@\w|(?:for|while|if|with)\b.*:|try:"
    r"|[A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_]\w*)*(?:\s*=\s*[\w.]+\(|\s+=\s|\()"
)
_OTHER_CODE = re.compile(r"#include|[^{].*[;{}]$")
_ENDS = 8  # other ends of a block that are tried


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text.

    Args:
        code: its text, without fences and without the fence's margin.
        language: as its fence names it, in small letters; empty if it does not.
        is_fenced: it is a block of code, not prose.
        is_closed: it was not cut off.
    """

    code: str
    language: str = ""
    is_fenced: bool = True
    is_closed: bool = True

    @property
    def may_be_python(self) -> bool:
        """Whether nothing is said against it."""
        return self.language in UNNAMED or self.language in PYTHON


@dataclass(frozen=True, slots=True)
class _Fence:
    """A line that opens a block.

    Args:
        margin: what stands before it, and before each line of the block.
        mark: the back-ticks or tildes.
        language: in small letters; empty if none is named.
        code: the block's first line, where it stands on this one.
    """

    margin: str
    mark: str
    language: str
    code: str = ""

    def is_closed_by(self, line: str) -> bool:
        bare = line.strip(" \t>")
        indent = len(line) - len(line.lstrip(" \t>"))
        is_mark = len(bare) >= len(self.mark) and not bare.strip(self.mark[0])
        return is_mark and indent <= len(self.margin) + 3


def split_blocks(text: str) -> list[Block]:
    """The blocks of a text, prose included, in order; empty ones are left out."""
    lines = text.split("\n")
    blocks: list[Block] = []
    prose: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        one_line = _ONE_LINE.match(line)
        fence = _opening(line)
        if one_line is None and (fence is None or fence.language in _MARKDOWN):
            # A block of Markdown is read as if its fences were not there.
            prose.append(line if fence is None else "")
            at += 1
            continue
        blocks.append(Block("\n".join(prose), is_fenced=False))
        prose = []
        if one_line is not None:
            blocks.append(Block(one_line["code"], (one_line["language"] or "").lower()))
            at += 1
        elif fence is not None:
            if fence.code:
                lines.insert(at + 1, fence.margin + fence.code)
            block, at = _read_block(lines, at, fence)
            blocks.append(block)
    blocks.append(Block("\n".join(prose), is_fenced=False))
    return [block for block in blocks if block.code.strip()]


def compiling(code: str) -> str | None:
    """The code, without its common margin if only so it compiles; None if it does not."""
    return next((c for c in (code, textwrap.dedent(code)) if compiles(c)), None)


def open_fence(text: str) -> tuple[str, str, str] | None:
    """The block that a text leaves open at its end, if it does.

    Returns:
        The mark of its fence after its margin, its language, and what it holds so far.
    """
    lines = text.split("\n")
    fence, began = None, 0
    for number, line in enumerate(lines):
        opening = _opening(line)
        if fence is not None and fence.is_closed_by(line):
            fence = None
        # In an open block, a fence with a language says that an earlier one was miscounted.
        elif opening is not None and (fence is None or opening.language):
            fence, began = opening, number
    # The line of the fence itself must have ended, or the language may not be whole.
    if fence is None or began == len(lines) - 1:
        return None
    return fence.margin + fence.mark, fence.language, "\n".join(lines[began + 1 :])


def _opening(line: str) -> _Fence | None:
    found = _OPENING.match(line)
    if found is None:
        return None
    lead, mark, info = found["lead"], found["fence"], found["info"].strip()
    margin = _MARGIN.match(lead)
    has_words = margin is None or margin.end() < len(lead)
    name, code = _language_and_code(info)
    if mark[0] == "~" and (has_words or "~~" in info):
        return None  # words that are struck out
    if has_words and not (name and code) and not re.fullmatch(r"[\w+#.-]*", info):
        return None
    return _Fence("" if has_words else lead, mark, name, code)


def _language_and_code(info: str) -> tuple[str, str]:
    """What stands behind a fence's mark: the name of a language, and code that should be below."""
    found = _LANGUAGE.match(info)
    if found is None:
        return "", ""
    name, rest = found[1].lower(), info[found.end() :].strip()
    if re.fullmatch(r"i?py(?:thon)?-?[23]?", name) or re.fullmatch(r"[\w/-]+\.py", info):
        name = "python"
    if name not in PYTHON and name not in LANGUAGES and _PYTHON_CODE.match(info):
        return "", info
    code = _OTHER_CODE if name in LANGUAGES else _PYTHON_CODE
    return name, rest if code.match(rest) else ""


def _read_block(lines: list[str], at: int, fence: _Fence) -> tuple[Block, int]:
    """The block whose opening fence is line `at`, and the line after it."""
    all_closings = (n for n in range(at + 1, len(lines)) if fence.is_closed_by(lines[n]))
    closings = list(islice(all_closings, _ENDS))
    end = closings[0] if closings else len(lines)
    code, after = _content(lines[at + 1 : end], fence), end + 1
    block = Block(code, fence.language, is_closed=bool(closings))
    if not block.may_be_python:
        return _read_other(lines, at, fence)
    if compiling(block.code) is not None:
        return block, after
    ends: list[tuple[list[str], int]] = []
    for number in range(at + 1, end):
        if len(ends) >= _ENDS:
            break
        opening = _opening(lines[number])
        last, mark, _ = lines[number].partition(fence.mark)
        if opening is not None and opening.language:  # the block before was never closed
            ends.append((lines[at + 1 : number], number))
        if mark:
            ends.append(([*lines[at + 1 : number], last], number + 1))
    ends += [(lines[at + 1 : number], number + 1) for number in closings[1:]]
    for content, after_it in ends[:_ENDS]:
        code = _content(content, fence)
        if code.strip() and compiling(code) is not None:
            return Block(code, fence.language), after_it
    program = without_prose(block.code)
    return (block if program is None else replace(block, code=program)), after


def _read_other(lines: list[str], at: int, fence: _Fence) -> tuple[Block, int]:
    """The same for other languages, in which no line holds the mark of a fence."""
    for number in range(at + 1, len(lines)):
        last, mark, _ = lines[number].partition(fence.mark)
        if mark:
            content = [*lines[at + 1 : number], last]
            return Block(_content(content, fence).rstrip(), fence.language), number + 1
    content = lines[at + 1 :]
    return Block(_content(content, fence), fence.language, is_closed=False), len(lines)


def _content(lines: list[str], fence: _Fence) -> str:
    return "\n".join(_without_margin(line, fence.margin) for line in lines)


def _without_margin(line: str, margin: str) -> str:
    if line.startswith(margin):
        return line[len(margin) :]
    kept = line[: len(margin)].lstrip(" \t>")
    return kept + line[len(margin) :]
