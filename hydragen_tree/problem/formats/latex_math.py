"""Formulas as plain text: `$1 \\le n \\le 10^{5}$` becomes `1 <= n <= 10^5`."""

import re
import unicodedata

from hydragen_tree.problem.formats.latex_scan import Scanner
from hydragen_tree.problem.formats.latex_units import QUANTITIES, quantity

_WORDS = {
    # relations and operators, spaced
    "le": " <= ", "leq": " <= ", "leqslant": " <= ", "ge": " >= ", "geq": " >= ",
    "geqslant": " >= ", "lt": " < ", "gt": " > ", "ne": " != ", "neq": " != ", "ll": " << ",
    "gg": " >> ", "approx": " ~ ", "sim": " ~ ", "equiv": " ≡ ", "times": " x ", "cdot": " * ",
    "ast": " * ", "div": " / ", "pm": " +- ", "oplus": " xor ", "in": " in ", "notin": " not in ",
    "cup": " union ", "cap": " intersect ", "subset": " subset of ", "subseteq": " subset of ",
    "setminus": " \\ ", "land": " and ", "wedge": " and ", "lor": " or ", "vee": " or ",
    "lnot": " not ", "neg": " not ", "to": " -> ", "rightarrow": " -> ", "longrightarrow": " -> ",
    "leftarrow": " <- ", "gets": " <- ", "Rightarrow": " => ", "implies": " => ",
    "Leftrightarrow": " <=> ", "iff": " <=> ", "leftrightarrow": " <-> ", "mapsto": " -> ",
    "mid": " | ", "bmod": " mod ", "mod": " mod ", "forall": "for all ", "exists": "there is ",
    "colon": ": ", "nmid": " does not divide ", "circ": "o", "bigoplus": "xor",
    # symbols
    "ldots": "...", "dots": "...", "cdots": "...", "vdots": "...", "ddots": "...",
    "infty": "infinity", "emptyset": "{}", "varnothing": "{}", "lvert": "|", "rvert": "|",
    "vert": "|", "lVert": "||", "rVert": "||", "Vert": "||", "lfloor": "floor(", "rfloor": ") ",
    "lceil": "ceil(", "rceil": ") ", "langle": "<", "rangle": ">", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]",
    "backslash": "\\", "prime": "'", "ell": "l", "partial": "d", "degree": " degrees",
    "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "textdollar": "$",
    # nothing to see
    "left": "", "right": "", "big": "", "Big": "", "bigg": "", "Bigg": "", "bigl": "", "bigr": "",
    "displaystyle": "", "textstyle": "", "limits": "", "nolimits": "", "nonumber": "", "hline": "",
    "!": "", "/": "", "-": "", "rm": "", "tt": "", "bf": "", "it": "", "cal": "",
    # space
    ":": " ", ";": " ", ">": " ", " ": " ", "\n": " ", "quad": "  ", "qquad": "  ", "\\": "; ",
    "tab": " ", "space": " ", "cr": "; ",
}  # fmt: skip
_CLOSING = ("rvert", "rVert", "rfloor", "rceil", "rangle", "rbrack", "rbrace")
_NAMES = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "max", "min",
    "log", "ln", "lg", "exp", "sin", "cos", "tan", "gcd", "lcm", "deg", "dim", "det", "sup", "inf",
    "lim", "arg", "sum", "prod", "int", "Pr", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
})  # fmt: skip
_UNWRAPPED = frozenset({
    "text", "mathrm", "mathit", "mathbf", "mathtt", "mathsf", "mathbb", "mathcal", "mathfrak",
    "mathscr", "operatorname", "operatorname*", "textbf", "textit", "texttt", "textrm", "textsf",
    "textsc", "emph", "mbox", "hbox", "boldsymbol", "bm", "vec", "underline", "dot",
    "underbrace", "overbrace", "boxed", "mathop", "mathbin", "mathrel", "mathord", "textnormal",
})  # fmt: skip
# A mark over one letter is put there; over more it is a function of them.
_OVER = {
    "overline": ("overline", "\u0304"), "bar": ("overline", "\u0304"), "hat": ("hat", "\u0302"),
    "widehat": ("hat", "\u0302"), "tilde": ("tilde", "\u0303"), "widetilde": ("tilde", "\u0303"),
}  # fmt: skip
_NEGATED = {"=": " != ", "in": " not in ", "equiv": " ≢ ", "<": " >= ", ">": " <= ",
            "subset": " not subset of ", "subseteq": " not subset of "}  # fmt: skip
