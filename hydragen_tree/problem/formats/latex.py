"""LaTeX problem statements as text for a prompt, in light Markdown.

The subset that the problem package format names (sections, lists, tables, verbatim, figures,
fonts, formulas) and the author's own macros. What is unknown loses its markup and keeps its text.
"""

import re
import unicodedata
from collections.abc import Mapping

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex_commands import (
    ACCENTS,
    BREAK,
    DRAWINGS,
    DROPPED,
    ENVIRONMENT_ARGUMENTS,
    FONTS,
    HEADED,
    HEADINGS,
    LENGTHS,
    MATHS,
    NO_DRAWING,
    NO_TABLE,
    SECOND_IS_TEXT,
    SECTIONS,
    STACKS,
    SYMBOLS,
    TABLES,
    THIN,
)
from hydragen_tree.problem.formats.latex_lists import OpenList, open_list
from hydragen_tree.problem.formats.latex_macros import Read, prepare
from hydragen_tree.problem.formats.latex_math import math_to_text, script
from hydragen_tree.problem.formats.latex_references import kind_of, number_labels
from hydragen_tree.problem.formats.latex_scan import VERBATIM, Scanner
from hydragen_tree.problem.formats.latex_units import QUANTITIES, quantity

# More marks, beside those of the tables.
_INDENT, _CELL, _KEPT = "\x02", "\x03", "\x04"

_RULES = re.compile(r"\\(?:(?:hline|toprule|midrule|bottomrule)\b|cmidrule(?:\(\w*\))?\{[^{}]*\})")
_LABEL = re.compile(r"\\label\s*\{([^{}]*)\}")
_LENGTH = re.compile(
    r"\s*=?\s*[-+]?\d*\.?\d*\s*(?:(?:pt|em|ex|cm|mm|in|mu|bp|sp|fil+)\b)?"
    r"(?:\s*(?:plus|minus)\s*[\d.]+\s*\w+)*"
)
_NO_SPACE_BEFORE = tuple(".,'/?;:!~-)}\\ \n")  # where `\xspace` adds none
_REFERENCES = ("ref", "eqref", "autoref", "cref", "Cref")


def latex_to_text(
    source: str, constants: Mapping[str, str] | None = None, read: Read = lambda name: None
) -> str:
    """A LaTeX statement's body as paragraphs of plain text.

    Args:
        source: the file, with or without a document around it.
        constants: values of the package's constants, for `\\constant{name}`.
        read: the text of a file that the statement includes; None if there is no such file.

    Raises:
        InputError: macros that never end, or groups nested thousands deep.
    """
    text = prepare(source, read)
    body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|$)", text, re.DOTALL)
    text = body.group(1) if body else text
    try:
        converter = _Converter(constants or {}, number_labels(text))
        return converter.finish(converter.convert(text))
    except RecursionError:
        raise InputError("LaTeX groups are nested too deeply to be read") from None


def problem_name(source: str) -> str | None:
    """The title in `\\problemname{...}`, if there is one."""
    found = re.search(r"\\problemname(?=\{)", source)
    if not found:
        return None
    scanner = Scanner(source)
    scanner.pos = found.end()
    return latex_to_text(scanner.argument()) or None


