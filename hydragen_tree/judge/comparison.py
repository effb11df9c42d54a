"""The checkers that are no programs: tokens, exact, float, and values that functions return."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from hydragen_tree.problem.checkers import ExactChecker, FloatChecker, TokensChecker

_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|infinity|nan)", re.I)
_SPACE = re.compile(rb"(\s+)")
_SHOWN = 40  # characters of a token in a message
_VALUE_TOLERANCE = 1e-9

Same = Callable[[bytes, bytes], bool]


def compare_text(
    checker: TokensChecker | ExactChecker | FloatChecker, output: bytes, answer: bytes
) -> str | None:
    """Compare an output with the expected answer.

    Returns:
        Why it is wrong; None if it is right.
    """
    if isinstance(checker, ExactChecker):
        return None if output == answer else _first_difference(output, answer)
    same = _same_token(checker)
    if checker.space_sensitive:
        return _compare(_SPACE.split(output), _SPACE.split(answer), same)
    return _compare(output.split(), answer.split(), same)


def equal_values(value: Any, expected: Any) -> bool:
    """Compare what a function returned with what it should return.

    Lists and tuples are alike, as JSON knows no tuples; floating-point numbers may differ in the
    last digits.
    """
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(equal_values, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(
            equal_values(value[key], expected[key]) for key in expected
        )
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers and (isinstance(value, float) or isinstance(expected, float)):
        try:
            close = math.isclose(value, expected, rel_tol=_VALUE_TOLERANCE, abs_tol=1e-12)
        except OverflowError:  # an integer beyond all floats
            return bool(value == expected)
        return close or (value != value and expected != expected)
    return bool(value == expected)


def _same_token(checker: TokensChecker | FloatChecker) -> Same:
    def same_word(got: bytes, wanted: bytes) -> bool:
        return got == wanted or (not checker.case_sensitive and got.lower() == wanted.lower())

    if isinstance(checker, TokensChecker):
        return same_word
    abs_tol, rel_tol = checker.abs_tol, checker.rel_tol

    def same_number(got: bytes, wanted: bytes) -> bool:
        if same_word(got, wanted):
            return True
        if not (_NUMBER.fullmatch(wanted) and _NUMBER.fullmatch(got)):
            return False
        a, b = float(got), float(wanted)
        if math.isfinite(a) and math.isfinite(b):
            difference = abs(a - b)
            return difference <= abs_tol or difference <= rel_tol * abs(b)
        return a == b or (a != a and b != b)

    return same_number


def _compare(got: Sequence[bytes], wanted: Sequence[bytes], same: Same) -> str | None:
    for index, (a, b) in enumerate(zip(got, wanted, strict=False)):
        if not same(a, b):
            return f"token {index + 1}: expected {_show(b)}, got {_show(a)}"
    if len(got) < len(wanted):
        return f"expected {len(wanted)} tokens, got {len(got)}"
    if len(got) > len(wanted):
        return f"expected {len(wanted)} tokens, got {len(got)}: {_show(got[len(wanted)])} is extra"
    return None


def _first_difference(output: bytes, answer: bytes) -> str:
    pairs = enumerate(zip(output, answer, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(output), len(answer)))
    line = answer[:at].count(b"\n") + 1
    return f"byte {at + 1}, line {line}: expected {_show(answer[at:])}, got {_show(output[at:])}"


def _show(data: bytes) -> str:
    text = data[:_SHOWN].decode("utf-8", "replace")
    return f"{text!r}..." if len(data) > _SHOWN else repr(text)
