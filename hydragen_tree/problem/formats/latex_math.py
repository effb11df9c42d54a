"""Formulas as plain text: `$1 \\le n \\le 10^{5}$` becomes `1 <= n <= 10^5`."""

import re
import unicodedata

from hydragen_tree.problem.formats.latex_scan import Scanner
from hydragen_tree.problem.formats.latex_units import QUANTITIES, quantity
from hydragen_tree.problem.formats.latex_words import (
    CLOSING,
    NAMES,
    NEGATED,
    OVER,
    UNWRAPPED,
    WORDS,
)

# The brackets that a matrix stands in.
_MATRICES = {"pmatrix": "()", "bmatrix": "[]", "Bmatrix": "{}", "vmatrix": "||"}
_NO_LENGTH = re.compile(r"\s*-?[\d.]*\s*(?:mu|pt|em|ex|cm|mm|in|sp)\b ?")

_ATOM = re.compile(r"\w+(?:\.\d+)?|\([^()]*\)|[\w]+\([^()]*\)")
_SHORT = re.compile(r"-?\d+|\w|\*|\+|'+")


def math_to_text(source: str) -> str:
    """A formula's source, without its dollars, as plain text on one line."""
    text = re.sub(r"\s+", " ", _convert(source)).strip()
    return re.sub(r"\s+([),;])", r"\1", re.sub(r"\(\s+", "(", text))


def _convert(source: str) -> str:
    if infix := _infix(source):
        return infix
    scanner, out = Scanner(source), ""
    while not scanner.done:
        char = scanner.peek()
        if char == "\\":
            out = _command(scanner, scanner.command(), out)
        elif char == "{":
            out += _convert(scanner.argument())
        elif char in "^_":
            scanner.pos += 1
            out = out.rstrip() + script(char, _convert(scanner.argument()).strip())
        elif char in "&~$":  # a dollar can only come from text inside the formula
            scanner.pos += 1
            out += "" if char == "$" else " "
        else:
            scanner.pos += 1
            out += char
    return out


def _infix(source: str) -> str:
    """A group divided by one of TeX's infix commands, as `n \\choose k`; nothing for any other."""
    if "\\choose" not in source and "\\over" not in source:
        return ""
    scanner = Scanner(source)
    while not scanner.done:
        start = scanner.pos
        if scanner.peek() == "{":
            scanner.argument()
        elif scanner.peek() != "\\":
            scanner.pos += 1
        elif (name := scanner.command()) in ("choose", "over"):
            above, below = source[:start], source[scanner.pos :]
            if name == "over":
                return f"{_atom(above)}/{_atom(below)}"
            return f"C({math_to_text(above)}, {math_to_text(below)})"
    return ""


def _command(scanner: Scanner, name: str, out: str) -> str:
    """`out` and the command after it."""
    if name == ",":  # a thin space groups the digits of one number
        groups_digits = out[-1:].isdigit() and scanner.peek().isdigit()
        return out if groups_digits else f"{out} "
    if name in ("left", "right") and scanner.take("."):
        return out
    if name in CLOSING:
        return out.rstrip() + WORDS[name]
    if name in WORDS:
        return out + WORDS[name]
    if name in NAMES:
        return out + _spaced(out, name, scanner)
    if name in UNWRAPPED:
        return out + _convert(scanner.argument())
    return out + _structure(scanner, name)


def _structure(scanner: Scanner, name: str) -> str:
    """Commands with a shape of their own."""
    if name in ("frac", "dfrac", "tfrac", "cfrac"):
        return f"{_atom(scanner.argument())}/{_atom(scanner.argument())}"
    if name == "sqrt":
        root = scanner.optional()
        inner = math_to_text(scanner.argument())
        return f"sqrt({inner})" if root is None else f"root({math_to_text(root)}, {inner})"
    if name in ("binom", "dbinom", "tbinom"):
        return f"C({math_to_text(scanner.argument())}, {math_to_text(scanner.argument())})"
    if name in OVER:
        word, accent = OVER[name]
        inner = math_to_text(scanner.argument())
        single = len(inner) == 1 and inner.isalnum()
        return unicodedata.normalize("NFC", inner + accent) if single else f"{word}({inner})"
    if name == "not":
        negated = scanner.argument().removeprefix("\\")
        return NEGATED.get(negated, f" not {math_to_text(negated)} ")
    if name in QUANTITIES:
        return quantity(scanner, name)
    if name in ("ref", "eqref", "autoref", "cref", "Cref"):
        return f"[{scanner.argument()}]"
    if name == "pmod":
        return f" (mod {math_to_text(scanner.argument())})"
    if name in ("underset", "overset", "stackrel"):
        over, base = math_to_text(scanner.argument()), _convert(scanner.argument())
        return base.rstrip() + script("_" if name == "underset" else "^", over) + " "
    if name in ("xrightarrow", "xleftarrow"):
        scanner.optional()
        label = math_to_text(scanner.argument())
        return f" -{label}-> " if name == "xrightarrow" else f" <-{label}- "
    if name in ("kern", "mkern", "hskip", "mskip"):
        scanner.match(_NO_LENGTH)
        return " "
    if name in ("color", "label", "hspace", "vspace", "phantom", "hphantom", "vphantom", "tag"):
        scanner.argument()
        return " " if name in ("hspace", "hphantom", "phantom") else ""
    if name == "textcolor":
        return (scanner.argument(), _convert(scanner.argument()))[1]
    if name in ("textsuperscript", "textsubscript"):
        return script("^" if name == "textsuperscript" else "_", math_to_text(scanner.argument()))
    if name == "begin":
        environment = scanner.argument()
        if environment in ("array", "aligned", "alignedat"):
            scanner.optional()
            if environment != "aligned":
                scanner.argument()
        source = scanner.environment_body(environment)
        if environment == "cases":  # a value, then when it holds
            source = re.sub(r",?\s*(?<!\\)&", ", ", source)
        rows = [row.strip().rstrip(",") for row in _convert(source).split(";")]
        body = "; ".join(row for row in rows if row)
        if environment == "cases":
            return f"{{ {body} }}"
        brackets = _MATRICES.get(environment, "")
        return f"{brackets[:1]}{body}{brackets[1:]}"
    if len(name) == 1 and not name.isalpha():
        return name  # an escaped character
    return f"\\{name} "


def _spaced(out: str, name: str, scanner: Scanner) -> str:
    """A name kept apart from a word before it and after it."""
    before = " " if out[-1:].isalnum() else ""
    after = " " if scanner.peek().isalnum() or scanner.peek() == "\\" else ""
    return f"{before}{name}{after}"


def script(mark: str, inner: str) -> str:
    """A superscript (`^`) or subscript (`_`); several characters are held together."""
    if mark == "^" and inner == "o":  # \circ
        return " degrees"
    if _SHORT.fullmatch(inner):
        return mark + inner
    return f"^({inner})" if mark == "^" else f"_{{{inner}}}"


def _atom(source: str) -> str:
    inner = math_to_text(source)
    return inner if _ATOM.fullmatch(inner) else f"({inner})"
