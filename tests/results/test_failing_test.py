"""The failing test of a verdict: what is said of it, and the place where outputs part."""

import pytest

from hydragen_tree.judge.verdicts import EXCERPT, Verdict
from hydragen_tree.problem.checkers import ExactChecker, FloatChecker, TokensChecker
from hydragen_tree.problem.types import Problem, Test
from hydragen_tree.results.failing_test import WIDE, FailingTest

Any_ = TokensChecker | ExactChecker | FloatChecker


def failing(expected: str, got: str, checker: Any_ | None = None, **more: object) -> FailingTest:
    """As the judge leaves it: a verdict keeps the beginning of an output."""
    tests = (Test(input="1\n", output="1\n"), Test(input="2\n", output=expected))
    problem = Problem(id="p", statement="s", tests=tests, checker=checker or TokensChecker())
    excerpt = got.encode()[:EXCERPT].decode("utf-8", "replace")
    found = FailingTest.of(problem, Verdict("WA", 1, stdout_excerpt=excerpt), changed=False)
    assert found is not None
    return found


def lines(test: FailingTest) -> list[str]:
    return [f"{line.mark}{line.number} {line.text}" for line in test.difference()]


def test_it_says_what_was_asked() -> None:
    test = failing("4\n", "5\n")
    assert (test.index, test.tests, test.kind, test.input) == (1, 2, "stdio", "2\n")
    assert (test.expected, test.got, test.checker) == ("4\n", "5\n", "tokens")
    assert lines(test) == ["-1 4", "+1 5"]
    assert test.to_json()["differs_at"] == 0


def test_the_first_difference_is_shown_with_what_is_before_it() -> None:
    wanted = [str(i) for i in range(100)]
    got = [*wanted[:40], "forty", *wanted[41:90]]
    shown = lines(failing("\n".join(wanted), "\n".join(got)))
    assert shown[:4] == [" 39 38", " 40 39", "-41 40", "+41 forty"]
    assert shown[4] == " 42 41"
    assert len(shown) < 14


@pytest.mark.parametrize(
    ("checker", "expected", "got", "at"),
    [
        (TokensChecker(), "1  2\n3\n", "1 2\n4\n", 1),
        (TokensChecker(case_sensitive=False), "Yes\nNo\n", "YES\nyes\n", 1),
        (ExactChecker(type="exact"), "1  2\n3\n", "1 2\n3\n", 0),
        (FloatChecker(type="float"), "0.5\n1\n", "0.50000001\n2\n", 1),
        (TokensChecker(), "1\n2\n", "1\n", 1),
        (TokensChecker(), "1\n", "1\n2\n", 1),
    ],
)
def test_lines_are_compared_as_the_checker_does(
    checker: Any_, expected: str, got: str, at: int
) -> None:
    assert failing(expected, got, checker).differs_at == at


def test_long_lines_are_cut_around_their_first_difference() -> None:
    wanted = " ".join(map(str, range(500)))
    got = wanted.replace(" 75 ", " x ")
    minus, plus = failing(wanted, got).difference()
    assert "73 74 75 76" in minus.text
    assert "73 74 x 76" in plus.text
    assert minus.text.startswith("...")
    assert max(len(minus.text), len(plus.text)) <= WIDE + 6


def test_an_output_that_is_cut_is_judged_as_far_as_it_goes() -> None:
    numbers = " ".join(map(str, range(1000)))
    beyond = failing(numbers, numbers.replace(" 900 ", " x "))
    assert beyond.got_is_cut
    assert beyond.differs_at is None
    assert beyond.difference() == []
    column = "\n".join(map(str, range(1000)))
    within = failing(column, column.replace("\n50\n", "\nx\n"))
    assert within.differs_at == 50
    assert lines(within)[2:4] == ["-51 50", "+51 x"]


def test_calls_and_code_are_shown_as_they_are() -> None:
    call = Test(call=(1, "a"), expected=[2])
    problem = Problem(id="p", statement="s", entry_point="f", tests=(call,))
    test = FailingTest.of(problem, Verdict("WA", 0), changed=True)
    assert test is not None
    assert (test.kind, test.input, test.expected, test.got) == ("call", "f(1, 'a')", "[2]", None)
    assert test.problem_changed
    code = Problem(id="p", statement="s", tests=(Test(code="assert f() == 1"),))
    test = FailingTest.of(code, Verdict("RE", 0, stderr_excerpt="Traceback"), changed=False)
    assert test is not None
    assert (test.kind, test.input, test.expected) == ("code", "assert f() == 1", None)
    assert test.stderr == "Traceback"
    assert FailingTest.of(code, Verdict("RE", 7), changed=False) is None
