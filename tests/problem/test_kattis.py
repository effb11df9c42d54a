"""Problem packages, legacy and 2025-09: miniature but real ones, written here."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.checkers import FloatChecker, ProgramChecker, TokensChecker
from hydragen_tree.problem.formats.kattis import is_kattis_package
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.reading import load_problem, load_problems

LEGACY = {
    "problem.yaml": "name: Two Sum\nlimits:\n  memory: 512\n",
    "problem_statement/problem.en.tex": (
        "\\problemname{Two Sum}\nAdd $a$ and $b$ ($1 \\le a, b \\le 10^{9}$).\n"
        "\\section*{Output}\nTheir sum.\n"
    ),
    "data/sample/1.in": "1 2\n",
    "data/sample/1.ans": "3\n",
    "data/secret/10-big.in": "1000000000 1\n",
    "data/secret/10-big.ans": "1000000001\n",
    "data/secret/02-small.in": "5 5\n",
    "data/secret/02-small.ans": "10\n",
    ".timelimit": "3\n",
    "submissions/accepted/sum.py": "print(sum(map(int, input().split())))\n",
    "submissions/accepted/sum.cpp": "int main() {}\n",
    "submissions/wrong_answer/first.py": "print(input().split()[0])\n",
    "submissions/time_limit_exceeded/loop.py": "while True: pass\n",
    "submissions/run_time_error/crash.py": "1 / 0\n",
    "input_validators/check.py": "import sys; sys.exit(42)\n",
}
MODERN = {
    "problem.yaml": (
        "problem_format_version: 2025-09\n"
        "name: {en: Near Square, sv: Nära kvadrat}\n"
        "uuid: 1f2e3d4c-0000-4000-8000-000000000000\n"
        "limits: {time_limit: 1.5, output: 16}\n"
        "constants: {max_n: 1000}\n"
    ),
    "statement/problem.en.md": "Given $n$ ($1 \\le n \\le {{max_n}}$), print $\\sqrt{n}$.\n",
    "statement/problem.sv.md": "Skriv $\\sqrt{n}$.\n",
    "data/sample/1.in": "2\n",
    "data/sample/1.ans": "1.4142135\n",
    "data/secret/test_group.yaml": "output_validator_args: [float_tolerance, '1e-4']\n",
    "data/sample/test_group.yaml": "output_validator_args: [float_tolerance, '1e-4']\n",
    "data/secret/a.in": "9\n",
    "data/secret/a.ans": "3\n",
    "submissions/accepted/root.py": "print(float(input()) ** 0.5)  # {{max_n}}\n",
    "submissions/brute_force/slow.py": "print(1)\n",
}


def package(tmp_path: Path, base: dict[str, str], **changes: str | None) -> Path:
    """Write a package; a change of None leaves the file out. `__` in a key stands for `/`."""
    folder = tmp_path / "twosum"
    named = {key.replace("__", "/"): text for key, text in changes.items()}
    for name, text in {**base, **named}.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def test_a_legacy_package(tmp_path: Path) -> None:
    folder = package(tmp_path, LEGACY)
    assert is_kattis_package(folder)
    problem = load_problem(folder)
    assert (problem.id, problem.title) == ("twosum", "Two Sum")
    assert problem.statement == ("Add a and b (1 <= a, b <= 10^9).\n\n## Output\n\nTheir sum.\n")
    assert [(t.input, t.output, t.sample) for t in problem.tests] == [
        ("1 2\n", "3\n", True),
        ("5 5\n", "10\n", False),
        ("1000000000 1\n", "1000000001\n", False),
    ]
    assert (problem.limits.time_s, problem.limits.memory_mib) == (3.0, 512)
    assert problem.checker == TokensChecker(case_sensitive=False)
    assert problem.solution == LEGACY["submissions/accepted/sum.py"]
    assert [(s.verdict, s.language) for s in problem.submissions] == [
        ("AC", "c++"),
        ("AC", "python"),
        ("RE", "python"),
        ("TLE", "python"),
        ("WA", "python"),
    ]
    assert problem.source == str(folder / "problem.yaml")


def test_a_modern_package(tmp_path: Path) -> None:
    problem = load_problem(package(tmp_path, MODERN))
    assert problem.title == "Near Square"
    assert problem.statement == "Given n (1 <= n <= 1000), print sqrt(n).\n"
    assert problem.checker == FloatChecker(
        type="float", abs_tol=1e-4, rel_tol=1e-4, case_sensitive=False
    )
    assert problem.limits.time_s == 1.5
    assert problem.limits.memory_mib == 2048
    assert problem.limits.output_mib == 16
    assert problem.submissions[0].code.endswith("# 1000\n")


def test_a_package_loads_wherever_a_problem_does(tmp_path: Path) -> None:
    folder = package(tmp_path, LEGACY)
    assert load_problem(folder) == load_problems([str(folder)])[0]
    assert load_problems([str(tmp_path / "two*")])[0].id == "twosum"
    assert load_problem(folder).content_hash == load_problem(folder).content_hash


def test_a_folder_of_native_problems_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "problem.yaml").write_text("id: a\nstatement: x\n", encoding="utf-8")
    assert not is_kattis_package(tmp_path)
    assert not is_kattis_package(tmp_path / "missing")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("case_sensitive", TokensChecker(case_sensitive=True)),
        ("space_change_sensitive", TokensChecker(case_sensitive=False, space_sensitive=True)),
        (
            "float_absolute_tolerance 1e-9",
            FloatChecker(type="float", abs_tol=1e-9, rel_tol=0, case_sensitive=False),
        ),
        (
            "case_sensitive float_relative_tolerance 0.5 float_absolute_tolerance 2",
            FloatChecker(type="float", abs_tol=2, rel_tol=0.5, case_sensitive=True),
        ),
    ],
)
def test_flags_of_the_default_validator(tmp_path: Path, flags: str, expected: object) -> None:
    folder = package(tmp_path, LEGACY, **{"problem.yaml": f"name: A\nvalidator_flags: {flags}\n"})
    assert load_problem(folder).checker == expected


def test_a_custom_validator_with_flags(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "problem.yaml": "name: A\nvalidation: custom\nvalidator_flags: --mode 'a b'\n",
            "output_validators/check/check.cpp": "int main() { return 42; }\n",
            "output_validators/check/check.h": "\n",
            "output_validators/README.md": "\n",
        },
    )
    assert load_problem(folder).checker == ProgramChecker(
        type="program",
        source="output_validators/check",
        protocol="kattis",
        args=("--mode", "a b"),
    )


def test_a_modern_validator_is_one_file_or_its_folder(tmp_path: Path) -> None:
    one = package(
        tmp_path / "one", MODERN, **{"output_validator/check.py": "import sys; sys.exit(42)\n"}
    )
    checker = load_problem(one).checker
    assert isinstance(checker, ProgramChecker)
    assert checker.source == "output_validator/check.py"
    several = package(
        tmp_path / "several",
        MODERN,
        **{"output_validator/build": "#!/bin/sh\n", "output_validator/a.cpp": "int main() {}\n"},
    )
    checker = load_problem(several).checker
    assert isinstance(checker, ProgramChecker)
    assert checker.source == "output_validator"


def test_groups_give_their_cases_flags_of_their_own(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "problem.yaml": "name: A\nvalidation: custom\ntype: scoring\nvalidator_flags: base\n",
            "output_validators/check.py": "\n",
            "data/secret/testdata.yaml": "output_validator_flags: outer\n",
            "data/secret/group1/testdata.yaml": "output_validator_flags: {flags: in ner}\n",
            "data/secret/group1/1.in": "1 1\n",
            "data/secret/group1/1.ans": "2\n",
            "data/secret/group2/1.in": "2 2\n",
            "data/secret/group2/1.ans": "4\n",
        },
    )
    problem = load_problem(folder)
    assert isinstance(problem.checker, ProgramChecker)
    assert problem.checker.args == ("base",)
    assert [(t.input, t.checker_args) for t in problem.tests] == [
        ("1 2\n", ()),
        ("5 5\n", ("outer",)),
        ("1000000000 1\n", ("outer",)),
        ("1 1\n", ("in", "ner")),
        ("2 2\n", ("outer",)),
    ]


def test_flags_may_stand_at_the_root_of_the_data(tmp_path: Path) -> None:
    settings = "output_validator_flags: float_tolerance 1e-3\n"
    folder = package(tmp_path, LEGACY, **{"data/testdata.yaml": settings})
    assert load_problem(folder).checker == FloatChecker(
        type="float", abs_tol=1e-3, rel_tol=1e-3, case_sensitive=False
    )


def test_an_interactive_problem_shows_its_conversation(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "problem.yaml": "name: Guess\nvalidation: custom interactive\n",
            "output_validators/talk.py": "\n",
            "data/sample/1.interaction": "<1\n>2\n",
        },
    )
    problem = load_problem(folder)
    assert isinstance(problem.checker, ProgramChecker)
    assert problem.checker.interactive
    assert problem.samples == []
    assert problem.statement.endswith("is written by it):\n\n    <1\n    >2\n")
    assert len(problem.tests) == 3


def test_samples_shown_otherwise_than_judged_are_put_into_the_statement(tmp_path: Path) -> None:
    folder = package(
        tmp_path, MODERN, **{"data/sample/1.out": "1.41\n", "data/sample/1.in.statement": "two\n"}
    )
    problem = load_problem(folder)
    assert problem.samples == []
    assert problem.statement.endswith("\n\nInput:\ntwo\nOutput:\n1.41\n")
    assert problem.tests[0].output == "1.4142135\n"


def test_domjudge_keeps_limits_and_name_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        {name: text for name, text in LEGACY.items() if name != ".timelimit"},
        **{"problem.yaml": "", "domjudge-problem.ini": "timelimit='7'\nname=\"From ini\"\n"},
    )
    problem = load_problem(folder)
    assert (problem.title, problem.limits.time_s) == ("From ini", 7.0)


def test_without_a_time_limit_the_native_default_stands(tmp_path: Path) -> None:
    folder = package(
        tmp_path, {name: text for name, text in LEGACY.items() if name != ".timelimit"}
    )
    assert load_problem(folder).limits.time_s == 2.0


def test_skipped_submissions_are_named(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "submissions/mixed/any.py": "print(1)\n",
            "submissions/wrong_answer/empty.py": "\n",
            "submissions/accepted/sum.java": "class Main {}\n",
            "submissions/accepted/old.py": "print 1\n",
            "submissions/accepted/parses.py": "print(raw_input())\n",
            "submissions/accepted/.hidden.py": "print(1)\n",
            "submissions/accepted/two.py": "#!/usr/bin/env python2\nprint(1)\n",
            "submissions/accepted/many/a.py": "import b\n",
            "submissions/accepted/many/b.py": "\n",
            "submissions/accepted/one/main.py": "print(1)\n",
            "submissions/submissions.yaml": (
                "run_time_error: {secret: {permitted: [AC, RTE]}}\naccepted/*: {language: cpp}\n"
            ),
        },
    )
    found, skipped = read_submissions(folder, {})
    assert [s["verdict"] for s in found] == ["AC", "AC", "AC", "TLE", "WA"]
    assert skipped == [
        "submissions/accepted/many: a program of several files",
        "submissions/accepted/old.py: Python 2, or not Python at all",
        "submissions/accepted/parses.py: Python 2 (raw_input)",
        "submissions/accepted/sum.java: .java: not Python, C or C++",
        "submissions/accepted/two.py: Python 2",
        "submissions/mixed/any.py: mixed names no single verdict",
        "submissions/run_time_error/crash.py: submissions.yaml has rules for its groups of tests "
        "or its score",
        "submissions/wrong_answer/empty.py: an empty file",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/secret/10-big.ans": None}, "10-big.ans is missing"),
        ({"problem.yaml": "name: [unclosed\n"}, r"problem\.yaml: cannot be read"),
        ({"problem.yaml": "- a list\n"}, "expected keys with values"),
        ({"problem.yaml": "problem_format_version: 1999-01\n"}, "1999-01: expected one of"),
        (
            {"problem.yaml": "problem_format_version: 2025-09\ntype: [multi-pass]\n"},
            "multi-pass: the problem runs the program several times",
        ),
        (
            {"problem.yaml": "problem_format_version: 2025-09\ntype: submit-answer\n"},
            "asks for answers",
        ),
        (
            {"problem.yaml": "problem_format_version: 2025-09\ntype: interactive\n"},
            "needs an output validator",
        ),
        ({"problem.yaml": "type: pass-fial\n"}, "type: pass-fial: expected some of pass-fail,"),
        ({"problem.yaml": "name: [a]\n"}, "name: expected text"),
        ({"problem.yaml": "limits: [1]\n"}, "limits: expected keys with values, got list"),
        ({"problem.yaml": "constants: 5\n"}, "constants: expected keys with values, got int"),
        ({"problem.yaml": "validator_flags: '\"x'\n"}, "validator_flags: .*No closing quot"),
        (
            {"data/secret/testdata.yaml": "output_validator_flags: 7\n"},
            "output_validator_flags: expected arguments as a list or a string, got int",
        ),
        (
            {"submissions/submissions.yaml": "accepted: 5\n"},
            r"submissions.yaml: accepted: expected keys with values, got int",
        ),
        ({"problem.yaml": "validation: custom score\n"}, "decides a score"),
        ({"problem.yaml": "validation: custom\n"}, "there is no output_validators/"),
        ({"problem.yaml": "validator_flags: fuzzy\n"}, "'fuzzy' is not known"),
        ({"problem.yaml": "validator_flags: float_tolerance x\n"}, "expected a number above 0"),
        ({"problem.yaml": "limits: {memory: -1}\n"}, "memory: -1: expected a number above 0"),
        ({".timelimit": "soon\n"}, "'soon': expected a number above 0"),
        ({"include/python3/lib.py": "\n"}, r"include: code added"),
        ({"data/secret/02-small.files/a.txt": "\n"}, "files of their own"),
        ({"data/secret/testdata.yaml": "args: [x]\n"}, "command-line arguments"),
        (
            {"data/secret/testdata.yaml": "output_validator_flags: case_sensitive\n"},
            "other flags in some groups",
        ),
        ({"problem_statement/problem.en.tex": None}, "no statement"),
        (
            {
                "problem.yaml": "validation: custom\n",
                "output_validators/a.py": "\n",
                "output_validators/b.py": "\n",
            },
            r"several output validators \(a.py, b.py\)",
        ),
        (
            {"problem.yaml": "validation: custom\n", "output_validators/README": "\n"},
            "no output validator in it",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_judged_is_refused_by_name(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    folder = package(tmp_path, {n: t for n, t in LEGACY.items() if n not in changes}, **changes)
    with pytest.raises(InputError, match=message):
        load_problem(folder)


def test_a_package_without_secret_data_is_refused(tmp_path: Path) -> None:
    base = {name: text for name, text in LEGACY.items() if "secret" not in name}
    with pytest.raises(InputError, match="no secret test case"):
        load_problem(package(tmp_path, base))


def test_constants_stand_for_values_in_the_settings_of_groups(tmp_path: Path) -> None:
    settings = "output_validator_args: [float_tolerance, '1e-{{digits}}']\n"
    changes = {f"data/{group}/test_group.yaml": settings for group in ("sample", "secret")}
    metadata = MODERN["problem.yaml"].replace("max_n: 1000", "max_n: 9, digits: 5")
    folder = package(tmp_path, MODERN, **{"problem.yaml": metadata}, **changes)
    assert load_problem(folder).checker == FloatChecker(
        type="float", abs_tol=1e-5, rel_tol=1e-5, case_sensitive=False
    )


def test_a_static_validator_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path, MODERN, **{"static_validator/check.py": "\n"})
    with pytest.raises(InputError, match="static_validator: judging the source"):
        load_problem(folder)


def test_constants_in_a_validator_are_refused(tmp_path: Path) -> None:
    folder = package(tmp_path, MODERN, **{"output_validator/check.py": "n = {{max_n}}\n"})
    with pytest.raises(InputError, match="constants in output validators"):
        load_problem(folder)


def test_data_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = package(tmp_path, LEGACY)
    (folder / "data/secret/02-small.in").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"02-small.in: cannot be read as UTF-8"):
        load_problem(folder)


def test_carriage_returns_in_data_are_kept(tmp_path: Path) -> None:
    folder = package(tmp_path, LEGACY)
    (folder / "data/secret/02-small.in").write_bytes(b"5 5\r\n")
    assert load_problem(folder).tests[1].input == "5 5\r\n"
