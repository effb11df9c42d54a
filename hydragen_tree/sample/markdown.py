"""A text as blocks of code and prose, read as people write Markdown rather than as its standard.

A fence may be indented, quoted or follow words on its line; it may be closed on a line of code, or
never. Where the standard's end of a Python block leaves code that does not compile and another
end does not, the other is meant: three back-ticks in a docstring end nothing. Prose after a program
in a block is left out.
"""

import re
import textwrap
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from hydragen_tree.sample.code_in_prose import without_prose
from hydragen_tree.sample.notations import meant
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
_MARK = re.compile("`{3}|~{3}")
_ENDS = 8  # other ends of a block that are tried
_TRIED = 32  # blocks, from the first, for which they are: a text of more repeats itself


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
        return _may_be_python(self.language)


def _may_be_python(language: str) -> bool:
    return language in UNNAMED or language in PYTHON


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


class _Lines:
    """The lines of a text, and which of them can open or close a block."""

    def __init__(self, text: str) -> None:
        self.all = text.split("\n")
        self._marked = [number for number, line in enumerate(self.all) if _MARK.search(line)]
        # Nothing but a mark and a margin, as what closes a block is.
        self._bare = [number for number in self._marked if not self.all[number].strip(" \t>`~")]

    def marked(self, after: int = -1) -> Iterator[int]:
        """Numbers of the lines behind one that hold a fence's mark."""
        return (self._marked[i] for i in range(bisect(self._marked, after), len(self._marked)))

    def closings(self, fence: _Fence, after: int) -> Iterator[int]:
        """Numbers of the lines behind one that close a fence."""
        bare = (self._bare[i] for i in range(bisect(self._bare, after), len(self._bare)))
        return (number for number in bare if fence.is_closed_by(self.all[number]))

    def content(self, fence: _Fence, at: int, end: int, last: str | None = None) -> str:
        """What stands between a fence in line `at` and line `end`, without the fence's margin.

        Args:
            fence: it.
            at: its line.
            end: the line after the content, or `last`'s own.
            last: a part of line `end` that belongs to it.
        """
        held = [fence.margin + fence.code] if fence.code else []
        held += self.all[at + 1 : end]
        held += [] if last is None else [last]
        if fence.margin:
            held = [_without_margin(line, fence.margin) for line in held]
        return "\n".join(held)


def split_blocks(text: str) -> list[Block]:
    """The blocks of a text, prose included, in order; empty ones are left out."""
    lines = _Lines(text)
    blocks: list[Block] = []
    prose: list[str] = []
    at = fenced = 0
    for number in lines.marked():
        if number < at:
            continue  # it belongs to the last block
        line = lines.all[number]
        prose += lines.all[at:number]
        one_line, fence = _ONE_LINE.match(line), _opening(line)
        at = number + 1
        if one_line is None and (fence is None or fence.language in _MARKDOWN):
            # A block of Markdown is read as if its fences were not there.
            prose.append(line if fence is None else "")
            continue
        if fence is not None and not fence.code and _is_opened_again(lines, number):
            continue
        blocks.append(Block("\n".join(prose), is_fenced=False))
        prose = []
        if one_line is not None:
            blocks.append(Block(one_line["code"], (one_line["language"] or "").lower()))
        elif fence is not None:
            read = _read_block if fenced < _TRIED else _read_by_standard
            block, at = read(lines, number, fence)
            blocks.append(block)
            fenced += 1
    blocks.append(Block("\n".join([*prose, *lines.all[at:]]), is_fenced=False))
    return [block for block in blocks if block.code.strip()]


def _is_opened_again(lines: _Lines, at: int) -> bool:
    """Whether nothing stands between a fence and another one, which names a language."""
    number = next(lines.marked(at), None)
    if number is None or any(map(str.strip, lines.all[at + 1 : number])):
        return False
    again = _opening(lines.all[number])
    return again is not None and bool(again.language)


def compiling(code: str) -> str | None:
    """The code, without its common margin or as it is meant if only so it compiles; else None."""
    if compiles(code):
        return code
    has_margin = code.lstrip("\n")[:1].isspace()
    program = meant(textwrap.dedent(code) if has_margin else code)
    return program if compiles(program) else None


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


def _read_block(lines: _Lines, at: int, fence: _Fence) -> tuple[Block, int]:
    """The block whose opening fence is line `at`, and the line after it."""
    if not _may_be_python(fence.language):
        return _read_other(lines, at, fence)
    closings = list(islice(lines.closings(fence, at), _ENDS))
    end = closings[0] if closings else len(lines.all)
    block = Block(lines.content(fence, at, end), fence.language, is_closed=bool(closings))
    if compiling(block.code) is not None:
        return block, end + 1
    ends: list[tuple[str, int]] = []
    for number in lines.marked(at):
        if len(ends) >= _ENDS or number >= end:
            break
        opening = _opening(lines.all[number])
        last, mark, _ = lines.all[number].partition(fence.mark)
        if opening is not None and opening.language:  # the block before was never closed
            ends.append((lines.content(fence, at, number), number))
        if mark:
            ends.append((lines.content(fence, at, number, last), number + 1))
    ends += [(lines.content(fence, at, number), number + 1) for number in closings[1:]]
    for code, after_it in ends[:_ENDS]:
        if code.strip() and compiling(code) is not None:
            return Block(code, fence.language), after_it
    program = without_prose(block.code)
    return (block if program is None else replace(block, code=program)), end + 1


def _read_other(lines: _Lines, at: int, fence: _Fence) -> tuple[Block, int]:
    """The same for other languages, in which no line holds the mark of a fence."""
    for number in lines.marked(at):
        last, mark, _ = lines.all[number].partition(fence.mark)
        if mark:
            code = lines.content(fence, at, number, last).rstrip()
            return Block(code, fence.language), number + 1
    code = lines.content(fence, at, len(lines.all))
    return Block(code, fence.language, is_closed=False), len(lines.all)


def _read_by_standard(lines: _Lines, at: int, fence: _Fence) -> tuple[Block, int]:
    """The same without a look at the code: to what closes the fence, or another one opens."""
    for number in lines.marked(at):
        is_closed = fence.is_closed_by(lines.all[number])
        opening = _opening(lines.all[number])
        if is_closed or (opening is not None and opening.language):
            code = lines.content(fence, at, number)
            return Block(code, fence.language, is_closed=is_closed), number + int(is_closed)
    code = lines.content(fence, at, len(lines.all))
    return Block(code, fence.language, is_closed=False), len(lines.all)


def _without_margin(line: str, margin: str) -> str:
    if line.startswith(margin):
        return line[len(margin) :]
    kept = line[: len(margin)].lstrip(" \t>")
    return kept + line[len(margin) :]
