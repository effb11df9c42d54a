"""Packages as people have them: settings in the words of a draft, stray files, missing limits."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.problem.checkers import FloatChecker, ProgramChecker
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.formats.shared import why_not_python3
from hydragen_tree.problem.importing import Imported, Refused, read_sources
from hydragen_tree.problem.reading import load_problem

BASE = {
    "problem.yaml": "name: A\n",
    "problem_statement/problem.en.tex": "Print the number.\n",
    "data/secret/1.in": "1\n",
    "data/secret/1.ans": "1\n",
    "submissions/accepted/a.py": "print(input())\n",
}
DRAFT = "problem_format_version: 2023-07-draft\nname: A\nlimits: {time_limit: 1}\n"


def package(home: Path, **changes: str) -> Path:
    for name, text in {**BASE, **changes}.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


@pytest.mark.parametrize("name", ["testdata.yaml", "test_group.yaml"])
@pytest.mark.parametrize("key", ["output_validator_flags", "output_validator_args"])
def test_a_draft_names_its_flags_either_way(tmp_path: Path, name: str, key: str) -> None:
    flags = {f"data/secret/{name}": f"{key}: float_tolerance 1e-3\n"}
    problem = load_problem(package(tmp_path / "p", **{"problem.yaml": DRAFT}, **flags))
    assert isinstance(problem.checker, FloatChecker)
    assert problem.checker.abs_tol == 1e-3


def test_the_validator_of_a_draft_may_be_in_the_plural(tmp_path: Path) -> None:
    validator = {"output_validators/check.py": "raise SystemExit(42)\n"}
    problem = load_problem(package(tmp_path / "p", **{"problem.yaml": DRAFT}, **validator))
    assert isinstance(problem.checker, ProgramChecker)
    assert problem.checker.source == "output_validators/check.py"
    with pytest.raises(InputError, match="validation is default, but output_validators/ holds"):
        load_problem(package(tmp_path / "legacy", **validator))
    load_problem(package(tmp_path / "no-program", **{"output_validators/README.md": ""}))


def test_dot_files_are_no_data(tmp_path: Path) -> None:
    stray = {"data/secret/.1.in": "x", "data/secret/._1.ans": "x", "data/sample/.keep": "",
             "data/secret/.git/2.in": "x", "data/sample/.a.interaction": "\xff"}  # fmt: skip
    assert len(load_problem(package(tmp_path / "p", **stray)).tests) == 1


def test_an_answer_without_its_input_is_named(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", **{"data/secret/2.ans": "2\n"})
    with pytest.raises(InputError, match=r"secret/2\.ans: its input 2\.in is missing"):
        load_problem(folder)


def test_a_missing_time_limit_is_said(tmp_path: Path) -> None:
    [without] = read_sources([package(tmp_path / "p")])
    [with_limit] = read_sources([package(tmp_path / "q", **{"problem.yaml": DRAFT})])
    assert isinstance(without, Imported)
    assert isinstance(with_limit, Imported)
    assert "problem.yaml: no time limit, so that of 2 s stands in" in without.notes[0]
    assert "--calibrate" in without.notes[0]
    assert not with_limit.notes


def test_one_refused_source_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK")
    good = package(tmp_path / "good")
    bad = package(tmp_path / "bad", **{"problem.yaml": "type: odd\n"})
    first, second, third = read_sources([tmp_path / "broken.zip", bad, good])
    assert isinstance(first, Refused)
    assert str(first).count("broken.zip") == 1
    assert isinstance(second, Refused)
    assert str(second).count(str(bad)) == 1
    assert isinstance(third, Imported)
    assert [type(found) for found in read_sources([tmp_path])] == [Refused, Refused, Imported]


@pytest.mark.parametrize(
    ("code", "sign"),
    [
        ("n = int(raw_input())", "raw_input"),
        ("for i in xrange(3): pass", "xrange"),
        ("d = {}\nfor k, v in d.iteritems(): pass", "iteritems"),
        ("import sys\nbest = sys.maxint", "maxint"),
        ("import Queue", "Queue"),
        ("from StringIO import StringIO", "StringIO"),
        ("import sys\nprint >>sys.stderr, 1", "print"),
        ("print", "print"),
        ("raw_input = input\nprint(raw_input())", None),
        ("try:\n    raw_input\nexcept NameError:\n    raw_input = input", None),
        ("from functools import reduce\nprint(reduce(max, [1]))", None),
        ("def cmp(a, b): return a - b\ncmp(1, 2)", None),
        ("long = 3\nprint(long)", None),
        ("print(1)", None),
    ],
)
def test_python_2_that_parses(code: str, sign: str | None) -> None:
    assert why_not_python3(code) == (None if sign is None else f"Python 2 ({sign})")


LIMITS = {
    "submissions/run_time_error/memory.py": "x = bytearray(1 << 40)\n",
    "submissions/time_limit_exceeded/endless.py": "while True: print('x' * 1000)\n",
}


def test_programs_beyond_other_limits_are_where_the_format_has_room(tmp_path: Path) -> None:
    """Memory and output have no folder in the format; reports name programs by their files."""
    problem = load_problem(package(tmp_path / "p", **LIMITS))
    with Judge(workers=1, cache=False) as judge:
        [found] = check_problems(judge, [problem])
    assert found.good, found.faults()
    assert {t.name: t.verdict.status for t in found.trials} == {
        "submissions/accepted/a.py": "AC",
        "submissions/run_time_error/memory.py (RE)": "MLE",
        "submissions/time_limit_exceeded/endless.py (TLE)": "OLE",
    }


def test_folders_for_those_limits_keep_their_word(tmp_path: Path) -> None:
    own = {"submissions/memory_limit_exceeded/b.py": "x = 1\n"}
    found, _ = read_submissions(package(tmp_path / "p", **LIMITS, **own), {})
    also = {s["name"]: s.get("also") for s in found}
    assert also["submissions/run_time_error/memory.py"] == ["OLE"]


def test_skipped_submissions_are_in_the_check(tmp_path: Path) -> None:
    other = {"submissions/accepted/a.java": "class A {}", "submissions/mixed/b.py": "print(1)\n"}
    problem = load_problem(package(tmp_path / "p", **other))
    with Judge(workers=1, cache=False) as judge:
        [found] = check_problems(judge, [problem])
    assert found.skipped == [
        "submissions/accepted/a.java: .java: not Python, C or C++",
        "submissions/mixed/b.py: mixed names no single verdict",
    ]
