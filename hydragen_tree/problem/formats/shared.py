"""What the readers of several formats share."""

import ast
import json
import re
import warnings
from collections.abc import Iterable
from typing import Any

MEMORY_MIB = 1024  # where a data set states no limit
_PYTHON2 = re.compile(r"^#!.*python2")
_PYTHON2_NAMES = {"raw_input", "xrange", "unicode", "unichr", "long", "basestring", "reduce",
                  "execfile", "cmp", "izip"}  # fmt: skip
_PYTHON2_ATTRIBUTES = {"iteritems", "iterkeys", "itervalues", "has_key", "maxint", "izip", "imap"}
_PYTHON2_MODULES = {"Queue", "StringIO", "cStringIO", "cPickle", "urllib2", "sets", "__builtin__"}
_DECIMAL = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")


def slug(name: str) -> str:
    """A name as a problem's id: lower case, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "problem"


def text_checker(tests: list[dict[str, str]], tolerance: float) -> dict[str, Any]:
    """Tokens in any case; with a tolerance where an expected output has decimal fractions."""
    decimal = any(_DECIMAL.fullmatch(word) for test in tests for word in test["output"].split())
    if decimal:
        return {"type": "float", "abs_tol": tolerance, "rel_tol": tolerance}
    return {"type": "tokens", "case_sensitive": False}


def first_python3(programs: Iterable[Any]) -> str | None:
    """The first program that is Python 3, if any."""
    for program in programs:
        if isinstance(program, str) and program.strip() and not why_not_python3(program):
            return program.replace("\r\n", "\n").rstrip() + "\n"
    return None


def with_starter(statement: str, starter: str | None) -> str:
    """A statement that ends with the code that programs must begin with, if any."""
    text = statement.replace("\r\n", "\n").strip()
    if starter and starter.strip():
        lines = "\n".join(f"    {line}".rstrip() for line in starter.strip().splitlines())
        text += f"\n\nThe program must begin like this:\n\n{lines}"
    return f"{text}\n"


def json_or_value(value: Any) -> Any:
    """JSON in a string, decoded; anything else as it is, and None for what is empty."""
    return json.loads(value) if isinstance(value, str) and value.strip() else value or None


def why_not_python3(code: str) -> str | None:
    """Why a program is no Python 3; None if it is. Old sets hold Python 2 under the same name."""
    if _PYTHON2.match(code):
        return "Python 2"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return "Python 2, or not Python at all"
    sign = _sign_of_python2(tree)
    return None if sign is None else f"Python 2 ({sign})"


def _sign_of_python2(tree: ast.Module) -> str | None:
    """What a program uses that only Python 2 has, though it parses as Python 3; None for nothing.

    A program that catches the lack of it, or makes its own, runs under both.
    """
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.Try) for node in nodes):
        return None
    own = {node.id for node in nodes if isinstance(node, ast.Name) and _binds(node)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return None  # anything may come with it
        if isinstance(node, ast.Import | ast.ImportFrom):
            own |= {alias.asname or alias.name for alias in node.names}
    return next((sign for node in nodes if (sign := _python2_only(node, own))), None)


def _binds(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _python2_only(node: ast.AST, own: set[str]) -> str | None:
    if isinstance(node, ast.Name) and node.id in _PYTHON2_NAMES - own:
        return node.id
    if isinstance(node, ast.Attribute) and node.attr in _PYTHON2_ATTRIBUTES - own:
        return node.attr
    if isinstance(node, ast.Import):
        return next((a.name for a in node.names if a.name in _PYTHON2_MODULES), None)
    if isinstance(node, ast.ImportFrom) and node.module in _PYTHON2_MODULES:
        return node.module
    if isinstance(node, ast.Expr):
        tuple_ = isinstance(node.value, ast.Tuple) and node.value.elts  # `print >>file, text`
        value = tuple_[0] if tuple_ else node.value
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.RShift):
            value = value.left
        if isinstance(value, ast.Name) and value.id == "print":
            return "print"
    return None
