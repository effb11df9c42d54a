"""What is read off a problem or a test is read once, not for each sample or run."""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge, limits, worker_pool
from hydragen_tree.judge.grading import Grading
from hydragen_tree.judge.limits import LimitsByTest
from hydragen_tree.judge.problem_index import ProblemIndex
from hydragen_tree.judge.verdict_file import VerdictFile
from hydragen_tree.passk.summary import Tally
from hydragen_tree.problem.types import Limits, Problem, Test

SUM = "statement: Add.\ntests: [{input: '1 2', output: '3'}]\n"
BARE = "statement: Add.\n"
PROGRAM = "print(sum(map(int, input().split())))"
SAMPLES = 20


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a problem was read as a whole: `hash` of all that it says, `case` by the judge."""
    counted: Counter[str] = Counter()
    plain_hash, case = Problem.content_hash.fget, worker_pool.Case.__init__
    assert plain_hash is not None

    def counting_hash(self: Problem) -> str:
        counted["hash"] += 1
        return str(plain_hash(self))

    def counting_case(self: worker_pool.Case, problem: Problem) -> None:
        counted["case"] += 1
        case(self, problem)

    monkeypatch.setattr(Problem, "content_hash", property(counting_hash))
    monkeypatch.setattr(worker_pool.Case, "__init__", counting_case)
    return counted


def grade(folder: Path, calls: Counter[str]) -> tuple[Grading, list[str]]:
    """Many samples of two problems: one has changed since, the other cannot be judged."""
    (folder / "sum.yaml").write_text(SUM)
    (folder / "bare.yaml").write_text(BARE)
    names = ("sum", "bare")
    lines = [
        {"task_id": name, "sample_index": index, "solution": f"{PROGRAM} # {index}"}
        for index in range(SAMPLES)
        for name in names
    ]
    samples = folder / "s.jsonl"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = {
        name: {"prompts": [], "sha256": "of another version", "path": str(folder / f"{name}.yaml")}
        for name in names
    }
    manifest = {"format": "hydragen-samples/1", "n": SAMPLES, "model": {}, "settings": {}}
    manifest |= {"tasks": tasks, "sessions": [], "result": None}
    (folder / "s.jsonl.manifest.json").write_text(json.dumps(manifest))
    said: list[str] = []
    with (
        Judge(workers=1, cache=False) as judge,
        VerdictFile(folder / "v.jsonl", Tally()) as verdicts,
    ):
        index = ProblemIndex([], samples, lambda *_: None)
        calls.clear()  # it has looked for the files, wherever a whole folder may have gone
        grading = Grading(judge, index, verdicts, None, said.append)
        lines = samples.read_bytes().splitlines(keepends=True)
        grading.run({"s.jsonl": lines}, "python", threading.Event())
        return grading, said


def test_a_problem_is_read_once_for_all_its_samples(tmp_path: Path, calls: Counter[str]) -> None:
    grading, said = grade(tmp_path, calls)
    assert grading.judged == SAMPLES
    assert grading.faults == {"samples of a problem that cannot be judged": SAMPLES}
    assert said == [
        f"{tmp_path}/sum.yaml: has changed since its samples were drawn",
        f"{tmp_path}/bare.yaml: no tests to judge with",
    ]
    assert calls == {"hash": 1, "case": 2}


def test_the_limits_of_a_test_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []

    class Json:
        @staticmethod
        def dumps(value: object) -> str:
            written.append(value)
            return json.dumps(value)

    monkeypatch.setattr(limits, "json", Json)
    long, short = Test(call=(1,), expected="x" * (5 << 20)), Test(call=(2,), expected="y")
    problem = Problem(
        id="f",
        statement="x",
        entry_point="f",
        tests=(short, long),
        limits=Limits(time_s=2, memory_mib=64, output_mib=8),
    )
    of = LimitsByTest(problem).of
    for _ in range(3):
        assert (of(0).output_bytes, of(1).output_bytes) == (8 << 20, 4 * ((5 << 20) + 2))
        assert (of(0).memory_bytes, of(0).wall_s) == (64 << 20, 8.0)
    assert written == ["y", "x" * (5 << 20)]
