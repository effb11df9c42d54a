"""Two runs side by side: problems won and lost, settings, and where samples part."""

import json
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.compare import _signed
from hydragen_cli.program import load
from hydragen_tree.results.comparison import Comparison, compare_runs
from hydragen_tree.results.results import Results
from tests.results.test_results import MANIFEST, TASK, write

TASKS = ("sum", "total", "other")


def write_run(
    folder: Path,
    accepted: dict[str, int],
    n: int = 20,
    texts: dict[tuple[str, int], str] | None = None,
    ids: dict[int, list[int]] | None = None,
    **changes: Any,
) -> Path:
    """A judged run with n samples of each task, the first of them accepted."""
    lines = []
    for task_id, right in accepted.items():
        for index in range(n):
            text = (texts or {}).get((task_id, index), f"print({index})")
            line = {"task_id": task_id, "sample_index": index, "completion": text}
            line |= {"solution": text, "verdict": "AC" if index < right else "WA"}
            if ids is not None:
                line["token_ids"] = ids.get(index, [1, 2, 3])
            lines.append(line)
    write(folder / "verdicts.jsonl", lines)
    samples = write(folder / "samples.jsonl", [{**line, "verdict": None} for line in lines])
    samples.write_text(samples.read_text().replace(', "verdict": null', ""))
    manifest = {**MANIFEST, "n": n, "tasks": dict.fromkeys(accepted, TASK), **changes}
    (folder / "samples.jsonl.manifest.json").write_text(json.dumps(manifest))
    return folder


def compared(first: Path, second: Path, *ks: int) -> Comparison:
    return compare_runs(Results.read(first), Results.read(second), ks)


def test_problems_are_paired_and_counted(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"sum": 0, "total": 18, "other": 5, "old": 1})
    second = write_run(tmp_path / "b", {"sum": 15, "total": 17, "other": 5, "new": 1}, n=30)
    found = compared(first, second, 7, 25)
    assert [problem.task_id for problem in found.problems] == ["sum", "total", "other"]
    assert [problem.is_clear for problem in found.problems] == [True, True, False]
    assert [problem.task_id for problem in found.won] == ["sum"]
    assert [problem.task_id for problem in found.lost] == ["total", "other"]
    assert found.solved_by_one == ([], ["sum"])
    assert (found.only_first, found.only_second) == (("old",), ("new",))
    assert 7 in [difference.k for difference in found.pass_at_k]
    assert found.refused == ((25, "other has only 20 samples in one of the runs"),)
    [at_1] = [difference for difference in found.pass_at_k if difference.k == 1]
    assert at_1.value == pytest.approx((15 / 30 + 17 / 30 + 5 / 30 - 23 / 20) / 3)


def test_equal_settings_say_where_samples_part(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"sum": 1, "total": 1})
    texts = {("sum", 3): "print(x)", ("total", 9): "printer"}
    other = {**MANIFEST["model"], "dtype": "bfloat16"}
    second = write_run(tmp_path / "b", {"sum": 1, "total": 1}, texts=texts, model=other)
    found = compared(first, second)
    assert found.settings is not None
    assert found.settings.settings == (("model.dtype", '"float32"', '"bfloat16"'),)
    partings = found.partings
    assert partings is not None
    assert (partings.compared, partings.equal, partings.looked_at) == (40, 38, 2)
    one = partings.earliest
    assert one is not None
    assert (one.task_id, one.sample_index, one.unit, one.position) == ("total", 9, "character", 5)
    assert (one.before, one.first, one.second) == ("print", "(9)", "er")
    assert partings.median_position == 6


def test_token_ids_are_compared_where_both_have_them(tmp_path: Path) -> None:
    texts = {("sum", 3): "print(x)"}
    first = write_run(tmp_path / "a", {"sum": 1}, ids={3: [1, 2, 9, 4]})
    second = write_run(tmp_path / "b", {"sum": 1}, texts=texts, ids={3: [1, 2, 7, 4]})
    partings = compared(first, second).partings
    assert partings is not None
    assert partings.earliest is not None
    assert (partings.earliest.unit, partings.earliest.position) == ("token", 2)
    assert (partings.earliest.first, partings.earliest.second) == ("9 4", "7 4")
    assert partings.earliest.logprobs is None


def test_log_probabilities_of_the_tokens_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in "ab"]
    for run, last in zip(runs, (9, 7), strict=True):
        write_run(run, {"sum": 1}, texts={("sum", 3): f"print({last})"}, ids={3: [1, 2, last]})
        for file in run.glob("*.jsonl"):
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            write(file, [{**line, "token_logprobs": [-0.5, -0.25, -last / 8]} for line in lines])
    partings = compared(*runs).partings
    assert partings is not None
    assert partings.earliest is not None
    assert partings.earliest.logprobs == (-1.125, -0.875)
    load("compare").main([str(run) for run in runs], standalone_mode=False)
    assert "(log-probabilities -1.125 and -0.875)" in " ".join(capsys.readouterr().out.split())


def test_other_settings_are_not_meant_to_agree(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"sum": 1})
    second = write_run(
        tmp_path / "b",
        {"sum": 1},
        settings={"temperature": 0.4, "seed": 0},
        tasks={"sum": {**TASK, "sha256": "abc", "prompts": ["y"]}},
    )
    found = compared(first, second)
    assert found.partings is None
    assert found.why_no_partings == "settings.temperature differs: 0.8, 0.4"
    assert found.settings is not None
    assert found.settings.problems == ("sum",)


def test_the_rule_that_ends_problems_is_a_setting(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"sum": 3, "total": 9})
    second = write_run(tmp_path / "b", {"sum": 3, "total": 9}, stopping={"until_solved": 2})
    found = compared(first, second)
    assert found.settings is not None
    assert found.settings.settings == (("stopping", "none", "until_solved 2"),)
    assert found.partings is not None  # the samples are the same ones, however many there are


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1e-16, "+0.000"), (-0.0004, "+0.000"), (-0.0006, "-0.001"), (1, "+1.000")],
)
def test_nothing_has_no_minus(value: float, shown: str) -> None:
    assert _signed(value) == shown


def test_the_command_prints_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    first = str(write_run(tmp_path / "a", {"sum": 0, "total": 9}))
    second = str(write_run(tmp_path / "b", {"sum": 15, "total": 9}))
    load("compare").main([first, second], standalone_mode=False)
    text = capsys.readouterr().out
    assert "settings and versions are the same" in text
    assert "B solves more of 1 problem (1 clearly), less of 0 (0 clearly), as much of 1" in text
    assert "solved by B alone: sum" in text
    assert "40 of 40 in both are the same" in text
    load("compare").main([first, second, "--json"], standalone_mode=False)
    record = json.loads(capsys.readouterr().out)
    assert record["won"] == record["solved_by_second_only"] == ["sum"]
    assert record["partings"]["equal"] == 40
    (Path(first) / "verdicts.jsonl").unlink()
    load("compare").main([first, second], standalone_mode=False)
    assert "no problem is judged in both" in capsys.readouterr().out
