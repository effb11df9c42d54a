"""Reading LaTeX source: commands, arguments, comments, and the author's own macros."""

import re

from hydragen_tree.errors import InputError

VERBATIM = ("verbatim", "verbatim*", "lstlisting", "Verbatim", "minted", "comment")
MOST_EXPANSIONS = 10_000

_COMMAND = re.compile(r"\\(?:[A-Za-z]+\*?|.|\n)", re.DOTALL)
_VERBATIM_BODY = re.compile(
    r"\\begin\{(" + "|".join(re.escape(name) for name in VERBATIM) + r")\}.*?\\end\{\1\}"
    r"|\\verb\*?([^A-Za-z*\s]).*?\2",
    re.DOTALL,
)
# A comment takes its line's end and the next line's indentation along, but never an empty line.
_COMMENT = re.compile(r"%[^\n]*(?:\n[ \t]*(?!\n))?")
_DEFINITIONS = (
    "newcommand", "renewcommand", "providecommand", "def", "DeclareMathOperator", "newcolumntype",
    "newenvironment", "renewenvironment", "newtheorem",
)  # fmt: skip


class Scanner:
    """A position in LaTeX source that moves forward."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.pos = 0

    @property
    def done(self) -> bool:
        """Whether everything was read."""
        return self.pos >= len(self.source)

    def peek(self) -> str:
        """The next character, or nothing at the end."""
        return self.source[self.pos : self.pos + 1]

    def take(self, text: str) -> bool:
        """Move past `text` if it comes next."""
        found = self.source.startswith(text, self.pos)
        self.pos += len(text) * found
        return found

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Move past what `pattern` matches here."""
        found = pattern.match(self.source, self.pos)
        if found:
            self.pos = found.end()
        return found

    def until(self, text: str) -> str:
        """What comes before the next `text`, moving past both; to the end if there is none."""
        end = self.source.find(text, self.pos)
        end = len(self.source) if end < 0 else end
        found, self.pos = self.source[self.pos : end], end + len(text)
        return found

    def skip_space(self) -> None:
        """Move past white space."""
        while self.peek().isspace():
            self.pos += 1

    def command(self) -> str:
        """The command that starts here, without its backslash; white space after a word goes."""
        found = self.match(_COMMAND)
        if found is None:  # a lone backslash at the very end
            self.pos = len(self.source)
            return ""
        name = found.group()[1:]
        if name[0].isalpha():
            self.match(_SPACE_AFTER_WORD)
        return name

    def argument(self) -> str:
        """A command's next argument: the inside of a group, or a single token."""
        self.skip_space()
        if self.peek() == "{":
            return self._group("{", "}")
        if self.peek() == "\\":
            return "\\" + self.command()
        self.pos += 1
        return self.source[self.pos - 1 : self.pos]

    def optional(self) -> str | None:
        """The inside of `[...]` if that comes next."""
        start = self.pos
        self.skip_space()
        if self.peek() == "[":
            return self._group("[", "]")
        self.pos = start
        return None

    def environment_body(self, name: str) -> str:
        """The source up to the `\\end` that matches an already read `\\begin`."""
        start, depth = self.pos, 1
        for edge in re.finditer(r"\\(begin|end)\{" + re.escape(name) + r"\}", self.source[start:]):
            depth += 1 if edge.group(1) == "begin" else -1
            if depth == 0:
                self.pos = start + edge.end()
                return self.source[start : start + edge.start()]
        self.pos = len(self.source)
        return self.source[start:]

    def _group(self, opening: str, closing: str) -> str:
        """The inside of a balanced group that starts here; braces count in square brackets too."""
        start, depth = self.pos + 1, 0
        position = self.pos
        while position < len(self.source):
            char = self.source[position]
            if char == "\\":
                position += 1
            elif char in ("{", opening):
                depth += 1
            elif char in ("}", closing):
                depth -= 1
                if depth == 0:
                    break
            position += 1
        self.pos = position + 1
        return self.source[start:position]


_SPACE_AFTER_WORD = re.compile(r"[ \t]*\n?[ \t]*(?!\n)|[ \t]+")


def prepare(source: str) -> str:
    """The source without comments and with the author's macros written out.

    Raises:
        InputError: the macros never end.
    """
    scanner, macros = Scanner(_strip_control(source)), dict[str, tuple[int, str]]()
    out: list[str] = []
    expansions = 0
    while not scanner.done:
        if found := scanner.match(_VERBATIM_BODY):
            out.append(found.group())
        elif scanner.match(_COMMENT):
            continue
        elif scanner.peek() != "\\":
            scanner.pos += 1
            out.append(scanner.source[scanner.pos - 1])
        else:
            start = scanner.pos
            name = scanner.command()
            if name.rstrip("*") in _DEFINITIONS:
                _define(scanner, name.rstrip("*"), macros)
            elif name in macros:
                expansions += 1
                if expansions > MOST_EXPANSIONS:
                    raise InputError(f"\\{name}: the macro never ends")
                scanner = Scanner(_expansion(scanner, macros[name]))
            else:
                out.append(scanner.source[start : scanner.pos])
    return "".join(out)


def _strip_control(source: str) -> str:
    """Windows line ends made plain, control characters gone."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char >= " " or char in "\n\t")


def _define(scanner: Scanner, kind: str, macros: dict[str, tuple[int, str]]) -> None:
    """Remember what `\\newcommand{\\name}[2]{body}` or `\\def\\name#1{body}` defines."""
    name = scanner.argument().strip().removeprefix("\\")
    if kind in ("newcolumntype", "newenvironment", "renewenvironment", "newtheorem"):
        while scanner.optional() is not None:  # numbers of arguments, counters
            pass
        for _ in range(2 if kind.endswith("environment") else 1):
            scanner.argument()
        scanner.optional()
        return
    if kind == "def":
        parameters = len(re.findall(r"#\d", scanner.until("{")))
        scanner.pos -= 1
        macros[name] = (parameters, scanner.argument())
    elif kind == "DeclareMathOperator":
        macros[name] = (0, f"\\operatorname{{{scanner.argument()}}}")
    else:
        count = scanner.optional() or "0"
        default = scanner.optional()
        parameters = int(count) if count.strip().isdigit() else 0
        body = scanner.argument()
        if default is not None:  # the first parameter is optional; its default stands in for it
            parameters -= 1
            body = re.sub(r"#(\d)", lambda m: _shift(m.group(1), default), body)
        macros[name] = (parameters, body)


def _shift(number: str, default: str) -> str:
    return default if number == "1" else f"#{int(number) - 1}"


def _expansion(scanner: Scanner, macro: tuple[int, str]) -> str:
    """The macro's body with its arguments, and the rest of the source after it."""
    parameters, body = macro
    arguments = [scanner.argument() for _ in range(parameters)]
    for number, argument in enumerate(arguments, start=1):
        body = body.replace(f"#{number}", argument)
    if parameters == 0:
        scanner.take("{}")
    rest = scanner.source[scanner.pos :]
    return (
        f"{body} {rest}"
        if body[-1:].isalpha() and "\\" in body and rest[:1].isalpha()
        else body + rest
    )
