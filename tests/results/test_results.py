"""A run's files are found from any one of them, and read so that every sample counts once."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.programs import distinct_programs
from hydragen_tree.results.results import Results
from hydragen_tree.results.run_files import find_run

TASK = {"prompts": ["x"], "sha256": None, "path": "sum.yaml"}
MANIFEST: dict[str, Any] = {
    "format": "hydragen-samples/1",
    "n": 4,
    "model": {"name": "tiny", "dtype": "float32", "device": "cpu"},
    "settings": {"temperature": 0.8, "seed": 0},
    "tasks": {"sum": TASK},
    "sessions": [],
    "result": None,
}


def sample(index: int, code: str, task_id: str = "sum", **more: Any) -> dict[str, Any]:
    text = {"completion": code, "solution": code + "\n"}
    return {"task_id": task_id, "sample_index": index, **text, "n_tokens": 3, **more}


def verdict(index: int, code: str, status: str, **more: Any) -> dict[str, Any]:
    return {**sample(index, code), "verdict": status, "failed_test": None, **more}


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SAMPLES = [sample(0, "print(1)"), sample(1, "print(2)"), sample(2, "print(1)"), sample(3, "x")]
VERDICTS = [verdict(2, "print(1)", "WA", failed_test=0), verdict(1, "print(2)", "AC")]


@pytest.mark.parametrize(
    ("samples", "verdicts"),
    [
        ("samples.jsonl", "verdicts.jsonl"),
        ("easy-samples.jsonl", "easy-verdicts.jsonl"),
        ("out.jsonl", "out.verdicts.jsonl"),
        ("out.jsonl", "verdicts.jsonl"),
    ],
)
def test_either_file_leads_to_the_other(tmp_path: Path, samples: str, verdicts: str) -> None:
    of_samples = write(tmp_path / samples, SAMPLES)
    of_verdicts = write(tmp_path / verdicts, VERDICTS)
    manifest = tmp_path / f"{samples}.manifest.json"
    manifest.write_text(json.dumps(MANIFEST))
    for named in (of_samples, of_verdicts):
        found = find_run(named)
        assert (found.samples, found.verdicts) == (of_samples, of_verdicts)
        assert found.manifest == manifest
        assert found.passed_over is None


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    samples = write(tmp_path / "run" / "samples.jsonl", SAMPLES)
    assert find_run(tmp_path / "run").samples == samples
    assert find_run(tmp_path / "run").verdicts is None
    verdicts = write(tmp_path / "run" / "verdicts.jsonl", VERDICTS)
    assert find_run(tmp_path / "run").verdicts == verdicts
    samples.unlink()
    assert find_run(tmp_path / "run").samples is None
    assert [s.status for s in Results.read(tmp_path / "run").samples()] == ["WA", "AC"]


def test_verdicts_of_other_samples_are_passed_over(tmp_path: Path) -> None:
    samples = write(tmp_path / "samples.jsonl", SAMPLES)
    other = write(tmp_path / "verdicts.jsonl", [verdict(2, "print(7)", "AC")])
    found = find_run(samples)
    assert (found.verdicts, found.passed_over) == (None, other)
    assert find_run(other).samples is None


def test_every_sample_counts_once(tmp_path: Path) -> None:
    write(
        tmp_path / "verdicts.jsonl",
        [
            verdict(2, "print(1)", "IE"),
            verdict(2, "print(1)", "WA", failed_test=0),  # judged again after a resume
            verdict(2, "print(1)", "AC"),
            verdict(0, "print(1)", "IE"),
            verdict(1, "print(2)", "AC"),
        ],
    )
    samples = write(tmp_path / "samples.jsonl", [*SAMPLES, sample(3, "x")])
    with samples.open("a") as file:
        file.write('{"task_id": "sum", "sample_ind')  # the run is still being written
    results = Results.read(samples)
    read = [(judged.index, judged.status) for judged in results.samples()]
    assert read == [(2, "WA"), (1, "AC"), (0, "IE"), (3, None)]
    assert len(results.broken) == 1
    assert "cut off" in results.broken[0]
    overview = Overview.of(results.samples())
    assert overview.summary is not None
    [problem] = overview.summary.problems
    assert (problem.samples, problem.accepted, problem.infrastructure_errors) == (2, 1, 1)
    [task] = overview.tasks
    assert (task.samples, task.judged, task.accepted, task.tokens) == (4, 3, 1, 12)
    assert overview.to_json()["distinct_programs"] == 3


def test_verdicts_that_went_stale_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "verdicts.jsonl", [verdict(1, "print(2)", "AC"), verdict(0, "old", "AC")])
    results = Results.read(write(tmp_path / "samples.jsonl", SAMPLES))
    with pytest.raises(InputError, match=r"sample 0 of 'sum' was another program; judge .* again"):
        list(results.samples())


def test_samples_of_other_tools_are_paired_by_their_programs(tmp_path: Path) -> None:
    """The judge completes a bare body with its problem's beginning, and indents it."""
    body = "a = 1\nreturn a\n"
    write(tmp_path / "samples.jsonl", [{"task_id": "f", "solution": body}])
    whole = "def f():\n    a = 1\n    return a\n"
    judged = {"task_id": "f", "sample_index": 0, "solution": whole, "verdict": "AC"}
    write(tmp_path / "verdicts.jsonl", [judged])
    [found] = Results.read(tmp_path).samples()
    assert (found.status, found.program) == ("AC", whole)


