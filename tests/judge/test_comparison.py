"""Checkers: token, exact and float comparison; checker programs of every protocol, run for real."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.judge.comparison import compare_text, equal_values
from hydragen_tree.problem.checkers import ExactChecker, FloatChecker, TokensChecker

TOKENS = TokensChecker()
ANY_CASE = TokensChecker(case_sensitive=False)
SPACED = TokensChecker(space_sensitive=True)
EXACT = ExactChecker(type="exact")
FLOAT = FloatChecker(type="float", abs_tol=1e-6, rel_tol=1e-6)
ABSOLUTE = FloatChecker(type="float", abs_tol=0.1, rel_tol=0)
RELATIVE = FloatChecker(type="float", abs_tol=0, rel_tol=0.1)


@pytest.mark.parametrize(
    ("checker", "output", "answer", "right"),
    [
        (TOKENS, "1 2\n", "1  2", True),
        (TOKENS, "\t1\r\n2", "1 2\n", True),
        (TOKENS, "", "", True),
        (TOKENS, "", "1", False),
        (TOKENS, "1 2 3", "1 2", False),
        (TOKENS, "1", "1 2", False),
        (TOKENS, "12", "1 2", False),
        (TOKENS, "2 1", "1 2", False),  # order counts: no comparison of sets
        (TOKENS, "1 1", "1", False),
        (TOKENS, "1.0", "1", False),
        (TOKENS, "yes", "YES", False),
        (ANY_CASE, "yes", "YES", True),
        (ANY_CASE, "no", "YES", False),
        (SPACED, "1 2\n", "1 2\n", True),
        (SPACED, "1  2\n", "1 2\n", False),
        (SPACED, "1 2", "1 2\n", False),
        (EXACT, "a b\n", "a b\n", True),
        (EXACT, "a b", "a b\n", False),
        (EXACT, "a  b\n", "a b\n", False),
        (FLOAT, "0.3333333", "0.333333333333", True),
        (FLOAT, "0.33", "0.333333333333", False),
        (FLOAT, "1e3", "1000", True),
        (FLOAT, "1000000.5", "1000000", True),
        (FLOAT, "nan", "1", False),
        (FLOAT, "1", "nan", False),
        (FLOAT, "nan", "NaN", True),
        (FLOAT, "inf", "1e308", False),
        (FLOAT, "inf", "inf", True),
        (FLOAT, "-inf", "inf", False),
        (FLOAT, "1_000", "1000", False),  # what Python's float() would take
        (FLOAT, "0x10", "16", False),
        (FLOAT, "text", "text", True),
        (FLOAT, "text", "Text", False),
        (FLOAT, ".5 5.", "0.5 5.0", True),
        (FLOAT, "1", "1 2", False),
        (ABSOLUTE, "1000.2", "1000", False),
        (ABSOLUTE, "0.05", "0", True),
        (RELATIVE, "1050", "1000", True),
        (RELATIVE, "0.05", "0", False),
    ],
)
def test_text(checker: TokensChecker, output: str, answer: str, right: bool) -> None:
    message = compare_text(checker, output.encode(), answer.encode())
    assert (message is None) == right, message
    assert message is None or message


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_can_be_compared(output: bytes, answer: bytes) -> None:
    for checker in (TOKENS, ANY_CASE, SPACED, EXACT, FLOAT):
        assert compare_text(checker, answer, answer) is None
        first, second = compare_text(checker, output, answer), compare_text(checker, answer, output)
        assert (first is None) == (second is None) or checker is FLOAT


@pytest.mark.parametrize(
    ("value", "expected", "right"),
    [
        ([1, 2], (1, 2), True),
        ([[1], [2]], ((1,), [2]), True),
        ([1, 2], [2, 1], False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": 1}, {"b": 1}, False),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (10**400, 0.5, False),
        (float("nan"), float("nan"), True),
        (1, True, True),
        ("1", 1, False),
        (None, None, True),
        (None, 0, False),
        ({1, 2}, {2, 1}, True),
    ],
)
def test_values(value: object, expected: object, right: bool) -> None:
    assert equal_values(value, expected) == right
