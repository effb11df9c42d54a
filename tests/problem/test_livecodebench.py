"""LiveCodeBench: tests packed in several ways, none of which is ever unpickled."""

import base64
import gzip
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.datasets import read_dataset
from hydragen_tree.problem.formats.livecodebench import private_tests
from hydragen_tree.problem.reading import load_problem, problem_from_document
from hydragen_tree.problem.types import Problem
from hydragen_tree.problem.writing import to_yaml

Record = dict[str, Any]


APPS: Record = {
    "problem_id": 12,
    "question": "Add the numbers.\r\n\n-----Examples-----\n1 2",
    "solutions": json.dumps(["print raw_input()", "print(sum(map(int, input().split())))"]),
    "input_output": json.dumps({"inputs": ["1 2\n", "3 4"], "outputs": ["3\n", ["7"]]}),
    "difficulty": "interview",
    "url": "https://contest.example/12",
    "starter_code": "",
}


LIVE = {
    "question_title": "A+B",
    "question_content": "Add.",
    "platform": "atcoder",
    "question_id": "abc301_a",
    "contest_id": "abc301",
    "contest_date": "2023-05-13T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "5 5\n", "output": "10\n", "testtype": "stdin"}]),
    "metadata": "{}",
}


LIVE_FUNCTION = {
    **LIVE,
    "question_id": "2849",
    "starter_code": "class Solution:\n    def total(self, xs: List[int], k: int) -> int:\n        ",
    "public_test_cases": json.dumps(
        [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
    ),
    "private_test_cases": "[]",
    "metadata": json.dumps({"func_name": "total"}),
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


def test_livecodebench(tmp_path: Path) -> None:
    found = problem(tmp_path, LIVE)
    assert (found.id, found.title, found.difficulty) == ("abc301_a", "A+B", "easy")
    assert [(t.input, t.output) for t in found.tests] == [("1 2\n", "3\n"), ("5 5\n", "10\n")]


def test_livecodebench_functions(tmp_path: Path) -> None:
    found = problem(tmp_path, LIVE_FUNCTION)
    assert found.entry_point == "total"
    assert found.tests[0].call == ([1, 2], 3)
    assert found.tests[0].expected == 6
    assert "    class Solution:" in found.statement


CASES = [{"input": "é" * 300, "output": "1", "testtype": "stdin"}]


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_string_is_read_without_unpickling(
    monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    payload = packed(pickle.dumps(json.dumps(CASES), protocol=protocol))
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    assert private_tests(payload, "x") == CASES


def test_packed_json_is_read() -> None:
    assert private_tests(packed(json.dumps(CASES).encode()), "x") == CASES
    assert private_tests(CASES, "x") == CASES


class Hostile:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (packed(pickle.dumps(Hostile())), "is not a plain string"),
        (packed(pickle.dumps(["a"])), "is not a plain string"),
        (packed(pickle.dumps(("a", "b"))), "is not a plain string"),
        (packed(pickle.dumps("[]")[:-3]), "damaged pickle|is not a plain string"),
        (packed(b"\x80\x04."), "without a string"),
        ("!!!", "neither JSON nor packed"),
        (base64.b64encode(b"plain").decode(), "neither JSON nor packed"),
    ],
)
def test_anything_else_is_refused_by_name(payload: str, message: str) -> None:
    with pytest.raises(InputError, match=f"abc: private tests: .*({message})"):
        private_tests(payload, "abc")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**LIVE, "public_test_cases": "[]", "private_test_cases": "[]"}, "has no tests"),
        ({**LIVE_FUNCTION, "metadata": "{}"}, "test types functional"),
    ],
    ids=["no tests", "no function's name"],
)
def test_a_record_that_is_no_problem_is_named(tmp_path: Path, record: Record, message: str) -> None:
    [broken] = read(tmp_path, record)
    assert isinstance(broken, InputError)
    assert message in str(broken)
