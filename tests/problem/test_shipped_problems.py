"""The shipped problems keep their promises: their form, and the verdicts of their programs."""

import functools
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.problem.reading import load_problem, load_problems
from hydragen_tree.problem.types import Problem

ROOM = Path(__file__).parents[2] / "problems"
FILES = sorted(ROOM.glob("*.yaml"))
CHECKERS = sorted(ROOM.glob("*_checker.py"))
Check = Callable[[str, str, str], tuple[bool, str]]

load = functools.cache(load_problem)
each_problem = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load_check(path: Path) -> Check:
    """The `check` function of a checker file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check  # type: ignore[no-any-return]


def test_the_set_is_whole() -> None:
    problems = load_problems([str(ROOM)])
    assert len(problems) >= 24
    assert len({problem.id for problem in problems}) == len(problems)
    assert {problem.difficulty for problem in problems} == {"easy", "medium", "hard"}


def test_the_readme_lists_every_problem() -> None:
    rows = re.findall(r"^\| \[([a-z0-9-]+)\]\((.+?)\) \| (\w+) \|", readme(), re.MULTILINE)
    assert sorted(rows) == sorted(
        (path.stem, path.name, load(path).difficulty or "") for path in FILES
    )


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=1, cache=False) as judge:  # the tests are what runs side by side
        yield judge


@each_problem
def test_its_programs_get_the_verdicts_they_are_known_for(judge: Judge, path: Path) -> None:
    """What `hydragen check` does, a test a problem, so that several can run at a time."""
    [self_check] = check_problems(judge, [load(path)])
    assert self_check.good, self_check.faults()
    assert not self_check.skipped
    assert self_check.slowest_s is not None
    # A machine may be three times as slow as a busy one here and still accept the reference.
    assert self_check.slowest_s < load(path).limits.time_s / 3


def readme() -> str:
    return (ROOM / "README.md").read_text(encoding="utf-8")


@each_problem
def test_file_is_small_and_named_after_its_problem(path: Path) -> None:
    assert load(path).id == path.stem
    assert path.stat().st_size < 150_000


@each_problem
def test_samples_come_first_and_secret_tests_follow(path: Path) -> None:
    tests = load(path).tests
    shown = [test.sample for test in tests]
    assert shown == sorted(shown, reverse=True)
    assert 1 <= shown.count(True) <= 3
    assert shown.count(False) >= 8
    assert len({test.input for test in tests}) == len(tests)
    assert all(test.input.endswith("\n") and test.output.endswith("\n") for test in tests)


@each_problem
def test_programs_are_there_and_compile(path: Path) -> None:
    problem = load(path)
    assert problem.solution is not None
    compile(problem.solution, f"{path.name}: solution", "exec")
    for submission in problem.submissions:
        compile(submission.code, f"{path.name}: {submission.verdict}", "exec")
    verdicts = [submission.verdict for submission in problem.submissions]
    assert verdicts.count("WA") + verdicts.count("RE") >= 2
    assert verdicts.count("TLE") >= 1
    programs = [problem.solution, *(submission.code for submission in problem.submissions)]
    assert len(set(programs)) == len(programs)


@each_problem
def test_few_shot_examples_are_from_the_shared_pool(path: Path) -> None:
    few_shot = load(path).few_shot
    first = load(FILES[0]).few_shot
    assert few_shot is not None
    assert first is not None
    assert few_shot.pool == first.pool
    assert few_shot.shots == 2
    assert few_shot.variants == 4


@each_problem
def test_checker_accepts_the_reference_answers(path: Path) -> None:
    problem = load(path)
    if problem.checker.type != "program":
        return
    check = load_check(path.parent / problem.checker.source)
    for test in problem.tests:
        assert check(test.input, test.output, test.output)[0]


def test_every_checker_belongs_to_a_problem() -> None:
    used = {checker_source(load(path)) for path in FILES}
    assert {path.name for path in CHECKERS} == used - {None}


def checker_source(problem: Problem) -> str | None:
    return problem.checker.source if problem.checker.type == "program" else None


OTHER_RIGHT_ANSWERS = [
    ("zigzag-lanterns", "3\n7 9 8\n", "7 9 8\n", "8 7 9\n"),
    ("zigzag-lanterns", "1\n5\n", "5\n", "5"),
    ("bracket-ribbon", "[(])\n", "[([])]\n", "[()]()\n"),
    ("bracket-ribbon", "[(])\n", "[([])]\n", "[([])]\n"),
    ("one-way-streets", "3 3\n1 2\n2 3\n1 3\n", "1 2\n2 3\n3 1\n", "2 1\n3 2\n1 3\n"),
    ("one-way-streets", "3 1\n1 3\n", "1 3\n", "\n3   1\n\n"),
]
WRONG_ANSWERS = [
    ("zigzag-lanterns", "5\n1 2 3 4 5\n", "1 2 3 4 5\n", "taller than one neighbour"),
    ("zigzag-lanterns", "5\n1 2 3 4 5\n", "1 5 2 5 3\n", "not those given"),
    ("zigzag-lanterns", "5\n1 2 3 4 5\n", "1 5 2 4\n", "found 4"),
    ("zigzag-lanterns", "3\n7 9 8\n", "x y z\n", "not those given"),
    ("zigzag-lanterns", "3\n7 9 8\n", "", "found 0"),
    ("bracket-ribbon", "([)\n", "([)]\n", "not in order"),
    ("bracket-ribbon", "([)\n", "()[]()\n", "6 signs where 4"),
    ("bracket-ribbon", "([)\n", "()\n", "gone"),
    ("bracket-ribbon", "([)\n", "{[]}\n", "other signs"),
    ("bracket-ribbon", "([)\n", "", "gone"),
    ("one-way-streets", "3 3\n1 2\n2 3\n1 3\n", "1 2\n2 3\n", "found 2"),
    ("one-way-streets", "3 3\n1 2\n2 3\n1 3\n", "1 2\n2 3\n1 3\n", "differ by 2"),
    ("one-way-streets", "3 3\n1 2\n2 3\n1 3\n", "1 2\n3 1\n2 3\n", "street 2 joins 2 and 3"),
    ("one-way-streets", "3 3\n1 2\n2 3\n1 3\n", "1\n2\nx y z\n", "street 1 joins"),
]
ANSWERS = {"bracket-ribbon": "([])\n"}


@pytest.mark.parametrize(("name", "given", "answer", "output"), OTHER_RIGHT_ANSWERS)
def test_checker_accepts_other_right_answers(
    name: str, given: str, answer: str, output: str
) -> None:
    check = load_check(ROOM / f"{name.replace('-', '_')}_checker.py")
    assert check(given, answer, output)[0]


@pytest.mark.parametrize(("name", "given", "output", "reason"), WRONG_ANSWERS)
def test_checker_rejects_wrong_answers(name: str, given: str, output: str, reason: str) -> None:
    check = load_check(ROOM / f"{name.replace('-', '_')}_checker.py")
    accepted, message = check(given, ANSWERS.get(name, ""), output)
    assert not accepted
    assert reason in message
