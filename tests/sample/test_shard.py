"""Shards: every sample of a run in exactly one, whatever the run and the cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.errors import InputError
from hydragen_tree.sample.manifest import Manifest, manifest_path
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Shard
from hydragen_tree.sample.writer import SampleWriter
from tests.sample.test_sampler import SETTINGS, prompts
from tests.sample.test_writer import make_manifest, make_sample

TASKS = st.lists(st.text(max_size=5), min_size=1, max_size=12, unique=True)


@given(tasks=TASKS, n=st.integers(1, 30), data=st.data())
def test_every_sample_is_in_exactly_one_shard(
    tasks: list[str], n: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first, n - 1))
    total = len(tasks) * (last + 1 - first)
    of = data.draw(st.integers(1, total))
    drawn: list[tuple[str, int]] = []
    sizes = []
    for number in range(1, of + 1):
        ranges = Shard(number, of, first, last).ranges(tasks, n)
        part = [(task, i) for task, indices in ranges.items() for i in indices]
        assert all(ranges.values())
        drawn += part
        sizes.append(len(part))
    # In order, without a gap or a double: so each part is contiguous, too.
    assert drawn == [(task, i) for task in sorted(tasks) for i in range(first, last + 1)]
    assert max(sizes) - min(sizes) <= 1


@given(tasks=TASKS, n=st.integers(1, 30), data=st.data())
def test_the_order_of_the_problems_does_not_matter(
    tasks: list[str], n: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(tasks))
    of = data.draw(st.integers(1, len(tasks) * n))
    shard = Shard(data.draw(st.integers(1, of)), of)
    assert shard.ranges([*shuffled, *tasks], n) == shard.ranges(tasks, n)


@pytest.mark.parametrize(
    ("text", "first", "last", "message"),
    [
        ("0/4", None, None, "shard 0/4: expected I/K"),
        ("5/4", None, None, "shard 5/4: expected I/K"),
        ("1/0", None, None, "shard 1/0: expected I/K"),
        ("a/b", None, None, "shard a/b: expected I/K"),
        ("2", None, None, "shard 2: expected I/K"),
        ("-1/4", None, None, "shard -1/4: expected I/K"),
        ("1/4/2", None, None, "shard 1/4/2: expected I/K"),
        ("٢/٤", None, None, "expected I/K"),
        ("", None, None, "expected I/K"),
        ("2/7", None, None, "shard 2/7: expected at most 6 shards, as the run has 6 samples"),
        ("2/3", 1, 1, "shard 2/3: expected at most 2 shards, as the run has 2 samples"),
        (None, -1, None, "first -1: expected an integer >= 0"),
        (None, 3, None, "first 3: expected at most 2: with n = 3 samples are numbered 0 to 2"),
        (None, None, 3, "last 3: expected at most 2"),
        (None, 2, 1, "last 1: expected at least 2, the first sample"),
    ],
)
def test_what_is_no_shard(text: str | None, first: int, last: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Shard.parse(text, first, last).ranges(["a", "b"], 3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        (Shard.parse("2/4"), "2/4 of samples 0 to 9"),
        (Shard.parse(None, 3), "samples 3 to 9"),
        (Shard.parse(" 1/2 ", 3, 4), "1/2 of samples 3 to 4"),
        (Shard.parse(None, 0, 9), "None"),
        (Shard.parse("1/1"), "None"),
    ],
)
def test_all_of_a_run_is_no_shard(shard: Shard, said: str) -> None:
    assert str(shard.within(10)) == said


def test_shards_draw_the_samples_of_the_whole_run(random_model: Path) -> None:
    """Few-shot variants, random numbers and texts do not depend on where the run is cut."""

    def draw(shard: Shard | None) -> dict[tuple[str, int], Sample]:
        sampler = Sampler.from_pretrained(str(random_model))
        samples = list(sampler.sample(prompts(), 24, SETTINGS, shard=shard))
        assert sampler.stats.samples_total == len(samples)
        return {(sample.task_id, sample.sample_index): sample for sample in samples}

    whole = draw(None)
    parts = [draw(Shard(number, 5)) for number in range(1, 6)]
    assert [len(part) for part in parts] == [14, 14, 15, 14, 15]
    assert sorted(name for part in parts for name in part) == sorted(whole)
    for part in [*parts, draw(Shard(first=7, last=8))]:
        for name, sample in part.items():
            assert sample.token_ids == whole[name].token_ids
            assert sample.prompt_variant == whole[name].prompt_variant
            assert sample.logprob == pytest.approx(whole[name].logprob, abs=1e-2)


def test_a_shard_holds_the_prompts_of_its_own_problems(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    outline = sampler.outline(prompts(), 24, Shard(5, 5))
    assert [prompt.task_id for prompt in outline.prompts] == ["c"]
    assert outline.rows == 15


def test_too_many_samples_for_one_process_are_some_for_several(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model))
    with pytest.raises(
        InputError, match="at most 10000000 samples in one process, these are 30000000"
    ):
        sampler.check(prompts(), SETTINGS, 10_000_000)
    sampler.check(prompts(), SETTINGS, 10_000_000, Shard(2, 3))


def test_the_manifest_of_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    shard = Shard(2, 4)  # of six samples: a 1 and a 2
    with SampleWriter(path) as writer:
        writer.begin(make_manifest(shard=shard))
        assert writer.manifest.ranges() == {"a": range(1, 3)}
        writer.write(make_sample("a", 1))
        assert not writer.complete
    record = json.loads(manifest_path(path).read_text())
    assert record["shard"] == {"number": 2, "of": 4, "first": 0, "last": 2}
    assert record["n"] == 3
    for changed, message in [
        (make_manifest(shard=Shard(3, 4)), "the shard was 2/4 of samples 0 to 2, is 3/4 of"),
        (make_manifest(), "the shard was 2/4 of samples 0 to 2, is all of them"),
        (make_manifest(4, shard=Shard(2, 4, last=2)), "n was 3, is 4 .of a shard it stays"),
    ]:
        with SampleWriter(path, resume=True) as writer, pytest.raises(InputError, match=message):
            writer.begin(changed)
    with SampleWriter(path, resume=True) as writer:
        writer.begin(make_manifest(shard=shard))
        assert writer.done == {"a": {1}}
        writer.write(make_sample("a", 2))
        assert writer.complete
        writer.finish({})
    assert Manifest.read(manifest_path(path)).shard == Shard(2, 4, 0, 2)


def test_a_line_of_another_shard_is_not_of_this_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with SampleWriter(path) as writer:
        writer.begin(make_manifest(shard=Shard(2, 4)))
        writer.write(make_sample("a", 0))
    with SampleWriter(path, resume=True) as writer, pytest.raises(InputError, match="not of this"):
        writer.begin(make_manifest(shard=Shard(2, 4)))


def test_a_run_without_shards_says_nothing_of_them(tmp_path: Path) -> None:
    manifest = make_manifest(shard=Shard(1, 1, 0, 2))
    manifest.write(tmp_path / "m.json")
    assert "shard" not in json.loads((tmp_path / "m.json").read_text())


def test_a_manifest_with_a_shard_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for broken in ({"number": 5, "of": 4}, {"number": "1", "of": 4}, {"part": 1}, [1, 4]):
        make_manifest().write(path)
        record = json.loads(path.read_text()) | {"shard": broken}
        path.write_text(json.dumps(record))
        with pytest.raises(InputError, match="not a readable manifest"):
            Manifest.read(path)
