"""`hydragen-eval` as real processes: results, faults, resuming."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.problem.reading import load_problem
from tests.forked import run_command

PROBLEM = """\
id: {id}
title: Sum
statement: Add the numbers.
difficulty: {difficulty}
false_accept_rate: 0.01
tests:
- {{input: "1 2\\n", output: "3\\n", sample: true}}
- {{input: "4 5\\n", output: "9\\n"}}
limits: {{time_s: 1}}
solution: |
  print(sum(map(int, input().split())))
submissions:
- {{verdict: WA, code: "print(3)"}}
"""
RIGHT = "print(sum(map(int, input().split())))"
WRONG = "print(3)"


def write_problems(folder: Path) -> None:
    """The problems `sum`, which is easy, and `total`, which is hard."""
    for name, difficulty in (("sum", "easy"), ("total", "hard")):
        text = PROBLEM.format(id=name, difficulty=difficulty)
        (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(autouse=True)
def home(own_home: Path) -> Path:
    """A home of its own, with two problems."""
    write_problems(own_home)
    return own_home


def command(entry: str, *args: str) -> list[str]:
    return [sys.executable, "-c", f"from hydragen_cli.main import {entry}; {entry}()", *args]


def evaluate(
    *args: str, lines: Sequence[Any] = (), code: int = 0
) -> tuple[list[dict[str, Any]], str]:
    """The verdicts on stdout, and what stderr says."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    ran = run_command("run_eval", *args, text=text)
    assert ran.returncode == code, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def sample(task_id: str, index: int, solution: str, **more: Any) -> dict[str, Any]:
    return {"task_id": task_id, "sample_index": index, "solution": solution, **more}


def samples(*solutions: str, task_id: str = "sum", **more: Any) -> list[dict[str, Any]]:
    return [sample(task_id, i, code, **more) for i, code in enumerate(solutions)]


def test_verdicts_are_a_superset_of_the_samples() -> None:
    given = samples(RIGHT, WRONG, "print(", prompt_variant=1, logprob=-2.5)
    verdicts, said = evaluate("-", "--problems", "sum.yaml", "-k", "1,3", lines=given)
    verdicts.sort(key=lambda verdict: verdict["sample_index"])
    for line, verdict in zip(given, verdicts, strict=True):
        assert verdict.items() >= line.items()
        assert verdict["isolation"]["holds"]
        assert verdict["difficulty"] == "easy"
        assert verdict["false_accept_rate"] == 0.01
    assert [verdict["verdict"] for verdict in verdicts] == ["AC", "WA", "CE"]
    assert [verdict["passed"] for verdict in verdicts] == [True, False, False]
    assert verdicts[1]["failed_test"] == 1
    assert "isolation: " in said
    assert "pass@3" in said
    assert "3 samples judged, 1 accepted" in said


@pytest.mark.parametrize("resumed", [False, True])
def test_doubled_lines_are_judged_once(home: Path, resumed: bool) -> None:
    """As of `cat s s`: neither n nor the interval's width may change; and it is said."""
    given = samples(RIGHT, WRONG)
    args = ("-", "--problems", "sum.yaml", "-o", "v.jsonl", "--summary", "r.json")
    if resumed:
        evaluate(*args, lines=given)
    _, said = evaluate(*args, *(["--resume"] if resumed else []), lines=given + given)
    assert "2 doubled lines left out" in said
    assert len((home / "v.jsonl").read_text().splitlines()) == 2
    result = json.loads((home / "r.json").read_text())
    assert result["doubled"] == 2
    assert [problem["samples"] for problem in result["problems"]] == [2]
    # Verdicts of an earlier version may stand there twice.
    with (home / "v.jsonl").open("a") as file:
        file.write((home / "v.jsonl").read_text())
    evaluate(*args, "--resume", lines=given)
    result = json.loads((home / "r.json").read_text())
    assert [problem["samples"] for problem in result["problems"]] == [2]


def test_another_program_under_the_same_index_is_a_fault() -> None:
    given = [sample("sum", 0, RIGHT), sample("sum", 0, WRONG)]
    verdicts, said = evaluate("-", "--problems", "sum.yaml", lines=given, code=3)
    assert [verdict["verdict"] for verdict in verdicts] == ["AC"]
    assert "line 2: sample 0 of 'sum' came before with another program" in said


