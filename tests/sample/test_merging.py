"""Parts of a run joined: each sample once, and nothing joined that does not belong together."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.errors import InputError
from hydragen_tree.sample.manifest import Manifest, manifest_path
from hydragen_tree.sample.merging import Merging
from hydragen_tree.sample.shard import Shard
from hydragen_tree.sample.writer import SampleWriter
from tests.sample.test_writer import draw, lines_of, make_manifest, make_sample


def write_part(path: Path, shard: Shard | None, n: int = 3, **changes: object) -> Path:
    """A part of the run with two tasks, as the command writes it, with made-up samples."""
    with SampleWriter(path) as writer:
        writer.begin(make_manifest(n, shard, **changes))
        for task, indices in writer.manifest.ranges().items():
            for index in indices:
                writer.write(make_sample(task, index))
        writer.finish({"elapsed_s": 1.0})
    return path


def shards(folder: Path, of: int, n: int = 3) -> list[Path]:
    return [write_part(folder / f"{i}-{of}-{n}.jsonl", Shard(i, of), n) for i in range(1, of + 1)]


def merge(*paths: Path) -> list[str]:
    with Merging(paths) as merging:
        return sorted(line.decode().rstrip("\n") for line in merging.lines())


def alter(path: Path, number: int, **values: object) -> None:
    """Changes a line, counted from 0."""
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    path.write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize("of", [1, 2, 3, 4, 6])
def test_shards_are_the_whole_run(tmp_path: Path, of: int) -> None:
    whole = tmp_path / "whole.jsonl"
    draw(whole)
    with Merging(shards(tmp_path, of)) as merging:
        assert sorted(line.decode().rstrip("\n") for line in merging.lines()) == lines_of(whole)
        assert (merging.n_missing, merging.doubled, [*merging.gaps()]) == (0, 0, [])
    expected = Manifest.read(manifest_path(whole))
    assert replace(merging.manifest, sessions=()) == replace(expected, sessions=())
    assert len(merging.manifest.sessions) == of
    if of > 1:
        assert merging.manifest.sessions[-1]["shard"]["of"] == of


@given(data=st.data())
def test_any_parts_that_overlap(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each sample is written once, and those that are missing are those that no part has."""
    folder = tmp_path_factory.mktemp("parts")
    ranges = data.draw(
        st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=4)
    )
    paths, held = [], []
    for number, (one, other) in enumerate(ranges):
        first, last = sorted((one, other))
        paths.append(write_part(folder / f"{number}.jsonl", Shard(1, 1, first, last), 8))
        held += range(first, last + 1)
    with Merging(paths) as merging:
        found = [json.loads(line) for line in merging.lines()]
        gaps = [*merging.gaps()]
    names = [(line["task_id"], line["sample_index"]) for line in found]
    assert sorted(names) == [(task, i) for task in "ab" for i in sorted(set(held))]
    assert merging.doubled == 2 * (len(held) - len(set(held)))
    assert merging.n_missing == 2 * (8 - len(set(held)))
    missing = []
    for gap in gaps:
        task, first, *last = gap.replace(" to ", " ").split()
        stop = int(last[0]) if last else int(first)
        missing += [(task.strip("'"), i) for i in range(int(first), stop + 1)]
    assert sorted(missing + names) == [(task, i) for task in "ab" for i in range(8)]


def test_a_merged_file_is_a_part_like_any_other(tmp_path: Path) -> None:
    first, second, third = shards(tmp_path, 3)
    half = tmp_path / "half.jsonl"
    with Merging([first, third]) as merging:
        assert [*merging.gaps()] == ["'a' 2", "'b' 0"]
        assert merging.manifest.result is None
        half.write_bytes(b"".join(merging.lines()))
        merging.manifest.write(manifest_path(half))
    with Merging([half, second, third]) as merging:
        assert (merging.n_missing, merging.doubled) == (0, 2)
        assert len(merging.manifest.sessions) == 3  # each once, though two files tell of one
    with SampleWriter(half, resume=True) as writer:
        writer.begin(make_manifest())
        assert writer.done == {"a": {0, 1}, "b": {1, 2}}


