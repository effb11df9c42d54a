"""LaTeX problem statements as text for a prompt, in light Markdown.

The subset that the problem package format names (sections, lists, tables, verbatim, figures,
fonts, formulas) and the author's own macros. What is unknown loses its markup and keeps its text.
"""

import re
import unicodedata
from collections.abc import Mapping

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex_math import math_to_text
from hydragen_tree.problem.formats.latex_scan import VERBATIM, Scanner, prepare

# Marks inside the text while its white space is still LaTeX's. The source can hold none of them:
# `prepare` removes control characters.
_BREAK, _INDENT, _CELL, _KEPT, _THIN = "\x01", "\x02", "\x03", "\x04", "\x05"

_MATHS = ("equation", "align", "gather", "displaymath", "math", "eqnarray", "multline", "alignat")
_SECTIONS = {"section": "##", "subsection": "###", "subsubsection": "####", "paragraph": "####"}
_HEADED = ("Input", "Output", "Interaction")  # environments of format 2025-09
_FONTS = {"textbf": "**", "emph": "*", "textit": "*", "texttt": "`", "textsl": "*"}
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328",
    "r": "\u030a", "d": "\u0323", "b": "\u0331",
}  # fmt: skip
_SYMBOLS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł",
    "aa": "å", "AA": "Å", "i": "i", "j": "j", "S": "§", "P": "¶", "pounds": "£", "euro": "€",
    "copyright": "©", "LaTeX": "LaTeX", "TeX": "TeX", "ldots": "...", "dots": "...",
    "textellipsis": "...", "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^",
    "textless": "<", "textgreater": ">", "textbar": "|", "textunderscore": "_", "textendash": "-",
    "textemdash": " - ", "textquotesingle": "'", "textquotedbl": '"', "textdegree": "°",
    "textdollar": "$", "textasteriskcentered": "*", "textbullet": "*", "textbraceleft": "{",
    "textbraceright": "}", "guillemotleft": '"', "guillemotright": '"',
    "quad": " ", "qquad": " ", "newline": _BREAK, "linebreak": _BREAK, "par": "\n\n", " ": " ",
    "\n": " ", ",": _THIN, ";": " ", ":": " ", "!": "", "-": "", "/": "", "@": "",
}  # fmt: skip
_DROPPED = {  # commands that show nothing, with the number of their arguments
    "label": 1, "ref": 1, "eqref": 1, "pageref": 1, "vspace": 1, "vspace*": 1, "hspace": 1,
    "hspace*": 1, "includegraphics": 1, "includesvg": 1, "setlength": 2, "addtolength": 2,
    "usepackage": 1, "pagestyle": 1, "thispagestyle": 1, "problemname": 1, "color": 1, "cline": 1,
    "graphicspath": 1, "index": 1, "hypersetup": 1, "lstset": 1, "setcounter": 2, "cite": 1,
    "input": 1, "include": 1, "rule": 2, "captionsetup": 1, "selectlanguage": 1,
}  # fmt: skip
_SECOND_IS_TEXT = ("href", "textcolor", "colorbox", "raisebox", "parbox", "scalebox", "resizebox")
_ENVIRONMENT_ARGUMENTS = {
    "tabular": 1, "tabularx": 2, "tabular*": 2, "longtable": 1, "wrapfigure": 2, "minipage": 1,
    "multicols": 1, "subfigure": 1, "adjustbox": 1, "wraptable": 2, "array": 1,
}  # fmt: skip
_TABLES = ("tabular", "tabularx", "tabular*", "longtable", "array")


