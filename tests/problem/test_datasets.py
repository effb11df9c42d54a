"""Data sets: miniature records in the published forms, whose tests tell right from wrong."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.datasets import is_apps_directory, read_dataset
from hydragen_tree.problem.reading import load_problem, problem_from_document
from hydragen_tree.problem.types import Problem
from hydragen_tree.problem.writing import to_yaml

Record = dict[str, Any]

HUMAN_EVAL = {
    "task_id": "HumanEval/7",
    "prompt": 'def double(n: int) -> int:\n    """ Twice n.\n    >>> double(2)\n    4\n    """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n"
    "    assert candidate(-3) == -6\n",
}
MBPP = {
    "task_id": 601,
    "text": "Write a function to reverse a list.",
    "code": "import math\r\ndef helper(x):\r\n    return x\r\ndef rev(x):\r\n    return x[::-1]",
    "test_list": ["assert set(rev([1, 2])) == {1, 2}", "assert rev([1, 2]) == [2, 1]"],
    "test_setup_code": "",
    "challenge_test_list": ["assert rev([]) == []"],
}
EVALPLUS = {
    "task_id": "HumanEval/7",
    "prompt": HUMAN_EVAL["prompt"],
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "contract": "",
    "base_input": [[2], [-3]],
    "plus_input": [[10**30], [0]],
    "atol": 0,
}
MBPP_PLUS = {
    "task_id": "Mbpp/744",
    "prompt": '"""\nWrite a function to tell whether a tuple holds None.\n'
    'assert check_none((7, None)) == True\n"""\n',
    "entry_point": "check_none",
    "canonical_solution": "\ndef check_none(t):\n    assert isinstance(t, tuple)\n"
    "    return None in t\n",
    "base_input": [[[7, None]]],
    "plus_input": [[[]], [["x"]]],
    "atol": 0,
}
APPS: Record = {
    "problem_id": 12,
    "question": "Add the numbers.\r\n\n-----Examples-----\n1 2",
    "solutions": json.dumps(["print raw_input()", "print(sum(map(int, input().split())))"]),
    "input_output": json.dumps({"inputs": ["1 2\n", "3 4"], "outputs": ["3\n", ["7"]]}),
    "difficulty": "interview",
    "url": "https://contest.example/12",
    "starter_code": "",
}
CODE_CONTESTS = {
    "name": "1575_A. Another Problem",
    "description": "Halve it.",
    "source": 2,
    "difficulty": 7,
    "public_tests": [{"input": "3\n", "output": "1.5\n"}],
    "private_tests": [{"input": "4\n", "output": "2.0\n"}],
    "generated_tests": [],
    "solutions": [
        {"language": 2, "solution": "int main() {}"},
        {"language": 3, "solution": "print(int(input()) / 2)"},
    ],
    "incorrect_solutions": [{"language": 3, "solution": "print(0)"}],
    "time_limit": "seconds: 2\nnanos: 500000000\n",
    "memory_limit_bytes": 512 << 20,
    "cf_rating": 800,
}


def read(tmp_path: Path, *records: object, name: str = "set.jsonl") -> list[Any]:
    path = tmp_path / name
    text = "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return [found for _, found in read_dataset(path)]


def problem(tmp_path: Path, record: Record) -> Problem:
    """One record all the way: document, native YAML, problem."""
    [document] = read(tmp_path, record)
    assert not isinstance(document, InputError), document
    path = tmp_path / "problem.yaml"
    path.write_text(to_yaml(document), encoding="utf-8")
    loaded = load_problem(path)
    assert loaded == problem_from_document(document, str(path))
    return loaded


def passes(problem: Problem, program: str) -> bool:
    """Whether a program passes every function test, run plainly in this process."""
    try:
        for test in problem.tests:
            names: dict[str, Any] = {}
            exec(program, names)
            if test.code is not None:
                exec(test.code, names)
            else:
                assert problem.entry_point
                assert names[problem.entry_point](*test.call or ()) == test.expected
    except AssertionError:
        return False
    return True


def test_human_eval(tmp_path: Path) -> None:
    found = problem(tmp_path, HUMAN_EVAL)
    assert (found.id, found.title, found.kind) == ("HumanEval/7", "double", "function")
    assert found.starter == HUMAN_EVAL["prompt"]
    assert "    def double(n: int) -> int:" in found.statement
    assert found.solution is not None
    assert passes(found, found.solution)
    assert not passes(found, "def double(n): return n * n")