class _Converter:
    """Holds what must not be reflowed, and the depth of lists."""

    def __init__(self, constants: Mapping[str, str], labels: Mapping[str, tuple[str, str]]) -> None:
        self._constants = constants
        self._labels = labels
        self._floats: list[tuple[str, str, bool]] = []  # what, its number if labelled, a caption
        self._tables = 0  # open ones
        self._kept: list[str] = []
        self._lists: list[OpenList] = []

    def convert(self, source: str) -> str:
        """Text with marks for what the reflow must know."""
        scanner, out = Scanner(source), list[str]()
        while not scanner.done:
            char = scanner.peek()
            if char == "\\":
                out.append(self._command(scanner, scanner.command()))
            elif char == "{":
                out.append(self.convert(scanner.argument()))
            elif char == "$":
                out.append(_dollars(scanner))
            elif char == "&":
                scanner.pos += 1
                out.append(_CELL)
            else:
                out.append(_characters(scanner))
        return "".join(out)

    def finish(self, text: str) -> str:
        """Reflow: one line a paragraph, one line an item or row, blocks as they were."""
        # A thin space groups the digits of one number; elsewhere it is a space.
        text = re.sub(f"(?<=\\d){THIN}(?=\\d)", "", text).replace(THIN, " ")
        blocks = []
        for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text):
            lines = [" ".join(line.split(None)) for line in paragraph.split(BREAK)]
            kept = [line.replace(_INDENT, "  ") for line in lines if line]
            if kept:
                blocks.append("\n".join(kept))
        joined = "\n\n".join(blocks).replace(_CELL, "&")
        return re.sub(
            f"{_KEPT}(\\d+){_KEPT}", lambda m: self._kept[int(m.group(1))], joined
        ).strip()

    def _keep(self, block: str) -> str:
        """A block that is not reflowed: code, indented by four as in Markdown."""
        self._kept.append("\n".join(f"    {line}".rstrip() for line in block.split("\n")))
        return f"\n\n{_KEPT}{len(self._kept) - 1}{_KEPT}\n\n"

    def _command(self, scanner: Scanner, name: str) -> str:
        plain = name.rstrip("*") if len(name) > 1 else name
        if name == "begin":
            return self._environment(scanner, scanner.argument())
        if name == "\\":
            scanner.take("*")
            scanner.optional()
            return BREAK
        if name in ("(", "["):
            return math_to_text(scanner.until("\\)" if name == "(" else "\\]"))
        if plain in FONTS:
            return _wrapped(self.convert(scanner.argument()), FONTS[plain])
        if plain in SECTIONS:
            scanner.optional()
            title = scanner.argument()  # may be a command that only a contest's class defines
            text = self.convert(title) or re.sub(r"[\\{}]", "", title)
            return f"\n\n{SECTIONS[plain]} {text}\n\n"
        if plain == "item":
            return self._item(scanner.optional())
        if name in SYMBOLS:
            return SYMBOLS[name]
        if name in ACCENTS:
            letter = self.convert(scanner.argument())
            if not letter.strip() and not name.isalpha():
                return name  # the accent by itself, as in `\\^{}`
            return _accented(letter, ACCENTS[name])
        if name in DROPPED:
            scanner.optional()
            for _ in range(DROPPED[name]):
                scanner.argument()
            return ""
        return self._named(scanner, plain)

    def _named(self, scanner: Scanner, name: str) -> str:
        """Commands that each have a meaning of their own, and all others."""
        if name == "constant":
            constant = scanner.argument()
            return self._constants.get(constant, constant)
        if name == "verb":
            return f"`{scanner.until(_taken(scanner))}`"
        if name in ("lstinline", "mintinline"):
            return _code(scanner, name)
        if name in ("url", "path", "nolinkurl"):
            return re.sub(r"\\([%#_&~])", r"\1", scanner.argument())
        if name in ("footnote", "footnotetext"):
            scanner.optional()
            return f" ({self.convert(scanner.argument())})"
        if name in ("includegraphics", "includesvg"):
            scanner.optional()
            return self._picture(scanner.argument())
        if name == "tikz":
            return self._drawing(scanner)
        if name in QUANTITIES:
            return quantity(scanner, name)
        if name in _REFERENCES:
            return self._reference(name, scanner.argument())
        if name == "caption":
            scanner.optional()
            return self._caption(self.convert(scanner.argument()).strip())
        if name == "illustration":
            file = (scanner.argument(), scanner.argument())[1]
            return f"\n\n[Figure: {self.convert(scanner.argument()).strip() or file}]\n\n"
        if name in ("multicolumn", "multirow"):
            scanner.argument(), scanner.argument()
            return self.convert(scanner.argument())
        if name in SECOND_IS_TEXT:
            scanner.optional()
            scanner.argument()
            return self.convert(scanner.argument())
        if name == "timelimit":  # which the contest's class puts in
            return "[the time limit]"
        if name in HEADINGS:
            return f"\n\n## {HEADINGS[name]}\n\n"
        if len(name) == 1 and not name.isalpha():
            return name  # an escaped character
        return self._layout(scanner, name)

    def _layout(self, scanner: Scanner, name: str) -> str:
        """Commands that say where text stands, and all that are not known."""
        if name == "xspace":
            return "" if scanner.done or scanner.peek() in _NO_SPACE_BEFORE else " "
        if name in ("textsuperscript", "textsubscript"):
            mark = "^" if name == "textsuperscript" else "_"
            return script(mark, self.convert(scanner.argument()).strip())
        if name == "ensuremath":
            return math_to_text(scanner.argument())
        if name in STACKS:
            scanner.optional()
            return self.convert(scanner.argument()).replace(BREAK, " ").replace("\n\n", " ")
        if name == "epigraph":
            quoted, author = self.convert(scanner.argument()), self.convert(scanner.argument())
            return f"\n\n{quoted} - {author}\n\n"
        if name == "setcounter":
            counter, value = scanner.argument(), scanner.argument().strip()
            if counter.startswith("enum") and self._lists and value.lstrip("-").isdigit():
                self._lists[-1].number = int(value)
            return ""
        if name in LENGTHS:
            scanner.match(_LENGTH)
            return " " if name in ("kern", "hskip") else ""
        scanner.optional() if scanner.peek() == "[" else None
        return ""  # a group that follows is read as text

    def _picture(self, file: str) -> str:
        """A picture's place; the caption around it says more than its file's name."""
        captioned = bool(self._floats) and self._floats[-1][2]
        return "" if captioned else f"[Figure: {file.strip()}]"

    def _drawing(self, scanner: Scanner) -> str:
        """`\\tikz{...}` or `\\tikz ...;`."""
        scanner.optional()
        scanner.skip_space()
        scanner.argument() if scanner.peek() == "{" else scanner.until(";")
        return NO_DRAWING

    def _reference(self, command: str, labels: str) -> str:
        kinds = [self._labels.get(label.strip(), ("", "?")) for label in labels.split(",")]
        if command == "eqref":
            return ", ".join(f"({number})" for _, number in kinds)
        named = command != "ref"
        return ", ".join(f"{kind} {number}".strip() if named else number for kind, number in kinds)

    def _caption(self, caption: str) -> str:
        kind, number, _ = self._floats[-1] if self._floats else ("Figure", "", False)
        return f"\n\n[{f'{kind} {number}'.strip()}: {caption}]\n\n" if caption else ""

    def _float(self, kind: str, body: str) -> str:
        """A figure or table with its caption, numbered where the text refers to it by label."""
        found = _LABEL.findall(body)
        number = self._labels[found[0]][1] if found else ""
        captioned = re.search(r"\\caption\s*(?:\[[^\]]*\])?\s*\{\s*[^\s}]", body) is not None
        self._floats.append((kind, number, captioned))
        text = self.convert(body)
        self._floats.pop()
        return f"\n\n{text}\n\n"

    def _environment(self, scanner: Scanner, name: str) -> str:
        body = scanner.environment_body(name)
        if name in DRAWINGS:
            captioned = bool(self._floats) and self._floats[-1][2]
            return "" if captioned else f"\n\n{NO_DRAWING}\n\n"
        if name == "tabbing":
            return f"\n\n{NO_TABLE}\n\n"
        if name in VERBATIM:
            if name == "comment":
                return ""
            code = Scanner(body)
            code.optional() if code.peek() == "[" else None
            code.argument() if name == "minted" else None
            return self._keep(code.source[code.pos :].strip("\n"))
        if name.rstrip("*") in MATHS:
            found = _LABEL.findall(body)
            number = f"    ({self._labels[found[0]][1]})" if len(found) == 1 else ""
            return f"\n\n{math_to_text(body)}{number}\n\n"
        inner = Scanner(body)
        options = inner.optional() or ""
        for _ in range(ENVIRONMENT_ARGUMENTS.get(name, 0)):
            inner.argument()
            inner.optional()
        rest = inner.source[inner.pos :]
        if name in ("itemize", "enumerate", "description"):
            return self._list(rest, open_list(name, options))
        if name in TABLES:
            return self._table(rest)
        kind = kind_of(name)
        if kind in ("Figure", "Table"):
            return self._float(kind, rest)
        heading = f"## {name}\n\n" if name in HEADED else ""
        if title := name == "tcolorbox" and re.search(r"title\s*=\s*(\{[^{}]*\}|[^,]*)", options):
            heading = f"{self.convert(title.group(1))}\n\n"
        return f"\n\n{heading}{self.convert(rest)}\n\n"

    def _list(self, body: str, opened: OpenList) -> str:
        nested = bool(self._lists)
        self._lists.append(opened)
        # An empty line between items is a habit, not a paragraph.
        text = re.sub(r"\n\s*\n", BREAK, self.convert(body))
        self._lists.pop()
        return text if nested else f"\n\n{text}\n\n"

    def _item(self, label: str | None) -> str:
        if not self._lists:
            return f"{BREAK}- "
        named = f" {self.convert(label)}" if label else ""
        mark = "-" if label else self._lists[-1].next_mark()
        return f"{BREAK}{_INDENT * (len(self._lists) - 1)}{mark}{named} "

    def _table(self, body: str) -> str:
        self._tables += 1
        rows = self.convert(_RULES.sub("", body))
        self._tables -= 1
        lines = [row for row in rows.replace("\n\n", "\n").split(BREAK) if row.strip()]
        cells = [" | ".join(cell.strip() for cell in line.split(_CELL)) for line in lines]
        if self._tables:  # a table within a cell keeps to the cell's line
            return "; ".join(cells).replace(" | ", ", ")
        return f"\n\n{BREAK.join(cells)}\n\n"


