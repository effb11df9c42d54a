"""Real processes draw what one draws, and go on when one of them is killed."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hydragen_tree.errors import CapacityError, HydragenError, InputError
from hydragen_tree.run import run
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Shard
from hydragen_tree.spread.devices import device_crew, find_devices
from hydragen_tree.spread.processes import ProcessCrew
from hydragen_tree.spread.spread_sampler import SpreadSampler
from tests.sample.test_sampler import SETTINGS, prompts
from tests.spread.exhausting import exhausting

Drawn = dict[tuple[str, int], Sample]
N = 40


@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Sampler:
    return Sampler.from_pretrained(str(random_model), max_rows=8)


@pytest.fixture(scope="module")
def whole(sampler: Sampler) -> Drawn:
    return by_name(sampler.sample(prompts(), N, SETTINGS))


def spread_over(sampler: Sampler, devices: str) -> tuple[SpreadSampler, ProcessCrew, list[str]]:
    said: list[str] = []
    crew = device_crew(sampler, find_devices(devices))
    return SpreadSampler(sampler, crew, said.append), crew, said


def load_all(spread: SpreadSampler) -> None:
    """Small runs, until every process has loaded its model."""
    while True:
        assert len(list(spread.sample(prompts(), 1, SETTINGS))) == 3
        if all(worker.doing != "loading" for worker in spread.workers):
            return


def by_name(samples: Iterator[Sample]) -> Drawn:
    listed = list(samples)
    found = {(sample.task_id, sample.sample_index): sample for sample in listed}
    assert len(found) == len(listed)
    return found


def assert_same(drawn: Drawn, whole: Drawn) -> None:
    assert drawn.keys() == whole.keys()
    for name, sample in drawn.items():
        assert sample.token_ids == whole[name].token_ids
        assert sample.completion == whole[name].completion
        assert sample.logprob == pytest.approx(whole[name].logprob, abs=1e-2)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processes_draw_what_one_does(sampler: Sampler, whole: Drawn) -> None:
    spread, crew, said = spread_over(sampler, "cpu,cpu")
    with spread:
        load_all(spread)
        assert_same(by_name(spread.sample(prompts(), N, SETTINGS)), whole)
        first = crew.pids
        assert spread.stats.samples_done == spread.stats.samples_total == 3 * N
        assert all(worker.stats.samples_done for worker in spread.workers)
        assert spread.stats.tokens_sampled == sum(s.n_tokens for s in whole.values())

        # A part of a run, and without what is there; the processes are the same.
        done = {"a": set(range(0, N, 3)), "b": set(range(N))}
        shard = Shard(first=2, last=30)
        some = by_name(spread.sample(prompts(), N, SETTINGS, done=done, shard=shard))
        expected = {
            n: s for n, s in whole.items() if 2 <= n[1] <= 30 and n[1] not in done.get(n[0], ())
        }
        assert_same(some, expected)
        assert crew.pids == first

        # A run that is given up leaves nothing for the next one.
        samples = spread.sample(prompts(), N, SETTINGS)
        next(samples)
        samples.close()
        assert not any(map(is_alive, first))
    assert said == []


@pytest.mark.usefixtures("forked_workers")
def test_killed_processes(sampler: Sampler, whole: Drawn) -> None:
    spread, crew, said = spread_over(sampler, "cpu,cpu")
    with spread:
        load_all(spread)
        samples = spread.sample(prompts(), N, SETTINGS)
        drawn = [next(samples)]
        while spread.workers[1].doing != "drawing":
            drawn.append(next(samples))
        os.kill(crew.pids[1], signal.SIGKILL)
        assert_same(by_name(iter([*drawn, *samples])), whole)
        assert len(said) == 1
        assert said[0].startswith("cpu 2: killed by SIGKILL")
        assert "the others draw its" in said[0]
        assert [worker.doing for worker in spread.workers] == ["waiting", "lost"]

        # The next run has all of them again, and fails with the last.
        samples = spread.sample(prompts(), N, SETTINGS)
        next(samples)
        os.kill(crew.pids[0], signal.SIGTERM)
        os.kill(crew.pids[1], signal.SIGKILL)
        with pytest.raises(HydragenError, match=r"cpu 1: killed by SIGTERM.*are intact"):
            list(samples)


@pytest.mark.usefixtures("forked_workers")
def test_a_device_out_of_memory(sampler: Sampler, whole: Drawn) -> None:
    def spread_with(*short: str) -> SpreadSampler:
        makers = device_crew(sampler, find_devices("cpu,cpu"))._makers
        crew = ProcessCrew(
            {
                name: [partial(exhausting, maker) if name in short else maker for maker in own]
                for name, own in makers.items()
            }
        )
        return SpreadSampler(sampler, crew, said.append)

    said: list[str] = []
    assert_same(by_name(spread_with("cpu 2").sample(prompts(), N, SETTINGS)), whole)
    assert len(said) == 1
    assert said[0].startswith("cpu 2: out of memory: the device had no room for 2.50 GiB more;")
    assert "the others draw its" in said[0]

    samples, drawn = spread_with("cpu 1", "cpu 2").sample(prompts(), N, SETTINGS), []
    with pytest.raises(HydragenError, match=r"cpu 1: out of memory: .* cpu 2: .* are intact"):
        drawn += samples
    done: dict[str, set[int]] = {}
    for sample in drawn:
        done.setdefault(sample.task_id, set()).add(sample.sample_index)
    rest = spread_with().sample(prompts(), N, SETTINGS, done=done)
    assert_same(by_name(iter([*drawn, *rest])), whole)


@pytest.mark.usefixtures("forked_workers")
def test_an_error_of_all_is_the_run_s_error(random_model: Path) -> None:
    small = Sampler.from_pretrained(str(random_model), memory_bytes=20_000)
    with pytest.raises(CapacityError):
        run(prompts(), N, sampler=small, devices=["cpu"], settings=SETTINGS)


@pytest.mark.parametrize(
    "names", ["", "cpu,", "cpu:1", "gpu", "cpu,cuda:99", "99", "-1", "all,all"]
)
def test_what_is_no_device(names: str) -> None:
    with pytest.raises(InputError, match="devices"):
        find_devices(names)