def test_doubles_that_differ_are_named(tmp_path: Path) -> None:
    """Log-probabilities may differ in their last digits, and machines may know other paths."""
    one, other = shards(tmp_path, 1)[0], write_part(tmp_path / "b.jsonl", Shard(last=1))
    alter(other, 1, logprob=-1.50001, sampled_logprob=-1.25001, problem="elsewhere/a.yaml")
    assert len(merge(one, other)) == 6
    alter(other, 1, completion="another", n_tokens=8)
    with pytest.raises(InputError) as caught:
        merge(one, other)
    assert str(caught.value) == (
        f"sample 1 of 'a' is one in {one} and another in {other}: they differ in completion, "
        "n_tokens"
    )


def test_doubles_within_one_file(tmp_path: Path) -> None:
    (path,) = shards(tmp_path, 1)
    path.write_bytes(path.read_bytes() * 2)
    with Merging([path]) as merging:
        assert merging.doubled == 6
        assert len([*merging.lines()]) == 6


def test_a_torn_last_line_is_a_gap(tmp_path: Path) -> None:
    first, second, third = shards(tmp_path, 3)
    whole = second.read_bytes()
    for cut in (1, 2, 40):
        second.write_bytes(whole[:-cut])
        with Merging([first, second, third]) as merging:
            assert merging.torn == [second]
            assert [*merging.gaps()] == ["'b' 0"]
            assert b"".join(merging.lines()).count(b"\n") == 5
    second.write_bytes(whole.replace(b'"task_id"', b'"task"', 1))
    with pytest.raises(InputError, match=r"2-3-3.jsonl:1: not a sample; was the file altered"):
        merge(first, second, third)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "settings.seed is 0 in {a}, 1 in {b}"),
        (
            {"temperature": 0.5, "top_k": 4},
            "settings.temperature is 0.8 in {a}, 0.5 in {b}, settings.top_k is 0",
        ),
        ({"n": 4}, "n is 3 in {a}, 4 in {b}"),
    ],
)
def test_parts_of_different_runs(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    one = write_part(tmp_path / "a.jsonl", Shard(1, 2))
    other = write_part(tmp_path / "b.jsonl", Shard(2, 2), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        merge(one, other)
    assert f"{one} and {other} are of different runs: " in str(caught.value)
    assert message.format(a=one, b=other) in str(caught.value)


def test_a_task_that_was_changed_between(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    record = json.loads(manifest_path(other).read_text())
    record["tasks"]["a"]["sha256"] = "22"
    manifest_path(other).write_text(json.dumps(record))
    with pytest.raises(InputError, match=r'tasks.a.sha256 is "11" in .*, "22" in '):
        merge(one, other)


def test_a_line_of_another_shard(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    other.write_bytes(other.read_bytes() + one.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(InputError, match=r"2-2-3.jsonl:4: sample 0 of 'a' is not one of those"):
        merge(one, other)


def test_what_is_no_part(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    link = tmp_path / "link.jsonl"
    link.symlink_to(one)
    manifest_path(link).symlink_to(manifest_path(one))
    for paths, message in [
        ([one, one], f"{one}: is the same file as {one}"),
        ([one, link], f"{link}: is the same file as {one}"),
        ([one, tmp_path / "none.jsonl"], "none.jsonl: cannot be read: No such file"),
        ([one, tmp_path], "is not a file; parts of a run have manifests"),
        ([Path("-"), one], "-: is not a file"),
        ([Path("a.jsonl.gz"), one], "a.jsonl.gz: is compressed; unpack it first"),
    ]:
        with pytest.raises(InputError) as caught:
            merge(*paths)
        assert message in str(caught.value)
    manifest_path(other).unlink()
    with pytest.raises(InputError, match=r"no manifest .*2-2-3.jsonl.manifest.json says"):
        merge(one, other)
    manifest_path(other).write_text("{")
    with pytest.raises(InputError, match="not a readable manifest"):
        merge(one, other)


def test_a_part_that_is_being_written(tmp_path: Path) -> None:
    one, other = shards(tmp_path, 2)
    program = (
        "import sys; from pathlib import Path\n"
        "from hydragen_tree.sample.writer import SampleWriter\n"
        "writer = SampleWriter(Path(sys.argv[1]), resume=True); print(flush=True); sys.stdin.read()"
    )
    given = [sys.executable, "-c", program, str(other)]
    with subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(InputError, match=r"2-2-3.jsonl: a run is still writing it"):
            merge(one, other)
        process.communicate(b"")
    assert len(merge(one, other)) == 6
