"""Other people's problems all the way through the commands, with the model that ships."""

import json
from pathlib import Path

import pytest

from tests.forked import output_of

HUMAN_EVAL = {
    "task_id": "HumanEval/53",
    "prompt": 'def add(x: int, y: int):\n    """Add x and y."""\n',
    "entry_point": "add",
    "canonical_solution": "    return x + y\n",
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
}
PACKAGE = {
    "problem.yaml": "problem_format_version: 2025-09\nname: Shout\nuuid: x\n",
    "statement/problem.en.md": "Print the line in capital letters.\n",
    "data/sample/1.in": "abc\n",
    "data/sample/1.ans": "ABC\n",
    "data/secret/1.in": "x y\n",
    "data/secret/1.ans": "X Y\n",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in PACKAGE.items():
        path = tmp_path / "shout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "tasks.jsonl").write_text(json.dumps(HUMAN_EVAL) + "\n")
    return tmp_path


def test_a_package_and_an_imported_task_are_sampled_judged_and_exported(home: Path) -> None:
    output_of(home, "import", "tasks.jsonl", "-o", "native")
    given = ["shout", "native/humaneval-53.yaml"]
    output_of(home, "sample", *given, "-n", "3", "--max-tokens", "16", "-o", "s.jsonl")
    verdicts = [json.loads(line) for line in output_of(home, "eval", "s.jsonl").splitlines()]
    assert sorted(v["task_id"] for v in verdicts) == ["HumanEval/53"] * 3 + ["shout"] * 3
    assert all(v["verdict"] in ("AC", "WA", "RE", "CE", "TLE") for v in verdicts)
    lines = output_of(home, "export", "s.jsonl", "--format", "human-eval").splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"task_id", "completion"}] * 6


def test_human_evals_samples_are_judged_with_its_own_file(home: Path) -> None:
    completions = [HUMAN_EVAL["canonical_solution"], "    return x - y\n"]
    samples = [{"task_id": "HumanEval/53", "completion": text} for text in completions]
    (home / "s.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    out = output_of(home, "eval", "s.jsonl", "--problems", "tasks.jsonl")
    found = {v["sample_index"]: v["verdict"] for v in map(json.loads, out.splitlines())}
    assert found == {0: "AC", 1: "WA"}
