"""LaTeX source made plain: without comments, conditions decided, files and macros in place.

Conditions are decided as for print: a switch that nothing turns on is off.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.latex_scan import VERBATIM, Scanner

MOST_EXPANSIONS = 10_000
Read = Callable[[str], str | None]

_VERBATIM_BODY = re.compile(
    r"\\begin\{(" + "|".join(re.escape(name) for name in VERBATIM) + r")\}.*?\\end\{\1\}"
    r"|\\verb\*?([^A-Za-z*\s]).*?\2"
    r"|\\lstinline(?:\[[^\]]*\])?([^A-Za-z*\s\[{]).*?\3"
    r"|\\(?:url|href|path|nolinkurl)\s*\{[^{}\n]*\}",
    re.DOTALL,
)
# A comment takes its line's end and the next line's indentation along, but never an empty line.
_COMMENT = re.compile(r"%[^\n]*(?:\n[ \t]*(?!\n))?")
_DEFINITIONS = (
    "newcommand", "renewcommand", "providecommand", "def", "gdef", "edef", "DeclareMathOperator",
    "newcolumntype", "newenvironment", "renewenvironment", "newtheorem",
)  # fmt: skip
_INPUTS = ("input", "include", "subfile")
_LISTINGS = ("lstinputlisting", "verbatiminput", "VerbatimInput", "inputminted")
_NO_CONDITIONS = ("iff", "ifthenelse", "ifstrempty", "ifdefempty", "ifblank", "ifstrequal")
_INTERNAL = re.compile("@[A-Za-z]+")  # the rest of a name that only packages use
_FILE = re.compile(r"[^\s\\{}]+")
_BRANCHES = re.compile(r"\\(if[A-Za-z]*|else|fi)(?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class _Macro:
    """What a command stands for.

    Args:
        body: with `#1` and so on for its arguments.
        parameters: how many it has.
        default: of its first one, which is then optional.
        final: the body is a command of LaTeX's own, whatever macro has its name now.
    """

    body: str
    parameters: int = 0
    default: str | None = None
    final: bool = False


@dataclass(slots=True)
class _Preparer:
    """Goes through the source once; what it puts in place is read again from there."""

    scanner: Scanner
    read: Read
    macros: dict[str, _Macro] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    out: list[str] = field(default_factory=list)
    expansions: int = 0

    def run(self) -> str:
        while not self.scanner.done:
            scanner = self.scanner
            if found := scanner.match(_VERBATIM_BODY):
                self.out.append(found.group())
            elif scanner.match(_COMMENT):
                continue
            elif scanner.peek() != "\\":
                scanner.pos += 1
                self.out.append(scanner.source[scanner.pos - 1])
            else:
                start = scanner.pos
                if not self._command(scanner.command()):
                    self.out.append(scanner.source[start : scanner.pos])
        return "".join(self.out)

    def _command(self, name: str) -> bool:
        """Whether the command that was just read is done with here."""
        plain = name.rstrip("*")
        if plain in _DEFINITIONS:
            self._define("def" if plain.endswith("def") else plain)
        elif name == "let":
            self._let()
        elif name in self.macros:
            self._expand(name)
        elif name == "newif":
            self.scanner.argument()
        elif name == "fi":
            pass
        elif name == "else":  # the end of a branch that was taken
            self._branch(False)
        elif re.fullmatch("if[A-Za-z]*", name) and name not in _NO_CONDITIONS:
            self._branch(self._holds(name))
        elif found := re.fullmatch("([A-Za-z]+?)(true|false)", name):
            change = self.switches.add if found.group(2) == "true" else self.switches.discard
            change(found.group(1))
        elif name in _INPUTS:
            found = self.scanner.match(_FILE)  # TeX's own form has no braces
            self._include(found.group() if found else self.scanner.argument().strip())
        elif name in _LISTINGS:
            self._listing(name)
        else:
            return False
        return True

    def _define(self, kind: str) -> None:
        """Remember what `\\newcommand{\\name}[2]{body}` or `\\def\\name#1{body}` defines."""
        scanner = self.scanner
        name = scanner.argument().strip().removeprefix("\\")
        if kind in ("newcolumntype", "newenvironment", "renewenvironment", "newtheorem"):
            while scanner.optional() is not None:  # numbers of arguments, counters
                pass
            for _ in range(2 if kind.endswith("environment") else 1):
                scanner.argument()
            scanner.optional()
        elif kind == "def":
            parameters = len(re.findall(r"#\d", scanner.until("{")))
            scanner.pos -= 1
            self.macros[name] = _Macro(scanner.argument(), parameters)
        elif kind == "DeclareMathOperator":
            self.macros[name] = _Macro(f"\\operatorname{{{scanner.argument()}}}")
        else:
            count, default = scanner.optional() or "0", scanner.optional()
            parameters = int(count) if count.strip().isdigit() else 0
            self.macros[name] = _Macro(scanner.argument(), parameters, default)

    def _let(self) -> None:
        name = self.scanner.argument().strip().removeprefix("\\")
        self.scanner.skip_space()
        self.scanner.take("=")
        target = self.scanner.argument()
        known = self.macros.get(target.removeprefix("\\"))
        self.macros[name] = known or _Macro(target, final=True)

    def _expand(self, name: str) -> None:
        macro, scanner = self.macros[name], self.scanner
        body, arguments = macro.body, []
        for number in range(macro.parameters):
            given = scanner.optional() if number == 0 and macro.default is not None else None
            if number == 0 and macro.default is not None and given is None:
                given = macro.default
            arguments.append(scanner.argument() if given is None else given)
        for number, argument in enumerate(arguments, start=1):
            body = body.replace(f"#{number}", argument)
        if macro.parameters == 0:
            scanner.take("{}")
        if macro.final:
            after = scanner.peek()
            self.out.append(_joined(body, after).removesuffix(after))
            return
        self._put(body, f"\\{name}: the macro never ends")

    def _put(self, text: str, never_ends: str) -> None:
        """Read `text` next."""
        self.expansions += 1
        if self.expansions > MOST_EXPANSIONS:
            raise InputError(never_ends)
        self.scanner = Scanner(_joined(text, self.scanner.source[self.scanner.pos :]))

    def _holds(self, name: str) -> bool:
        """Whether a condition holds; it is read to its end."""
        if name in ("ifx", "ifdefined"):
            count = 2 if name == "ifx" else 1
            names = [self.scanner.argument().strip().removeprefix("\\") for _ in range(count)]
            if name == "ifdefined":
                return names[0] in self.macros
            first, second = (self.macros.get(one) for one in names)
            undefined = first is None and "undefined" in names
            return names[0] == names[1] or (first == second and (first is not None or undefined))
        if name == "if" and not self.scanner.match(_INTERNAL):  # whether two characters are equal
            return self.scanner.argument() == self.scanner.argument()
        return name == "iftrue" or name.removeprefix("if") in self.switches

    def _branch(self, holds: bool) -> None:
        """Go on with the branch that is taken, and leave the other one out."""
        source, depth = self.scanner.source, 0
        start, otherwise, end = self.scanner.pos, None, None
        for found in _BRANCHES.finditer(source, start):
            word = found.group(1)
            if word.startswith("if"):
                depth += word not in _NO_CONDITIONS
            elif word == "fi" and depth:
                depth -= 1
            elif word == "fi":
                end = found
                break
            elif not depth and otherwise is None:
                otherwise = found
        if end is None:  # no condition of TeX's
            return
        first = source[start : (otherwise or end).start()]
        second = source[otherwise.end() : end.start()] if otherwise else ""
        rest = source[end.end() :].lstrip(" ")
        self.scanner = Scanner((first if holds else second.lstrip(" ")) + rest)

    def _include(self, name: str) -> None:
        text = self.read(name) if name else None
        if text is None:
            self.out.append(f"\n\n[Not found: {name}]\n\n" if name else "")
        else:
            self._put(_strip_control(text), f"\\input{{{name}}}: the files never end")

    def _listing(self, command: str) -> None:
        self.scanner.optional()
        if command == "inputminted":
            self.scanner.argument()
        name = self.scanner.argument().strip()
        text = self.read(name)
        body = f"\\begin{{verbatim}}\n{_strip_control(text)}\\end{{verbatim}}" if text else ""
        self.out.append(body or f"[Listing: {name}]")


def prepare(source: str, read: Read = lambda name: None) -> str:
    """The source without comments, with its files and the author's macros written out.

    Args:
        source: LaTeX.
        read: the text of a file that the source names; None if there is no such file.

    Raises:
        InputError: the macros or files never end.
    """
    return _Preparer(Scanner(_strip_control(source)), read).run()


def _joined(text: str, rest: str) -> str:
    """A space keeps a command at the end of `text` apart from a letter after it."""
    apart = re.search(r"\\[A-Za-z]+$", text) and rest[:1].isalpha()
    return f"{text} {rest}" if apart else text + rest


def _strip_control(source: str) -> str:
    """Windows line ends made plain, control characters gone."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char >= " " or char in "\n\t")