def test_a_samples_file_names_its_problems(home: Path) -> None:
    given = samples(RIGHT, problem="sum.yaml") + samples(
        RIGHT, task_id="total", problem=str(home / "total.yaml")
    )
    (home / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
    verdicts, _ = evaluate("s.jsonl", "-q")
    assert [verdict["verdict"] for verdict in verdicts] == ["AC", "AC"]


def test_the_manifest_names_the_problems(home: Path) -> None:
    (home / "s.jsonl").write_text(json.dumps(sample("sum", 0, RIGHT)) + "\n")
    task = {"prompts": [], "sha256": "of another version", "path": "sum.yaml"}
    manifest = {"format": "hydragen-samples/1", "n": 1, "model": {}, "settings": {}}
    manifest |= {"tasks": {"sum": task}, "sessions": [], "result": None}
    (home / "s.jsonl.manifest.json").write_text(json.dumps(manifest))
    verdicts, said = evaluate("s.jsonl")
    assert [verdict["verdict"] for verdict in verdicts] == ["AC"]
    assert "sum.yaml: has changed since its samples were drawn" in said


def test_problems_are_found_from_the_place_of_the_samples_too(home: Path) -> None:
    """As when a run's folder was moved, or is judged from elsewhere."""
    line = {**sample("sum", 0, RIGHT), "problem": "sum.yaml"}
    place = home / "run"
    place.mkdir()
    (place / "s.jsonl").write_text(json.dumps(line) + "\n")
    (home / "sum.yaml").rename(place / "sum.yaml")
    verdicts, _ = evaluate("run/s.jsonl", "-q")
    assert [verdict["verdict"] for verdict in verdicts] == ["AC"]


@pytest.mark.parametrize("named", ["problems/sum.yaml", "absolute"])
@pytest.mark.parametrize("before", ["", "another problem of this name"])
def test_problems_are_found_where_a_whole_folder_was_moved(
    home: Path, named: str, before: str
) -> None:
    old = home / "old"
    (old / "problems").mkdir(parents=True)
    (old / "runs").mkdir()
    (home / "sum.yaml").rename(old / "problems" / "sum.yaml")
    content = load_problem(old / "problems" / "sum.yaml").content_hash
    path = str(old / "problems" / "sum.yaml") if named == "absolute" else named
    task = {"prompts": [], "sha256": content, "path": path}
    manifest = {"format": "hydragen-samples/1", "n": 1, "model": {}, "settings": {}}
    manifest |= {"tasks": {"sum": task}, "sessions": [], "result": None}
    (old / "runs" / "s.jsonl").write_text(json.dumps(sample("sum", 0, RIGHT)) + "\n")
    (old / "runs" / "s.jsonl.manifest.json").write_text(json.dumps(manifest))
    old.rename(home / "new")
    if before:
        (home / "problems").mkdir()
        text = PROBLEM.format(id="sum", difficulty="easy").replace("3\\n", "7\\n")
        (home / "problems" / "sum.yaml").write_text(text)
    verdicts, said = evaluate("new/runs/s.jsonl")
    assert [verdict["verdict"] for verdict in verdicts] == ["AC"]
    assert "has changed" not in said


def test_human_eval_and_evalplus(home: Path) -> None:
    problem = {
        "task_id": "HumanEval/0",
        "prompt": 'def total(a):\n    """Add."""\n',
        "entry_point": "total",
        "canonical_solution": "    return sum(a)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
    }
    (home / "he.jsonl").write_text(json.dumps(problem) + "\n")
    given = [
        {"task_id": "HumanEval/0", "completion": "    return sum(a)\n"},
        {"task_id": "HumanEval/0", "completion": "    return 4\n"},
        {"task_id": "HumanEval/0", "solution": "def total(a):\n    return 3\n"},
    ]
    verdicts, _ = evaluate("-", "--problems", "he.jsonl", lines=given)
    verdicts.sort(key=lambda verdict: verdict["sample_index"])
    assert [verdict["verdict"] for verdict in verdicts] == ["AC", "WA", "AC"]
    assert verdicts[0]["solution"] == problem["prompt"] + "    return sum(a)\n"


def test_faults_are_named_and_the_rest_is_judged() -> None:
    given = [
        sample("sum", 0, RIGHT),
        '{"task_id": "sum", "solut',
        {"task_id": "sum"},
        sample("unheard-of", 0, RIGHT),
        sample("missing", 0, RIGHT, problem="missing.yaml"),
        "",
        sample("sum", 1, WRONG),
    ]
    verdicts, said = evaluate("-", "--problems", "sum.yaml", lines=given, code=3)
    assert len(verdicts) == 2
    for part in (
        "line 2: not JSON",
        "line 3: sum: no code",
        "'unheard-of'",
        "missing.yaml: no such",
        "broken lines: 2",
        "samples without a problem: 2",
    ):
        assert part in said


def test_faults_beyond_the_first_are_counted() -> None:
    broken = [f"{{broken {number}" for number in range(25)]
    unknown = [sample("unheard-of", 0, RIGHT)] * 20
    given = [*broken, *unknown, sample("sum", 0, RIGHT)]
    flags = ("-", "--problems", "sum.yaml", "--summary", "s.json")
    verdicts, said = evaluate(*flags, lines=given, code=3)
    assert len(verdicts) == 1
    assert said.count("not JSON") == 10
    assert "broken lines: 25, 15 of them not named above\n" in said
    assert said.count("'unheard-of'") == 1
    assert "samples without a problem: 20\n" in said
    faults = json.loads(Path("s.json").read_text())["faults"]
    assert faults == {"broken lines": 25, "samples without a problem": 20}


def test_records_beyond_the_first_that_are_refused(home: Path) -> None:
    record = {"prompt": "", "entry_point": "f", "canonical_solution": "", "test": "f()\n"}
    right = {"task_id": "HumanEval/0", **record}
    wrong = [{"task_id": f"HumanEval/{n}", **record, "test": 5} for n in range(1, 15)]
    (home / "he.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (right, *wrong)))
    _, said = evaluate("-", "he.jsonl")
    assert said.count("; its samples cannot be judged") == 10
    assert "and 4 more records; their samples cannot be judged either" in said


def test_a_line_may_name_its_language() -> None:
    in_c = (
        '#include <stdio.h>\nint main() { int a, b; scanf("%d%d", &a, &b); printf("%d", a + b); }'
    )
    given = [
        sample("sum", 0, in_c),
        sample("sum", 1, RIGHT, language="Python"),
        sample("sum", 2, in_c, language=None),
        sample("sum", 3, in_c, language="python"),
        sample("sum", 4, RIGHT, language="cobol"),
        sample("sum", 5, RIGHT, language=5),
        sample("sum", 6, in_c, language="c++"),
    ]
    flags = ("-", "--problems", "sum.yaml", "--language", "c")
    verdicts, said = evaluate(*flags, lines=given, code=3)
    by_index = {verdict["sample_index"]: verdict["verdict"] for verdict in verdicts}
    assert by_index == {0: "AC", 1: "AC", 2: "AC", 3: "CE", 6: "AC"}
    assert "line 5: language 'cobol': expected one of python, c, c++" in said
    assert "line 6: language '5'" in said
    assert "samples in a language that cannot be judged: 2" in said


def test_a_problem_that_cannot_be_judged(home: Path) -> None:
    (home / "bare.yaml").write_text("statement: No tests.\n")
    given = [*samples(RIGHT, WRONG, task_id="bare"), sample("sum", 0, RIGHT)]
    verdicts, said = evaluate("-", "bare.yaml", "sum.yaml", "-", lines=given, code=2)
    verdicts, said = evaluate("-", "bare.yaml", "sum.yaml", lines=given, code=3)
    assert [verdict["task_id"] for verdict in verdicts] == ["sum"]
    assert said.count("bare.yaml: no tests to judge with") == 1
    assert "samples of a problem that cannot be judged: 2" in said


def test_resuming(home: Path) -> None:
    given = samples(*(f"{RIGHT}  # {i}" for i in range(6)), WRONG)
    (home / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
    args = ("s.jsonl", "--problems", "sum.yaml", "-o", "v.jsonl", "--no-cache")
    assert evaluate(*args)[0] == []
    whole = (home / "v.jsonl").read_bytes().splitlines(keepends=True)
    assert len(whole) == 7
    _, said = evaluate(*args, code=2)
    assert "--resume" in said
    (home / "v.jsonl").write_bytes(b"".join(whole[:4]) + whole[4][:50])
    _, said = evaluate(*args, "--resume", "--summary", "sum.json")
    lines = [json.loads(line) for line in (home / "v.jsonl").read_text().splitlines()]
    assert sorted(line["sample_index"] for line in lines) == list(range(7))
    assert "3 samples judged, 6 accepted, 4 judged before" in said
    summary = json.loads((home / "sum.json").read_text())
    assert summary["overall"]["samples"] == 7
    assert evaluate(*args, "--resume")[0] == []
    assert len((home / "v.jsonl").read_text().splitlines()) == 7
    given[0]["solution"] = WRONG
    (home / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
    _, said = evaluate(*args, "--resume", code=2)
    assert "other samples" in said


def test_a_checker_that_crashes_is_nobodys_wrong_answer(home: Path) -> None:
    text = (home / "sum.yaml").read_text()
    text += "checker: {type: program, source: check.py, protocol: python}\n"
    (home / "sum.yaml").write_text(text)
    (home / "check.py").write_text("def check(input, answer, output):\n    return right(output)\n")
    flags = ("-", "sum.yaml", "-o", "v.jsonl", "--summary", "s.json")
    _, said = evaluate(*flags, lines=samples(RIGHT), code=3)
    assert "sum: check.py ended with exit status 1: NameError: name 'right'" in said
    assert "infrastructure errors: 1" in said
    assert json.loads((home / "s.json").read_text())["overall"]["estimates"] == []
    (home / "check.py").write_text("def check(input, answer, output):\n    return True\n")
    evaluate(*flags, "--resume", lines=samples(RIGHT))
    lines = [json.loads(line) for line in (home / "v.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["IE", "AC"]
    assert json.loads((home / "s.json").read_text())["overall"]["samples"] == 1


def test_what_a_checker_says_stays_on_one_line(home: Path) -> None:
    with (home / "sum.yaml").open("a") as file:
        file.write("checker: {type: program, source: check.py, protocol: python}\n")
    (home / "check.py").write_text(
        "def check(input, answer, output):\n    raise ValueError('one\x1b[2J\\rtwo')\n"
    )
    _, said = evaluate("-", "sum.yaml", "-q", lines=samples(RIGHT), code=3)
    assert "ValueError: one [2J two" in said
    assert "\x1b" not in said


def test_old_verdicts_are_used_and_can_be_left_alone() -> None:
    given = samples(RIGHT)
    cached = [
        evaluate("-", "sum.yaml", *flags, lines=given)[0][0]["cached"]
        for flags in ((), (), ("--no-cache",))
    ]
    assert cached == [False, True, False]


def test_until_solved() -> None:
    given = samples(*(f"{RIGHT}\n# {i}" for i in range(400)))
    flags = ("-", "sum.yaml", "--until-solved", "2", "--summary", "s.json", "--workers", "1")
    verdicts, said = evaluate(*flags, lines=given)
    assert 2 <= len(verdicts) < 100
    assert all(verdict["until_solved"] for verdict in verdicts)
    assert "passed over" in said
    summary = json.loads(Path("s.json").read_text())
    assert summary["problems"][0]["until_solved"]
    assert summary["overall"]["estimates"] == []
    assert summary["passed_over"] + len(verdicts) == 400


def test_summary_and_plot(home: Path) -> None:
    given = samples(RIGHT, WRONG, RIGHT) + samples(WRONG, WRONG, RIGHT, task_id="total")
    flags = ("--summary", "s.json", "--plot", "curve.svg", "-k", "1,2,50", "-q")
    evaluate("-", "sum.yaml", "total.yaml", *flags, lines=given)
    summary = json.loads((home / "s.json").read_text())
    estimates = {e["k"]: e["value"] for e in summary["overall"]["estimates"]}
    assert estimates == pytest.approx({1: 0.5, 2: 5 / 6, 3: 1})
    assert [k for k, _ in summary["overall"]["refused"]] == [50]
    assert set(summary["by_difficulty"]) == {"easy", "hard"}
    assert summary["overall"]["rated"] == 2
    assert summary["overall"]["estimates"][0]["by_false_accepts"] == pytest.approx(0.01)
    assert summary["isolation"]["attempts"]["udp out"]["stopped"]
    assert (home / "curve.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl: cannot be read"),
        (("-", "--problems", "nowhere"), "nowhere"),
        (("-", "-k", "0"), "-k 0"),
        (("-", "-k", "a,b"), "-k a,b"),
        (("-", "--plot", "x.gif"), "--plot x.gif"),
        (("-", "--plot", "x.png", "--until-solved", "1"), "no estimate is made"),
        (("-", "--summary", "no/such/dir/s.json"), "--summary"),
        (("-", "-o", "no/such/dir/v.jsonl"), "cannot be written"),
        (("sum.yaml", "-o", "./sum.yaml", "--force"), "is the file of the samples"),
        (("-", "--resume"), "--resume"),
        (("-", "--sandbox", "castle"), "castle"),
        (("-", "--sandbox", "rlimits"), "--unsandboxed"),
        (("-", "--workers", "0"), "--workers 0"),
        (("-", "--language", "cobol"), "cobol"),
        (("samples.jsonl.gz",), "zcat samples.jsonl.gz | hydragen-eval -"),
    ],
)
def test_bad_usage(args: tuple[str, ...], message: str) -> None:
    _, said = evaluate(*args, code=2)
    assert message in said


def test_unsandboxed_says_so() -> None:
    verdicts, said = evaluate("-", "sum.yaml", "--unsandboxed", lines=samples(RIGHT))
    assert verdicts[0]["isolation"] == {"level": "rlimits", "holds": False}
    assert "OPEN" in said


def test_nothing_to_judge() -> None:
    assert evaluate("-", "sum.yaml")[0] == []