def test_mbpp(tmp_path: Path) -> None:
    found = problem(tmp_path, MBPP)
    assert (found.id, found.title, len(found.tests)) == ("Mbpp/601", "rev", 3)
    assert "    assert rev([1, 2]) == [2, 1]" in found.statement
    assert "challenge" not in found.statement
    assert found.solution is not None
    assert "\r" not in found.solution
    assert passes(found, found.solution)
    assert not passes(found, "def rev(x): return x")


def test_sanitised_mbpp_and_its_extension_on_the_hub(tmp_path: Path) -> None:
    record = {
        "task_id": 2,
        "source_file": "x",
        "prompt": "Round up.",
        "code": "import math\ndef up(x):\n    return math.ceil(x)",
        "test_imports": ["import math"],
        "test_list": ["assert up(math.pi) == 4"],
    }
    found = problem(tmp_path, record)
    assert passes(found, "def up(x): return int(x) + 1")
    plus = problem(tmp_path, {**record, "test": "for x in (1, 1.5): assert up(x) in (1, 2)\n"})
    assert len(plus.tests) == 1
    assert not passes(plus, "def up(x): return 4")


def test_evalplus_checks_against_its_reference(tmp_path: Path) -> None:
    found = problem(tmp_path, EVALPLUS)
    assert len(found.tests) == 2
    assert found.solution is not None
    assert passes(found, found.solution)
    assert passes(found, "def double(n): return n + n")
    # Right on the base inputs, wrong beyond what a double can hold.
    assert not passes(found, "def double(n): return int(n * 2.0)")


