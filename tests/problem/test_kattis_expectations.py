"""What packages promise of their submissions: folders, rules, and tags in the programs."""

from pathlib import Path, PurePosixPath

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.self_check import check_problems
from hydragen_tree.problem.formats.kattis_data import read_yaml
from hydragen_tree.problem.formats.kattis_expectations import Expectations
from hydragen_tree.problem.formats.kattis_submissions import read_submissions
from hydragen_tree.problem.reading import load_problem
from tests.problem.test_kattis import LEGACY, MODERN, package

RULES = """
accepted: {permitted: [WA], required: [WA]}
either: {permitted: [AC, WA]}
either/sure.py: {permitted: [AC]}
"open/{first,second}.{py,cpp}": {permitted: [TLE, AC]}
"*/wrong*": {required: [WA]}
tree/part: {required: [RTE], permitted: [AC, RTE]}
wrong_answer/slow.py: {language: python3, authors: somebody}
wrong_answer/both.py: {permitted: [AC, WA, TLE]}
time_limit_exceeded: {permitted: [AC, WA, TLE]}
groups/a.py: {secret/group1: {permitted: [AC]}}
scored/a.py: {score: 40}
odd/a.py: {permitted: [XY]}
none/a.py: {permitted: []}
"""


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("accepted/a.py", ("WA",)),
        ("either/a.py", ("WA", "AC")),
        ("either/sure.py", ("AC",)),
        ("open/first.cpp", ("TLE", "AC")),
        ("open/third.py", "open names no single verdict"),
        ("open/deep/first.py", "open names no single verdict"),
        ("rejected/a.py", ("WA", "TLE", "RE")),
        ("rejected/wrong.py", ("WA", "TLE", "RE")),
        ("brute_force/a.py", ("TLE", "RE")),
        ("tree/part", ("RE",)),
        ("tree/part.py", "tree names no single verdict"),
        ("wrong_answer/slow.py", ("WA",)),
        ("wrong_answer/both.py", ("WA",)),
        ("time_limit_exceeded/a.py", ("WA", "TLE")),
        ("groups/a.py", "submissions.yaml has rules for its groups of tests or its score"),
        ("scored/a.py", "submissions.yaml has rules for its groups of tests or its score"),
        ("odd/a.py", "submissions.yaml has a rule that is not understood"),
        ("none/a.py", "submissions.yaml leaves it no verdict"),
        ("partially_accepted/a.py", "partially_accepted names no single verdict"),
    ],
)
def test_rules(tmp_path: Path, entry: str, expected: tuple[str, ...] | str) -> None:
    path = tmp_path / "submissions.yaml"
    path.write_text(RULES)
    assert Expectations(path, read_yaml(path)).of(PurePosixPath(entry), "print(1)") == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("# @EXPECTED_RESULTS@: CORRECT", ("AC",)),
        ("/* @EXPECTED_RESULTS@:\tTIMELIMIT */", ("TLE",)),
        (" * @EXPECTED_RESULTS@: CORRECT,WRONG-ANSWER\n * more", ("WA", "AC")),
        ("# @EXPECTED_RESULTS@: run_time_error, no-output", ("RE", "WA")),
        ("# @EXPECTED_RESULTS@: CORRECT\n# @EXPECTED_RESULTS@: CORRECT", ("AC",)),
        (
            "# @EXPECTED_RESULTS@: CORRECT\n# @EXPECTED_RESULTS@: TIMELIMIT",
            "several @EXPECTED_RESULTS@ that differ",
        ),
        ("# @EXPECTED_RESULTS@: CHECK-MANUALLY", "@EXPECTED_RESULTS@ of CHECK-MANUALLY"),
    ],
)
def test_tags_in_programs(tmp_path: Path, code: str, expected: tuple[str, ...] | str) -> None:
    """A tag says more than the folder that its program is in."""
    for folder in ("mixed", "wrong_answer"):
        entry = PurePosixPath(folder, "a.py")
        assert Expectations(tmp_path / "none", {}).of(entry, code) == expected


def test_a_rule_that_is_none_is_refused(tmp_path: Path) -> None:
    expectations = Expectations(tmp_path / "submissions.yaml", {"accepted/a.py": "fast"})
    with pytest.raises(InputError, match=r"submissions\.yaml: accepted/a\.py: expected keys"):
        expectations.of(PurePosixPath("accepted/a.py"), "")