_ATOM = re.compile(r"\w+(?:\.\d+)?|\([^()]*\)|[\w]+\([^()]*\)")
_SHORT = re.compile(r"-?\d+|\w|\*|\+|'+")


def math_to_text(source: str) -> str:
    """A formula's source, without its dollars, as plain text on one line."""
    text = re.sub(r"\s+", " ", _convert(source)).strip()
    return re.sub(r"\s+([),;])", r"\1", re.sub(r"\(\s+", "(", text))


def _convert(source: str) -> str:
    scanner, out = Scanner(source), ""
    while not scanner.done:
        char = scanner.peek()
        if char == "\\":
            out = _command(scanner, scanner.command(), out)
        elif char == "{":
            out += _convert(scanner.argument())
        elif char in "^_":
            scanner.pos += 1
            out = out.rstrip() + _script(char, _convert(scanner.argument()).strip())
        elif char in "&~$":  # a dollar can only come from text inside the formula
            scanner.pos += 1
            out += "" if char == "$" else " "
        else:
            scanner.pos += 1
            out += char
    return out


def _command(scanner: Scanner, name: str, out: str) -> str:
    """`out` and the command after it."""
    if name == ",":  # a thin space groups the digits of one number
        groups_digits = out[-1:].isdigit() and scanner.peek().isdigit()
        return out if groups_digits else f"{out} "
    if name in ("left", "right") and scanner.take("."):
        return out
    if name in _CLOSING:
        return out.rstrip() + _WORDS[name]
    if name in _WORDS:
        return out + _WORDS[name]
    if name in _NAMES:
        return out + _spaced(out, name, scanner)
    if name in _UNWRAPPED:
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
    if name in _OVER:
        word, accent = _OVER[name]
        inner = math_to_text(scanner.argument())
        single = len(inner) == 1 and inner.isalnum()
        return unicodedata.normalize("NFC", inner + accent) if single else f"{word}({inner})"
    if name == "not":
        negated = scanner.argument().removeprefix("\\")
        return _NEGATED.get(negated, f" not {math_to_text(negated)} ")
    if name in QUANTITIES:
        return quantity(scanner, name)
    if name in ("ref", "eqref", "autoref", "cref", "Cref"):
        return f"[{scanner.argument()}]"
    if name == "pmod":
        return f" (mod {math_to_text(scanner.argument())})"
    if name in ("color", "label", "hspace", "vspace", "phantom"):
        scanner.argument()
        return ""
    if name == "begin":
        environment = scanner.argument()
        if environment in ("array", "aligned", "alignedat"):
            scanner.optional()
            if environment != "aligned":
                scanner.argument()
        opening = "{ " if environment == "cases" else ""
        source = scanner.environment_body(environment)
        if environment == "cases":  # a value, then when it holds
            source = re.sub(r"(?<!\\)&", ", ", source)
        body = _convert(source).strip()
        return opening + body.removesuffix(";").strip() + (" }" if opening else "")
    if len(name) == 1 and not name.isalpha():
        return name  # an escaped character
    return f"\\{name} "


def _spaced(out: str, name: str, scanner: Scanner) -> str:
    """A name kept apart from a word before it and after it."""
    before = " " if out[-1:].isalnum() else ""
    after = " " if scanner.peek().isalnum() or scanner.peek() == "\\" else ""
    return f"{before}{name}{after}"


def _script(mark: str, inner: str) -> str:
    """A super- or subscript; several characters are held together."""
    if mark == "^" and inner == "o":  # \circ
        return " degrees"
    if _SHORT.fullmatch(inner):
        return mark + inner
    return f"^({inner})" if mark == "^" else f"_{{{inner}}}"


def _atom(source: str) -> str:
    inner = math_to_text(source)
    return inner if _ATOM.fullmatch(inner) else f"({inner})"
