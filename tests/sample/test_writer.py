"""The samples file and its manifest: whatever happens, whole lines, each once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.manifest import Manifest, manifest_path
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.shard import Shard
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings

TASKS = ("a", "b")


def make_manifest(n: int = 3, shard: Shard | None = None, **changes: object) -> Manifest:
    prompts = [Prompt(task, 0, np.arange(3, dtype=np.int32), ("\n```",)) for task in TASKS]
    return Manifest.describe(
        prompts,
        n=n,
        settings=replace(SamplingSettings(), **changes),  # type: ignore[arg-type]
        model={"name": "tiny", "sha256": "00"},
        problems={"a": ("problems/a.yaml", "11")},
        shard=shard,
    )


def make_sample(task: str, index: int) -> Sample:
    text = f"print('{task}{index} \u2028 é')\n" * (index + 1)
    return Sample(task, index, 0, text, text, "stop", 7, -1.5, -1.25, seed=0)


def draw(path: Path, n: int = 3, stop_after: int | None = None, **options: bool) -> SampleWriter:
    """Runs the writer as the command does, with made-up samples."""
    with SampleWriter(path, **options) as writer:
        writer.begin(make_manifest(n))
        if writer.complete:
            return writer
        todo = [(t, i) for t in TASKS for i in range(n) if i not in writer.done.get(t, ())]
        for task, index in todo[:stop_after]:
            writer.write(make_sample(task, index))
        if writer.complete:
            writer.finish({"elapsed_s": 1.0})
    return writer


def lines_of(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def test_line_and_manifest(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["task_id"], line["sample_index"]) for line in lines] == [
        (task, i) for task in TASKS for i in range(3)
    ]
    sample = make_sample("a", 1)
    assert lines[1] == {
        "task_id": "a",
        "sample_index": 1,
        "prompt_variant": 0,
        "completion": sample.completion,
        "solution": sample.solution,
        "finish_reason": "stop",
        "n_tokens": 7,
        "logprob": -1.5,
        "sampled_logprob": -1.25,
        "seed": 0,
        "problem": "problems/a.yaml",
    }
    assert "problem" not in lines[3]

    record = json.loads(manifest_path(path).read_text())
    assert record["tasks"]["a"]["sha256"] == "11"
    assert record["settings"]["temperature"] == 0.8
    assert set(record["sessions"][0]["versions"]) == {
        "python",
        "hydragen-tree",
        "torch",
        "transformers",
    }
    assert record["result"] == {
        "samples": 6,
        "distinct_programs": 6,
        "tokens": 42,
        "finish_reasons": {"stop": 6},
    }


def test_resume_after_a_tear_anywhere(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    draw(whole)
    content, expected = whole.read_bytes(), lines_of(whole)
    path = tmp_path / "torn.jsonl"
    for end in range(0, len(content), 29):
        draw(path, stop_after=0, force=True)
        path.write_bytes(content[:end])
        writer = draw(path, resume=True)
        assert lines_of(path) == expected, f"torn after {end} bytes"
        assert writer.tally.samples == 6


def test_last_line_overwritten_with_zeros_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    expected = lines_of(path)
    content = path.read_bytes()
    path.write_bytes(content[:-60] + b"\0" * 60)
    draw(path, resume=True)
    assert lines_of(path) == expected


def test_n_grows_but_does_not_shrink(tmp_path: Path) -> None:
    path, longer = tmp_path / "out.jsonl", tmp_path / "longer.jsonl"
    draw(path)
    draw(path, n=5, resume=True)
    draw(longer, n=5)
    assert lines_of(path) == lines_of(longer)
    assert Manifest.read(manifest_path(path)).n == 5
    assert len(Manifest.read(manifest_path(path)).sessions) == 2
    with pytest.raises(InputError, match="n was 5, is 4"):
        draw(path, n=4, resume=True)


def test_complete_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    before = path.read_bytes(), manifest_path(path).read_bytes()
    assert draw(path, resume=True).complete
    assert (path.read_bytes(), manifest_path(path).read_bytes()) == before


def test_killed_before_the_end_figures(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    manifest = Manifest.read(manifest_path(path))
    replace(manifest, result=None).write(manifest_path(path))
    assert draw(path, resume=True).complete
    assert Manifest.read(manifest_path(path)).result == manifest.result


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (make_manifest(temperature=0.2), r"settings\.temperature was 0\.8, is 0\.2"),
        (make_manifest(seed=1), r"settings\.seed was 0, is 1"),
        (replace(make_manifest(), model={"name": "x"}), r'model\.name was "tiny", is "x".*sha256'),
        (replace(make_manifest(), tasks={"a": make_manifest().tasks["a"]}), r"tasks\.b.*absent"),
    ],
    ids=["temperature", "seed", "model", "tasks"],
)
def test_resume_refuses_another_run(tmp_path: Path, manifest: Manifest, message: str) -> None:
    path = tmp_path / "out.jsonl"
    draw(path, stop_after=2)
    path.write_bytes(path.read_bytes() + b'{"task')
    before = path.read_bytes()
    with SampleWriter(path, resume=True) as writer, pytest.raises(InputError, match=message):
        writer.begin(manifest)
    assert path.read_bytes() == before


@pytest.mark.parametrize("which", ["samples", "manifest", "both"])
def test_existing_output_is_refused(tmp_path: Path, which: str) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    if which == "samples":
        manifest_path(path).unlink()
    if which == "manifest":
        path.unlink()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"exists; resume continues it, force"):
        SampleWriter(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_resume_needs_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path, stop_after=2)
    manifest_path(path).write_text("{}")
    with pytest.raises(InputError, match="not a readable manifest"):
        draw(path, resume=True)
    manifest_path(path).unlink()
    with pytest.raises(InputError, match="cannot resume without its manifest"):
        draw(path, resume=True)


def test_resume_without_a_file_starts_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path, resume=True)
    assert len(lines_of(path)) == 6


def test_force_overwrites_only_when_the_run_begins(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    draw(path)
    before = path.read_bytes()
    SampleWriter(path, force=True).close()
    assert path.read_bytes() == before
    draw(path, n=1, force=True)
    assert len(lines_of(path)) == 2
    assert Manifest.read(manifest_path(path)).n == 1


def test_a_run_that_never_begins_leaves_nothing(tmp_path: Path) -> None:
    SampleWriter(tmp_path / "out.jsonl").close()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with SampleWriter(path) as writer:
        with pytest.raises(InputError, match="another run is writing it"):
            SampleWriter(path, force=True)
        writer.begin(make_manifest())
        writer.write(make_sample("a", 0))
    assert len(lines_of(path)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], "{broken", *lines[1:]],
        lambda lines: [*lines, lines[0]],
        lambda lines: [*lines, lines[0].replace('"a"', '"c"')],
    ],
    ids=["broken", "doubled", "foreign"],
)
def test_altered_file_is_refused(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "out.jsonl"
    draw(path, stop_after=4)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(damage(lines)) + "\n")  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"out\.jsonl:\d.*altered"):
        draw(path, resume=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "place", ["missing/out.jsonl", ".", "/proc/out.jsonl"], ids=["folder", "is-folder", "proc"]
)
def test_unwritable_output(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        SampleWriter(tmp_path / place)


def test_stream_has_no_manifest_and_no_resume() -> None:
    with pytest.raises(InputError, match="only a file can be resumed"):
        SampleWriter(Path(os.devnull), resume=True)
    with SampleWriter(Path("/dev/full")) as writer:
        writer.begin(make_manifest())
        with pytest.raises(OutputError, match="No space left on device") as caught:
            writer.write(make_sample("a", 0))
    assert "resume" not in str(caught.value)


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the file's size tears a line in the middle, as a full disk does."""
    path = tmp_path / "out.jsonl"
    draw(path)
    expected = lines_of(path)
    path.unlink()
    manifest_path(path).unlink()
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_writer as t
resource.setrlimit(resource.RLIMIT_FSIZE, ({len("".join(expected[:3])) + 40}, -1))
try:
    t.draw(t.Path({str(path)!r}))
except t.OutputError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "File too large; the 3 samples written before are intact" in ran.stdout, ran.stderr
    assert "resume" in ran.stdout
    assert path.read_text().endswith("}\n")
    assert len(lines_of(path)) == 3
    draw(path, resume=True)
    assert lines_of(path) == expected


def test_closed_pipe_is_reported_as_such(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with SampleWriter(pipe) as writer:
        writer.begin(make_manifest())
        writer.write(make_sample("a", 0))
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            writer.write(make_sample("a", 1))