def test_they_are_what_a_check_holds_the_judge_to(tmp_path: Path) -> None:
    programs: dict[str, str | None] = {
        "submissions/rejected/zero.py": "1 / 0\n",
        "submissions/brute_force/crash.py": "1 / 0\n",
        "submissions/brute_force/right.py": "print(sum(map(int, input().split())), end='')\n",
        "submissions/mixed/lucky.py": "# @EXPECTED_RESULTS@: CORRECT, TIMELIMIT\n"
        "print(int(input().replace(' ', '+') and 3))\n",
    }
    programs |= {"submissions/accepted/sum.cpp": None, "submissions/run_time_error/crash.py": None}
    problem = load_problem(package(tmp_path, LEGACY, **programs))
    with Judge(workers=1, cache=False) as judge:
        [found] = check_problems(judge, [problem])
    got = {t.name.split("/", 1)[1]: t.verdict.status for t in found.trials if t.good}
    assert got["rejected/zero.py (WA)"] == "RE"
    assert got["brute_force/crash.py (TLE)"] == "RE"
    assert [fault.partition(" on ")[0] for fault in found.faults()] == [
        "submissions/brute_force/right.py (TLE): expected TLE or RE or OLE or MLE, got AC",
        "submissions/mixed/lucky.py (TLE): expected TLE or AC or OLE, got WA",
    ]


def test_constants_have_forms(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        MODERN,
        **{
            "problem.yaml": "problem_format_version: 2025-09\nname: Near\n"
            "constants: {max_n: {value: 1000, tex: '1\\,000'}, tolerance: 0.5}\n",
            "statement/problem.en.md": "Given $n \\le {{max_n.tex}}$: {{max_n.value}} {{max_n}} "
            "{{tolerance}} {{max_n.other}}.\n",
            "submissions/accepted/root.py": "print({{max_n}}, {{max_n.value}})\n",
        },
    )
    problem = load_problem(folder)
    assert problem.statement.startswith("Given n <= 1000: 1000 1000 0.5 {{max_n.other}}.")
    assert problem.solution == "print(1000, 1000)\n"
    (folder / "problem.yaml").write_text(
        "problem_format_version: 2025-09\nconstants: {a: {b: 1}}\n"
    )
    with pytest.raises(InputError, match="constants: a: value: missing"):
        load_problem(folder)


@pytest.mark.parametrize(
    ("version", "validation", "message"),
    [
        ("legacy", "custom multi-pass", "multi-pass: the problem runs the program several times"),
        ("legacy", "custom interactve", "validation: interactve: expected some of custom, default"),
        ("2023-07-draft", "custom score", "decides a score"),
        ("2023-07-draft", "{multipass: true}", "multi-pass: the problem runs the program several"),
    ],
)
def test_kinds_of_validation_that_cannot_be_judged(
    tmp_path: Path, version: str, validation: str, message: str
) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "problem.yaml": f"problem_format_version: {version}\nvalidation: {validation}\n",
            "output_validators/v.py": "import sys; sys.exit(42)\n",
        },
    )
    with pytest.raises(InputError, match=message):
        load_problem(folder)


@pytest.mark.parametrize("validation", ["custom interactive", "{interactive: true}"])
def test_a_draft_may_say_interactive_in_the_old_way(tmp_path: Path, validation: str) -> None:
    folder = package(
        tmp_path,
        LEGACY,
        **{
            "problem.yaml": f"problem_format_version: 2023-07-draft\nvalidation: {validation}\n",
            "output_validators/v.py": "import sys; sys.exit(42)\n",
        },
    )
    assert getattr(load_problem(folder).checker, "interactive", False)
    assert read_submissions(folder, {})[1] == []


def test_in_a_legacy_scoring_problem_accepted_may_mean_some_of_the_points(tmp_path: Path) -> None:
    scored: dict[str, str | None] = {
        "problem.yaml": "type: scoring\n",
        "submissions/accepted/sum.py": None,
        "submissions/accepted/sum.cpp": None,
        "submissions/accepted/half.py": "print(3)\n",
        "submissions/accepted/whole.py": "print(eval(input().replace(' ', '+')))\n",
        "submissions/partially_accepted/half.py": "print(3)\n",
        "submissions/partially_accepted/whole.py": "print(eval('+'.join(input().split())))\n",
    }
    problem = load_problem(package(tmp_path, LEGACY, **scored))
    with Judge(workers=1, cache=False) as judge:
        [found] = check_problems(judge, [problem])
        assert [fault.partition(" on ")[0] for fault in found.faults()] == [
            "submissions/partially_accepted/whole.py (WA): expected WA or TLE or RE or OLE or MLE, "
            "got AC"
        ]
        for name in ("accepted/whole.py", "partially_accepted/whole.py"):
            (tmp_path / "twosum" / "submissions" / name).unlink()
        [found] = check_problems(judge, [load_problem(tmp_path / "twosum")])
        assert found.faults() == ["none of its accepted submissions that run here passes all tests"]
        assert not found.good