def _characters(scanner: Scanner) -> str:
    """One character of text, or one of LaTeX's ligatures."""
    for ligature, text in (("---", " - "), ("--", "-"), ("``", '"'), ("''", '"'), ("`", "'")):
        if scanner.take(ligature):
            return text
    scanner.pos += 1
    char = scanner.source[scanner.pos - 1]
    return {"~": " ", "}": ""}.get(char, char)


def _dollars(scanner: Scanner) -> str:
    """A formula between dollars; on lines of its own between double ones."""
    display = scanner.take("$$")
    if not display:
        scanner.take("$")
    closing = "$$" if display else "$"
    start = scanner.pos
    end = _closing_dollars(scanner.source, start, closing)
    text = math_to_text(scanner.source[start:end])
    scanner.pos = end
    scanner.take(closing)
    return f"\n\n{text}\n\n" if display else text


def _closing_dollars(source: str, start: int, closing: str) -> int:
    """Where a formula ends: at dollars outside of its groups, as those in `\\text{if $i$}` are not.

    Where the groups are not balanced, at the first dollars.
    """
    position, depth, first = start, 0, len(source)
    while position < len(source):
        char = source[position]
        if source.startswith(closing, position):
            if depth <= 0:
                return position
            first = min(first, position)
        if source.startswith("\n\n", position) and first < position:
            break  # no formula goes over a paragraph's end
        depth += (char == "{") - (char == "}")
        position += 2 if char == "\\" else 1
    return first


def _taken(scanner: Scanner) -> str:
    scanner.pos += 1
    return scanner.source[scanner.pos - 1 : scanner.pos]


def _code(scanner: Scanner, command: str) -> str:
    """`\\lstinline{code}` or `\\lstinline|code|`; minted's names a language first."""
    scanner.optional()
    if command == "mintinline":
        scanner.argument()
    code = scanner.argument() if scanner.peek() == "{" else scanner.until(_taken(scanner))
    return f"`{code}`"


def _wrapped(text: str, mark: str) -> str:
    """Text in Markdown marks, which must touch it; nothing for no text."""
    core = text.strip()
    if not core or BREAK in core or "\n\n" in core:
        return text
    before, after = text[: text.index(core)], text[text.index(core) + len(core) :]
    return f"{before}{mark}{core}{mark}{after}"


def _accented(letter: str, accent: str) -> str:
    return unicodedata.normalize("NFC", letter[:1] + accent) + letter[1:]
