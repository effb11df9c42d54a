"""Programs with one normal form are one program to Python, so that one verdict serves them all."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hydragen_tree.judge import Judge
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.passk.summary import Tally
from hydragen_tree.problem.types import Problem, Test

SPACES = [chr(c) for c in range(sys.maxunicode + 1) if chr(c).isspace()]
PROGRAM = "x = int(input())\nprint(x)"
ECHO = Problem(id="p", statement="s", tests=(Test(input="6\n", output="6\n"),))
PIECES = [
    "x = 1", "print(x)", "'''a", "'''", '"""', "\\", "# note", "if x:", "    x", "(", ")", "f'{x =",
    "}'", "rf'''{x", "'a'", "\n", "\r\n", "\r", *SPACES,
]  # fmt: skip


def what_python_sees(code: str) -> object:
    """The compiled program without line numbers, or that there is none."""
    try:
        return parts_of(compile(code.encode(), "solution.py", "exec"))
    except (SyntaxError, ValueError):
        return None


def parts_of(code: CodeType) -> tuple[object, ...]:
    constants = [parts_of(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("print(1)\\\n\n")
@example("print(1)\\\r\n")
@example("print(1)\\\r ")
@example("x = '''\r\r\n'''\n")
@example("x = 1\nprint(f'{x =\t\n}')")
@example("x = '''\n \n'''\n")
@example("print(1)\N{NO-BREAK SPACE}")
def test_what_is_left_out_is_nothing_to_python(code: str) -> None:
    assert what_python_sees(normal_form(code)) == what_python_sees(code)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{ord(space):x}")
def test_every_white_space_behind_a_program(space: str) -> None:
    ignored = space in " \t\f\r\n"
    assert what_python_sees(PROGRAM + space) == (what_python_sees(PROGRAM) if ignored else None)
    same = normal_form(PROGRAM + space) == normal_form(PROGRAM)
    assert not same or ignored
    assert normal_form(PROGRAM + " \t\f\n\r\n") == normal_form(PROGRAM)


@pytest.mark.parametrize("first_is_right", [True, False])
def test_no_verdict_comes_from_another_program(tmp_path: Path, first_is_right: bool) -> None:
    """In a stream, in either order, and from the disk of an earlier run."""
    wrong = [PROGRAM + "\N{NO-BREAK SPACE}", "x = int(input())\v\nprint(x)", PROGRAM + "\x1c"]
    right = [PROGRAM, PROGRAM + " \n", PROGRAM.replace("\n", "\r\n")]
    codes = right + wrong if first_is_right else wrong + right

    def items() -> Iterator[tuple[Problem, str, str]]:
        yield from ((ECHO, code, code) for code in codes)

    for _ in range(2):
        with Judge(workers=1, cache_dir=tmp_path) as judge:
            verdicts = dict(judge.judge_stream(items()))
        assert [verdicts[code].status for code in right] == ["AC"] * 3
        assert [verdicts[code].status for code in wrong] == ["CE"] * 3
    assert all(verdict.cached for verdict in verdicts.values())


def test_other_languages_are_left_alone() -> None:
    assert normal_form("int x; \r\n", "c++") == "int x; \r\n"


def test_distinct_programs_are_counted_by_the_same_form() -> None:
    tally = Tally()
    for index, code in enumerate([PROGRAM, PROGRAM + "\n", PROGRAM + "\N{NO-BREAK SPACE}"]):
        verdict = "CE" if index == 2 else "AC"
        tally.add({"task_id": "p", "sample_index": index, "verdict": verdict, "solution": code})
    [problem] = tally.summary().problems
    assert problem.distinct_programs == 2
