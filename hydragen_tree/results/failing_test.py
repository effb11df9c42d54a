"""The test that decided against a program: what went in, what should have come out, what did.

A verdict keeps the beginning of an output, which is enough to see the first difference of nearly
all; where it is not, that is said.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from hydragen_tree.judge.comparison import compare_text
from hydragen_tree.judge.verdicts import EXCERPT, Verdict
from hydragen_tree.problem.checkers import Checker, ProgramChecker, TokensChecker
from hydragen_tree.problem.types import Problem

BEFORE, AFTER = 2, 8  # lines of a difference that are shown before and from where it begins
WIDE = 160  # characters of a line that are shown
_LEAD = 40  # of them before the first that differs

Mark = Literal[" ", "-", "+"]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a difference.

    Args:
        mark: `-` expected and not there, `+` there and not expected, a blank for both.
        number: its line, from 1, of the expected output, or of the program's for `+`.
        text: the line, cut if it is long.
    """

    mark: Mark
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class FailingTest:
    """The test that decided against a program.

    Args:
        index: in the problem's order, from 0.
        tests: how many the problem has.
        kind: `stdio`: a run on an input; `call`: a call of a function; `code`: test code.
        input: what was given: the input, the call, or the test's code.
        expected: the answer, as text; None for test code.
        got: what the program wrote; None for a call, whose result stands in the message.
        got_is_cut: the verdict kept the beginning only.
        stderr: the end of what it wrote to standard error.
        checker: what decides: tokens, exact, float or program; where it is a program, other outputs
            than the expected one may be right.
        differs_at: the first line, from 0, in which the outputs differ; None where that cannot be
            said: it lies beyond what is kept, or outputs are not compared.
        problem_changed: the problem is not as it was when the samples were drawn.
    """

    index: int
    tests: int
    kind: Literal["stdio", "call", "code"]
    input: str
    expected: str | None
    got: str | None
    got_is_cut: bool
    stderr: str
    checker: str
    differs_at: int | None
    problem_changed: bool

    @classmethod
    def of(cls, problem: Problem, verdict: Verdict, *, changed: bool) -> "FailingTest | None":
        """The test that a verdict names.

        Args:
            problem: the sample's.
            verdict: of a program that failed a test.
            changed: the problem is not as it was when the samples were drawn.

        Returns:
            None where the problem has no such test any more.
        """
        index = verdict.failed_test
        if index is None or index >= len(problem.tests):
            return None
        test = problem.tests[index]
        kind: Literal["stdio", "call", "code"] = "stdio"
        given, expected, got = test.input, test.output, verdict.stdout_excerpt
        is_cut = len(got.encode("utf-8", "replace")) >= EXCERPT
        if test.code is not None:
            kind, given = "code", test.code
        elif test.call is not None:
            kind = "call"
            given = f"{problem.entry_point}({', '.join(map(repr, test.call))})"
            expected = repr(test.expected)
        is_run = kind == "stdio"
        return cls(
            index=index,
            tests=len(problem.tests),
            kind=kind,
            input=given,
            expected=None if kind == "code" else expected,
            got=got if is_run else None,
            got_is_cut=is_run and is_cut,
            stderr=verdict.stderr_excerpt,
            checker=problem.checker.type,
            differs_at=_first_difference(problem.checker, expected, got, is_cut)
            if is_run
            else None,
            problem_changed=changed,
        )

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON types."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields

    def difference(self) -> list[DiffLine]:
        """The outputs around the first line in which they differ; empty where none is kept."""
        if self.expected is None or self.got is None or self.differs_at is None:
            return []
        wanted, got = self.expected.splitlines(), self.got.splitlines()
        if self.got_is_cut:
            got[-1] += "..."
            if self.differs_at < len(got) - 1:
                del got[-1]  # how it goes on is not known
        first, end = max(0, self.differs_at - BEFORE), self.differs_at + AFTER
        return _diff(wanted[first:end], got[first:end], first)


def _first_difference(checker: Checker, expected: str, got: str, is_cut: bool) -> int | None:
    """The first line in which outputs differ, as their checker compares."""
    if isinstance(checker, ProgramChecker):
        checker = TokensChecker()
    wanted, written = expected.splitlines(), got.splitlines()
    for index, (a, b) in enumerate(zip(wanted, written, strict=False)):
        if is_cut and index == len(written) - 1:
            b = b[: b.rfind(" ") + 1]  # without what was cut in the middle
            a = a[: len(b)] if checker.type == "exact" else " ".join(a.split()[: len(b.split())])
        if compare_text(checker, b.encode(), a.encode()) is not None:
            return index
    common = min(len(wanted), len(written))
    return None if is_cut and common == len(written) else common


def _diff(wanted: Sequence[str], got: Sequence[str], first: int) -> list[DiffLine]:
    lines: list[DiffLine] = []
    matcher = SequenceMatcher(None, wanted, got, autojunk=False)
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        if tag == "equal":
            lines += [DiffLine(" ", first + i + 1, cut(wanted[i])) for i in range(a, a_end)]
            continue
        starts = [
            _start(wanted[a + i], got[b + i]) if a + i < a_end and b + i < b_end else 0
            for i in range(max(a_end - a, b_end - b))
        ]  # a line and the one that takes its place are cut alike
        lines += [
            DiffLine("-", first + i + 1, cut(wanted[i], starts[i - a])) for i in range(a, a_end)
        ]
        lines += [DiffLine("+", first + i + 1, cut(got[i], starts[i - b])) for i in range(b, b_end)]
    return lines


def _start(one: str, other: str) -> int:
    """Where two lines are to be cut, so that their first difference shows."""
    pairs = zip(one, other, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return 0 if at < WIDE - _LEAD else at - _LEAD


def cut(line: str, start: int = 0) -> str:
    """A line of at most `WIDE` characters, from a place in it, with dots where something is left
    out."""
    before, after = "..." if start else "", "..." if len(line) > start + WIDE else ""
    return before + line[start : start + WIDE] + after
