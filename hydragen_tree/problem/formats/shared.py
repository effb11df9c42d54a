"""What the readers of several formats share."""

import ast
import json
import re
import warnings
from collections.abc import Iterable
from typing import Any

MEMORY_MIB = 1024  # where a data set states no limit
_PYTHON2 = re.compile(r"^#!.*python2")
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
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return "Python 2, or not Python at all"
    return None