def latex_to_text(source: str, constants: Mapping[str, str] | None = None) -> str:
    """A LaTeX statement's body as paragraphs of plain text.

    Args:
        source: the file, with or without a document around it.
        constants: values of the package's constants, for `\\constant{name}`.

    Raises:
        InputError: macros that never end, or groups nested thousands deep.
    """
    body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|$)", source, re.DOTALL)
    text = prepare(body.group(1) if body else source)
    try:
        converter = _Converter(constants or {})
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

    def __init__(self, constants: Mapping[str, str]) -> None:
        self._constants = constants
        self._kept: list[str] = []
        self._lists: list[int | None] = []  # the last number of each open list; None has bullets

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
        text = re.sub(f"(?<=\\d){_THIN}(?=\\d)", "", text).replace(_THIN, " ")
        blocks = []
        for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text):
            lines = [" ".join(line.split(None)) for line in paragraph.split(_BREAK)]
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
            return _BREAK
        if name in ("(", "["):
            return math_to_text(scanner.until("\\)" if name == "(" else "\\]"))
        if plain in _FONTS:
            return _wrapped(self.convert(scanner.argument()), _FONTS[plain])
        if plain in _SECTIONS:
            return f"\n\n{_SECTIONS[plain]} {self.convert(scanner.argument())}\n\n"
        if plain == "item":
            return self._item(scanner.optional())
        if name in _SYMBOLS:
            return _SYMBOLS[name]
        if name in _ACCENTS:
            return _accented(self.convert(scanner.argument()), _ACCENTS[name])
        if name in _DROPPED:
            scanner.optional()
            for _ in range(_DROPPED[name]):
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
        if name == "url":
            return scanner.argument()
        if name == "footnote":
            return f" ({self.convert(scanner.argument())})"
        if name in ("caption", "illustration"):
            if name == "illustration":
                scanner.argument(), scanner.argument()
            caption = self.convert(scanner.argument()).strip()
            return f"\n\n[Figure: {caption}]\n\n" if caption else ""
        if name in ("multicolumn", "multirow"):
            scanner.argument(), scanner.argument()
            return self.convert(scanner.argument())
        if name in _SECOND_IS_TEXT:
            scanner.optional()
            scanner.argument()
            return self.convert(scanner.argument())
        if len(name) == 1 and not name.isalpha():
            return name  # an escaped character
        scanner.optional() if scanner.peek() == "[" else None
        return ""  # a group that follows is read as text

    def _environment(self, scanner: Scanner, name: str) -> str:
        body = scanner.environment_body(name)
        if name in VERBATIM:
            if name == "comment":
                return ""
            code = Scanner(body)
            code.optional() if code.peek() == "[" else None
            code.argument() if name == "minted" else None
            return self._keep(code.source[code.pos :].strip("\n"))
        if name.rstrip("*") in _MATHS:
            return f"\n\n{math_to_text(body)}\n\n"
        inner = Scanner(body)
        inner.optional()
        for _ in range(_ENVIRONMENT_ARGUMENTS.get(name, 0)):
            inner.argument()
            inner.optional()
        rest = inner.source[inner.pos :]
        if name in ("itemize", "enumerate", "description"):
            return self._list(rest, numbered=name == "enumerate")
        if name in _TABLES:
            return self._table(rest)
        heading = f"## {name}\n\n" if name in _HEADED else ""
        return f"\n\n{heading}{self.convert(rest)}\n\n"

    def _list(self, body: str, *, numbered: bool) -> str:
        nested = bool(self._lists)
        self._lists.append(0 if numbered else None)
        # An empty line between items is a habit, not a paragraph.
        text = re.sub(r"\n\s*\n", _BREAK, self.convert(body))
        self._lists.pop()
        return text if nested else f"\n\n{text}\n\n"

    def _item(self, label: str | None) -> str:
        if not self._lists:
            return f"{_BREAK}- "
        number = self._lists[-1]
        if number is not None:
            self._lists[-1] = number + 1
        mark = "-" if number is None else f"{number + 1}."
        named = f" {self.convert(label)}" if label else ""
        return f"{_BREAK}{_INDENT * (len(self._lists) - 1)}{mark}{named} "

    def _table(self, body: str) -> str:
        rows = self.convert(re.sub(r"\\(?:hline|toprule|midrule|bottomrule)\b", "", body))
        lines = [row for row in rows.replace("\n\n", "\n").split(_BREAK) if row.strip()]
        cells = [" | ".join(cell.strip() for cell in line.split(_CELL)) for line in lines]
        return f"\n\n{_BREAK.join(cells)}\n\n"


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
    while not scanner.done and not scanner.source.startswith(closing, scanner.pos):
        scanner.pos += 2 if scanner.peek() == "\\" else 1
    text = math_to_text(scanner.source[start : scanner.pos])
    scanner.take(closing)
    return f"\n\n{text}\n\n" if display else text


def _taken(scanner: Scanner) -> str:
    scanner.pos += 1
    return scanner.source[scanner.pos - 1 : scanner.pos]


def _wrapped(text: str, mark: str) -> str:
    """Text in Markdown marks, which must touch it; nothing for no text."""
    core = text.strip()
    if not core or _BREAK in core or "\n\n" in core:
        return text
    before, after = text[: text.index(core)], text[text.index(core) + len(core) :]
    return f"{before}{mark}{core}{mark}{after}"


def _accented(letter: str, accent: str) -> str:
    return unicodedata.normalize("NFC", letter[:1] + accent) + letter[1:]
