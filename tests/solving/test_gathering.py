"""Problems of any kind, imported into a run's folder where need be."""

import json
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.solving.gathering import gather
from tests.judge.test_eval import write_problems

RECORDS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add_{number}(a, b):\n    """The sum of a and b."""\n',
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "entry_point": f"add_{number}",
    }
    for number in range(2)
]


def write_set(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_files_of_ours_are_read_where_they_lie(own_home: Path) -> None:
    write_problems(own_home)
    gathered = gather(["sum.yaml", "total.yaml"], own_home / "run" / "problems")
    assert [problem.source for problem in gathered.problems] == ["sum.yaml", "total.yaml"]
    assert not (own_home / "run").exists()


def test_a_data_set_is_imported_once(own_home: Path) -> None:
    write_problems(own_home)
    write_set(own_home / "HumanEval.jsonl", [*RECORDS, {"of": "no known kind"}])
    imported = own_home / "run" / "problems"
    gathered = gather(["sum.yaml", "HumanEval.jsonl"], imported)
    assert [problem.id for problem in gathered.problems] == ["sum", "HumanEval/0", "HumanEval/1"]
    (refusal,) = gathered.refused
    assert "HumanEval.jsonl:3" in refusal
    assert [path.name for path in imported.parent.iterdir()] == ["problems"]
    before = {path: path.stat().st_mtime_ns for path in imported.iterdir()}
    assert gather(["sum.yaml", "HumanEval.jsonl"], imported).problems == gathered.problems
    assert {path: path.stat().st_mtime_ns for path in imported.iterdir()} == before


def test_a_data_set_that_has_changed_is_another_run(own_home: Path) -> None:
    imported = own_home / "run" / "problems"
    write_set(own_home / "set.jsonl", RECORDS)
    gather(["set.jsonl"], imported)
    write_set(own_home / "set.jsonl", [RECORDS[0], {**RECORDS[1], "test": RECORDS[1]["test"] * 2}])
    with pytest.raises(InputError, match=r"not what the sources hold now \(HumanEval/1\)"):
        gather(["set.jsonl"], imported)
    gather(["set.jsonl"], imported, force=True)
    assert [path.name for path in imported.parent.iterdir()] == ["problems"]


def test_a_folder_of_data_sets_is_imported_whole(own_home: Path) -> None:
    (own_home / "sets").mkdir()
    write_set(own_home / "sets" / "one.jsonl", RECORDS[:1])
    write_set(own_home / "sets" / "two.jsonl", RECORDS[1:])
    found = gather(["sets"], own_home / "run" / "problems").problems
    assert [problem.id for problem in found] == ["HumanEval/0", "HumanEval/1"]


def test_nothing_in_it(own_home: Path) -> None:
    (own_home / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="nothing was imported"):
        gather(["empty.jsonl"], own_home / "run" / "problems")
    assert not [*(own_home / "run").iterdir()]