def test_evalplus_gives_tuples_back(tmp_path: Path) -> None:
    found = problem(tmp_path, MBPP_PLUS)
    assert found.statement.startswith("Write a function to tell whether a tuple holds None.")
    assert found.solution is not None
    assert passes(found, found.solution)
    assert not passes(found, "def check_none(t): return False")


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (2, [[1, 2], [3]], [(1, 2), (3,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (250, [[1], 2], [(1,), 2]),
        (259, [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        (278, [[1, [2], 3]], [(1, (2,), 3)]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (722, [{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (115, [[[1, 1], []]], [[{1}, {}]]),
        (124, ["1", "2j"], [1.0, 2j]),
        (252, ["(1+2j)"], [1 + 2j]),
        (9, [[1, [2]]], [[1, [2]]]),
    ],
)
def test_types_that_json_took_away(
    tmp_path: Path, number: int, arguments: list[Any], expected: list[Any]
) -> None:
    record = {
        **MBPP_PLUS,
        "task_id": f"Mbpp/{number}",
        "entry_point": "f",
        "canonical_solution": "def f(*args):\n    return list(args)\n",
        "base_input": [arguments],
        "plus_input": [],
    }
    found = problem(tmp_path, record)
    assert passes(found, f"def f(*args): return {expected!r}")
    assert not passes(found, "def f(*args): return None")


@pytest.mark.parametrize(
    ("entry_point", "arguments", "reference", "accepted", "refused"),
    [
        ("f", [0.1], "return x * 3", "return x + x + x", "return x * 3 + 1e-4"),
        ("f", [0.1], "return [x, 1.0]", "return [x + 1e-9, 1.0]", "return (x, 1.0)"),
        ("f", [1], "return x", "return x", "return '1'"),
        ("f", [1.0], "return x", "return x", "return 'one'"),
        ("Diff", [[1, 2]], "return x", "return x[::-1]", "return x[:1]"),
        ("check_str", ["a"], "return True", "import re; return re.match('a', x)", "return None"),
        ("are_equivalent", [1], "return True", "return False", None),
        ("sum_div", [6], "return 6", "return 0", "return 5"),
        ("find_zero", [[1, 2]], "return -0.5", "return -0.5 + 1e-9", "return 0.5"),
    ],
)
def test_oracles(
    tmp_path: Path,
    entry_point: str,
    arguments: list[Any],
    reference: str,
    accepted: str,
    refused: str | None,
) -> None:
    def define(body: str) -> str:
        return f"def {entry_point}(x):\n    {body}\n"

    record = {
        **EVALPLUS,
        "prompt": "",
        "entry_point": entry_point,
        "canonical_solution": define(reference),
        "base_input": [arguments],
        "plus_input": [],
        "atol": 1e-4 if entry_point == "find_zero" else 0,
    }
    found = problem(tmp_path, record)
    assert passes(found, define(accepted))
    assert refused is None or not passes(found, define(refused))


def test_apps(tmp_path: Path) -> None:
    found = problem(tmp_path, APPS)
    assert (found.id, found.difficulty, found.kind) == ("apps-12", "medium", "stdio")
    assert [(t.input, t.output) for t in found.tests] == [("1 2\n", "3\n"), ("3 4\n", "7\n")]
    assert found.statement == "Add the numbers.\n\n-----Examples-----\n1 2\n"
    assert found.solution == "print(sum(map(int, input().split())))\n"


def test_apps_functions(tmp_path: Path) -> None:
    data = {"fn_name": "inc", "inputs": [[1], [{"1": 2}]], "outputs": [[2], [[3]]]}
    found = problem(tmp_path, {**APPS, "input_output": data, "starter_code": "class Solution:\n"})
    assert [(t.call, t.expected) for t in found.tests] == [((1,), 2), (({1: 2},), [3])]
    assert found.entry_point == "inc"
    assert found.statement.endswith("must begin like this:\n\n    class Solution:\n")
    bare = {**data, "outputs": [2, [3, 4]]}
    assert problem(tmp_path, {**APPS, "input_output": bare}).tests[1].expected == [3, 4]


def test_apps_directory(tmp_path: Path) -> None:
    folder = tmp_path / "0042"
    folder.mkdir()
    (folder / "question.txt").write_text("Add.", encoding="utf-8")
    (folder / "input_output.json").write_text(str(APPS["input_output"]), encoding="utf-8")
    (folder / "metadata.json").write_text('{"difficulty": "competition"}', encoding="utf-8")
    assert is_apps_directory(folder)
    [(_, document)] = read_dataset(folder)
    assert isinstance(document, dict)
    assert (document["id"], document["difficulty"]) == ("apps-42", "hard")


def test_code_contests(tmp_path: Path) -> None:
    found = problem(tmp_path, CODE_CONTESTS)
    assert (found.id, found.title) == ("1575-a-another-problem", "1575_A. Another Problem")
    assert (found.limits.time_s, found.limits.memory_mib) == (2.5, 512)
    assert found.checker.type == "float"
    assert found.solution == "print(int(input()) / 2)\n"
    assert found.difficulty is None


def test_code_contests_in_columns(tmp_path: Path) -> None:
    record = {
        **CODE_CONTESTS,
        "difficulty": 2,
        "public_tests": {"input": ["1\n", "2\n"], "output": ["YES\n", "NO\n"]},
        "private_tests": {"input": [], "output": []},
        "generated_tests": {"input": ["3\n"], "output": ["YES\n"]},
        "solutions": {"language": [3], "solution": ["print('YES')"]},
        "time_limit": {"seconds": 4, "nanos": 0},
        "memory_limit_bytes": 0,
    }
    found = problem(tmp_path, record)
    assert [t.output for t in found.tests] == ["YES\n", "NO\n", "YES\n"]
    assert found.checker.model_dump() == {
        "type": "tokens",
        "case_sensitive": False,
        "space_sensitive": False,
    }
    assert (found.limits.time_s, found.difficulty) == (4.0, "medium")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**APPS, "input_output": ""}, "apps-12: it has no tests"),
        ({**APPS, "input_output": "{"}, "not in the form"),
        ({**APPS, "input_output": {"inputs": ["1"], "outputs": []}}, "not in the form"),
        ({**CODE_CONTESTS, "input_file": "in.txt"}, "uses the file in.txt"),
        ({**CODE_CONTESTS, "public_tests": [], "private_tests": []}, "has no tests"),
        ({**HUMAN_EVAL, "entry_point": "a b"}, "expected a function's name"),
        ({**MBPP, "test_list": ["assert True"], "challenge_test_list": []}, "no function"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_record_that_is_no_problem_is_named_and_the_rest_is_read(
    tmp_path: Path, record: Record, message: str
) -> None:
    broken, good = read(tmp_path, record, APPS)
    assert isinstance(broken, InputError)
    assert message in str(broken)
    assert isinstance(good, dict)


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.json.gz", "set.jsonl.gz"])
def test_files_may_be_lists_or_lines_and_gzipped(tmp_path: Path, name: str) -> None:
    records = [json.dumps([APPS, MBPP])] if ".jsonl" not in name else [APPS, "", MBPP]
    assert [d["id"] for d in read(tmp_path, *records, name=name)] == ["apps-12", "Mbpp/601"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a known format"):
        read(tmp_path, {"a": 1})
    with pytest.raises(InputError, match=r"set.jsonl:2: cannot be read"):
        read(tmp_path, APPS, "{")
    with pytest.raises(InputError, match=r"expected an object"):
        read(tmp_path, "[1]")
    with pytest.raises(InputError, match=r"expected \.json or \.jsonl"):
        list(read_dataset(tmp_path / "set.parquet"))
    with pytest.raises(InputError, match="No such file"):
        list(read_dataset(tmp_path / "missing.json"))