def test_programs_come_by_frequency(tmp_path: Path) -> None:
    write(tmp_path / "verdicts.jsonl", VERDICTS)
    results = Results.read(write(tmp_path / "samples.jsonl", SAMPLES))
    programs = distinct_programs(results.of_task("sum"))
    assert [[s.index for s in p.samples] for p in programs] == [[0, 2], [1], [3]]
    assert [p.first.index for p in programs] == [2, 1, 3]  # the one that has a verdict speaks
    assert [p.is_accepted for p in programs] == [False, True, False]
    assert programs[0].to_json()["verdicts"] == {"WA": 1}


def test_messages_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    samples = write(tmp_path / "samples.jsonl", SAMPLES)
    results = Results.read(samples)
    with pytest.raises(InputError, match=r"samples\.jsonl: no samples of a task 'sun'; did you me"):
        results.of_task("sun")
    with pytest.raises(InputError, match=r"no sample 9: there are 4, from 0 to 3"):
        results.sample("sum", 9)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "folder").mkdir()
    for name, message in [
        ("empty.jsonl", r"empty\.jsonl: holds no samples"),
        ("folder", r"folder: holds no samples\.jsonl; name"),
        ("nowhere", r"nowhere: cannot be read: No such file.*name a samples file"),
    ]:
        with pytest.raises(InputError, match=message):
            Results.read(tmp_path / name)


def test_a_notebook_shows_a_table(tmp_path: Path) -> None:
    lines = [*SAMPLES, sample(0, "print(5)", task_id="a<b")]
    write(tmp_path / "verdicts.jsonl", VERDICTS)
    html = Results.read(write(tmp_path / "samples.jsonl", lines))._repr_html_()
    assert "<td>a&lt;b</td>" in html
    assert "5 samples of 2 problems, 1 solved, 1 of 2 judged accepted" in html


def test_samples_as_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas is no dependency: what it would be given is looked at, and what is said without it."""
    results = Results.read(write(tmp_path / "samples.jsonl", SAMPLES))
    module = types.ModuleType("pandas")
    module.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)
    assert [row["sample_index"] for row in results.to_pandas()] == [0, 1, 2, 3]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        results.to_pandas()


def test_a_name_with_half_a_character_is_shown(tmp_path: Path) -> None:
    lines = [{"task_id": "half \ud800 <b>", "solution": "print(1)"}]
    html = Results.read(write(tmp_path / "samples.jsonl", lines))._repr_html_()
    assert "<caption>1 sample of 1 problem, not judged</caption>" in html
    assert "half &lt;b&gt;" in html
    html.encode()  # as a kernel sends it; it can send no half characters
