"""A worker of two processes, which have a model together, draws what one process draws."""

import os
import signal
from pathlib import Path

import pytest

from hydragen_tree.errors import HydragenError, InputError
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.devices import device_crew, find_devices
from hydragen_tree.spread.spread_sampler import SpreadSampler
from tests.sample.test_sampler import SETTINGS, prompts
from tests.spread.test_processes import assert_same, by_name, is_alive

N = 16


def test_two_ranks_draw_what_one_process_does_and_end_together(random_model: Path) -> None:
    whole = by_name(Sampler.from_pretrained(str(random_model)).sample(prompts(), N, SETTINGS))
    sampler = Sampler.from_pretrained(str(random_model), max_rows=8, tensor_parallel=2)
    crew = device_crew(sampler, find_devices("cpu,cpu"))
    with SpreadSampler(sampler, crew) as spread:
        assert_same(by_name(spread.sample(prompts(), N, SETTINGS)), whole)

        samples = spread.sample(prompts(), N, SETTINGS)
        drawn = [next(samples)]
        pids = crew.pids
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(HydragenError, match=r"cpu 1: rank 1: killed by SIGKILL.*are intact"):
            drawn += samples
        assert by_name(iter(drawn)).keys() <= whole.keys()
    assert not any(map(is_alive, pids))  # the other one could only wait


@pytest.mark.usefixtures("forked_workers")
def test_two_ranks_in_one_order_of_summation(random_model: Path) -> None:
    drawn = []
    for max_rows in (3, 16):
        sampler = Sampler.from_pretrained(
            str(random_model), max_rows=max_rows, tensor_parallel=2, batch_invariant=True
        )
        spread = SpreadSampler(sampler, device_crew(sampler, find_devices("cpu,cpu")))
        drawn.append(by_name(spread.sample(prompts(), N, SETTINGS)))
    few, many = drawn
    assert few.keys() == many.keys()
    for name, sample in few.items():
        assert (sample.token_ids, sample.logprob) == (many[name].token_ids, many[name].logprob)
    assert sampler.fingerprint["batch_invariant"] == "by 2 ranks"  # and not as by one


def test_devices_come_in_whole_groups(random_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(random_model), tensor_parallel=2)
    assert device_crew(sampler, find_devices("cpu,cpu,cpu,cpu")).names == ["cpu 1", "cpu 2"]
    with pytest.raises(InputError, match=r"tensor_parallel 2: expected a divisor of .* 3"):
        device_crew(sampler, find_devices("cpu,cpu,cpu"))
