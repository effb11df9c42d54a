"""Imported problems in front of the real judge: each format's tests tell right from wrong there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.judge import self_check as self_check_module
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.problem.formats.datasets import apps_problem
from hydragen_tree.problem.importing import Imported, read_source, write_problem
from hydragen_tree.problem.reading import load_problem, problem_from_document
from hydragen_tree.problem.types import Problem
from tests.forked import output_of, run_command

FUNCTION = {
    "prompt": 'def double(n):\n    """ Twice n. """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
}
RECORDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "human-eval": (
        {
            "task_id": "HumanEval/0",
            **FUNCTION,
            "test": "def check(candidate):\n    assert candidate(3) == 6\n",
        },
        "def double(n): return n + n",
        "def double(n): return n * n",
    ),
    "evalplus": (
        {"task_id": "HumanEval/0", **FUNCTION, "base_input": [[2]], "plus_input": [[10**20]]},
        "def double(n): return n + n",
        "def double(n): return int(n * 2.0) + (n > 9)",
    ),
    "evalplus-tuples-and-sets": (
        {
            "task_id": "Mbpp/115",
            "prompt": "",
            "entry_point": "f",
            "canonical_solution": "def f(x): return tuple(sorted(len(s) for s in x))",
            "base_input": [[[[1, 1], []]]],
            "plus_input": [],
        },
        "def f(x): return tuple(sorted(map(len, x)))",
        "def f(x): return sorted(map(len, x))",
    ),
    "evalplus-complex": (
        {
            "task_id": "Mbpp/252",
            "prompt": "",
            "entry_point": "f",
            "canonical_solution": "def f(z): return (abs(z), 0.0)",
            "base_input": [["(3+4j)"]],
            "plus_input": [],
        },
        "def f(z): return ((z.real**2 + z.imag**2) ** 0.5, 0.0)",
        "def f(z): return (z.real, 0.0)",
    ),
    "mbpp": (
        {
            "task_id": 1,
            "text": "Reverse.",
            "code": "",
            "test_list": ["assert rev([1, 2]) == [2, 1]"],
        },
        "def rev(x): return x[::-1]",
        "def rev(x): return x",
    ),
    "apps": (
        {
            "problem_id": 1,
            "question": "Halve.",
            "input_output": {"inputs": ["3"], "outputs": ["1.5"]},
        },
        "print(int(input()) / 2 + 1e-9)",
        "print(int(input()) // 2)",
    ),
    "apps-function": (
        {
            "problem_id": 2,
            "question": "Count.",
            "input_output": {"fn_name": "count", "inputs": [[{"1": 2}]], "outputs": [[[1, 2]]]},
        },
        "class Solution:\n    def count(self, d): return next(iter(d.items()))",
        "def count(d): return [str(next(iter(d))), 2]",
    ),
    "code-contests": (
        {
            "name": "1_A. Case",
            "description": "Say yes.",
            "public_tests": [{"input": "", "output": "YES\n"}],
        },
        "print('Yes')",
        "print('Yes yes')",
    ),
    "livecodebench": (
        {
            "question_id": "9",
            "question_content": "Add.",
            "public_test_cases": json.dumps(
                [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
            ),
            "private_test_cases": "[]",
            "metadata": '{"func_name": "total"}',
        },
        "class Solution:\n    def total(self, xs: List[int], k: int): return sum(xs) + k",
        "class Solution:\n    def total(self, xs, k): return str(sum(xs) + k)",
    ),
}
PACKAGE = {
    "problem.yaml": "name: Prime\nvalidation: custom\nvalidator_flags: base\n",
    "problem_statement/problem.en.tex": "Print any prime below n.\n",
    "data/secret/1.in": "10\n",
    "data/secret/1.ans": "2\n",
    "data/secret/2/testdata.yaml": "output_validator_flags: odd\n",
    "data/secret/2/2.in": "10\n",
    "data/secret/2/2.ans": "3\n",
    "output_validators/check/check.py": (
        "import sys\n"
        "got = int(sys.stdin.read())\n"
        "good = got in (2, 3, 5, 7) and sys.argv[4] == 'base'\n"
        "good = good and ('odd' not in sys.argv or got % 2)\n"
        "sys.exit(42 if good else 43)\n"
    ),
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(cache=False, workers=1) as judge:
        yield judge


def imported(source: Path, directory: Path) -> Problem:
    [found] = read_source(source)
    assert isinstance(found, Imported), found
    return load_problem(write_problem(found, directory))


@pytest.mark.parametrize("name", RECORDS)
def test_right_and_wrong_programs(judge: Judge, tmp_path: Path, name: str) -> None:
    record, right, wrong = RECORDS[name]
    source = tmp_path / "set.json"
    source.write_text(json.dumps(record), encoding="utf-8")
    problem = imported(source, tmp_path / "out")
    verdict = judge.judge(problem, right)
    assert verdict.status == "AC", verdict
    assert judge.judge(problem, wrong).status == "WA"
    if problem.solution:
        assert judge.judge(problem, problem.solution).status == "AC"


def test_a_package_with_a_validator_and_flags_by_group(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "prime"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for problem in (load_problem(folder), imported(folder, tmp_path / "out")):
        assert judge.judge(problem, "print(7)").status == "AC"
        refused = judge.judge(problem, "print(2)")
        assert (refused.status, refused.failed_test) == ("WA", 1)
        assert judge.judge(problem, "print(4)").status == "WA"


DOUBLE = {
    "problem.yaml": "name: Double\n",
    ".timelimit": "1\n",
    "problem_statement/problem.en.md": "Double it.\n",
    "data/secret/1.in": "4\n",
    "data/secret/1.ans": "8\n",
    "submissions/accepted/a.cc": "#include <iostream>\nint main() { int n; std::cin >> n; "
    "std::cout << 2 * n; }\n",
    "submissions/wrong_answer/a.cc": "int main() {}\n",
    "submissions/wrong_answer/b.py": "print(7)\n",
}


def package_of(home: Path, files: dict[str, str]) -> Problem:
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return load_problem(home)


def test_submissions_are_checked_in_their_own_language(judge: Judge, tmp_path: Path) -> None:
    [self_check] = check_problems(judge, [package_of(tmp_path, DOUBLE)], calibrate=True)
    assert self_check.good
    if shutil.which("g++"):
        assert [trial.language for trial in self_check.trials] == ["c++", "c++", "python"]
        assert not self_check.skipped
    assert self_check.faults() == [
        "no accepted program in Python: its time limit cannot be calibrated"
    ]


def test_without_a_compiler_submissions_are_skipped_by_name(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydragen_tree.judge.languages.shutil.which", lambda name: None)
    [self_check] = check_problems(judge, [package_of(tmp_path, DOUBLE)])
    assert not self_check.good
    assert [trial.name for trial in self_check.trials] == ["submissions/wrong_answer/b.py (WA)"]
    assert " (AC): language 'c++': its compiler g++" in self_check.skipped[0]
    assert "neither a solution nor an accepted submission that runs here" in self_check.faults()[0]


def test_a_problem_that_python_is_too_slow_for_is_reported(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check_module, "_LEAST_PATIENCE_S", 0.2)
    monkeypatch.setattr(self_check_module, "_PATIENCE", 2.0)
    problem = package_of(
        tmp_path, {**DOUBLE, ".timelimit": "0.1", "submissions/accepted/b.py": "while True: pass"}
    )
    [self_check] = check_problems(judge, [problem], calibrate=True)
    assert not self_check.good
    assert "no Python program is accepted even within 0.2 s" in self_check.faults()


def test_calibrated_limits_are_written_into_native_files_only(tmp_path: Path) -> None:
    package_of(tmp_path / "package", {**DOUBLE, "submissions/accepted/b.py": "print(8)"})
    output_of(tmp_path, "import", "package", "-o", "native")
    given = ["check", "package", "--calibrate", "--write"]
    ran = run_command("run", *given, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "not a problem file of ours, so its limit stays" in ran.stderr
    given[1] = "native/package.yaml"
    ran = run_command("run", *given, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "limits.time_s: 1 is now 0.5" in ran.stderr
    assert load_problem(tmp_path / given[1]).limits.time_s == 0.5


def test_a_file_of_ours_may_have_the_name_of_a_packages(tmp_path: Path) -> None:
    """It has our limit and is ours to write into, as under any other name."""
    path = tmp_path / "problem.yaml"
    path.write_text(
        "statement: Add.\ntests: [{input: 1 2, output: '3'}]\n"
        "solution: print(sum(map(int, input().split())))\n"
    )
    ran = run_command("run", "check", "problem.yaml", "--calibrate", "--write", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "problem.yaml: limits.time_s: 2 is now 0.5" in ran.stderr
    assert load_problem(path).limits.time_s == 0.5


@pytest.mark.parametrize("outputs", [[[5], [7]], [[[5]], [[7]]]])
@pytest.mark.parametrize(
    ("code", "accepted"),
    [
        ("def last(a): return a[-1]", "plain"),
        ("def last(a): return [a[-1]]", "list"),
        ("def last(a): return a[0]", ""),
        ("def last(a): return [a[-1]] * 2", ""),
    ],
)
def test_apps_results_in_lists_of_one(
    judge: Judge, outputs: list[Any], code: str, accepted: str
) -> None:
    """Whether the list is the result's own or the data set's cannot be told: both are right."""
    data = {"fn_name": "last", "inputs": [[[1, 5]], [[2, 7]]], "outputs": outputs}
    record = {"problem_id": 3, "question": "Last?", "input_output": json.dumps(data)}
    problem = problem_from_document(apps_problem(record), "apps.json")
    nested = isinstance(outputs[0][0], list)
    assert judge.judge(problem, code).accepted == (
        accepted == "list" or (accepted == "plain" and not nested)
    )
