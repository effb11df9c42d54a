"""A real cluster of this machine's processors draws what one process draws, killed or not."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from hydragen_cli import main
from hydragen_cli.interrupts import Interrupted, Interrupts
from hydragen_tree.errors import InputError
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.ray_cluster import why_lost
from hydragen_tree.spread.spread_sampler import SpreadSampler
from tests.cli.test_sample import PROBLEM, RUN, assert_same_samples
from tests.sample.test_sampler import SETTINGS, prompts
from tests.spread.test_processes import N, assert_same, by_name, load_all

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def actor_processes(name: str) -> list[int]:
    """Process ids of the actors of a class."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(place.parent.name))
        except OSError:  # it has ended
            continue
    return found


def wait_for_the_end_of(name: str) -> None:
    end = time.monotonic() + 20
    while actor_processes(name):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_actor_starts_again(cluster: Any, random_model: Path) -> None:
    from hydragen_tree.spread.ray_crew import find_source, ray_crew

    sampler = Sampler(find_source(str(random_model)), max_rows=8)
    whole = by_name(sampler.sample(prompts(), N, SETTINGS))
    said: list[str] = []
    with SpreadSampler(sampler, ray_crew(sampler), said.append) as spread:
        assert [worker.name for worker in spread.workers] == ["worker 1", "worker 2"]
        load_all(spread)
        samples = spread.sample(prompts(), N, SETTINGS)
        drawn = [next(samples)]
        for process in actor_processes("RayWorker")[:1]:
            os.kill(process, signal.SIGKILL)
        assert_same(by_name(iter([*drawn, *samples])), whole)
        assert len(said) == 1, said
        assert re.match(r"worker [12]: its (process, \d+ on \S+, has ended|machine does)", said[0])
        assert said[0].endswith("it is started again")
        load_all(spread)
        assert len(actor_processes("RayWorker")) == 2

        # Ctrl-C comes as itself, though it comes while Ray waits.
        samples = spread.sample(prompts(), 1000, SETTINGS)
        next(samples)
        with Interrupts():
            Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
            with pytest.raises(Interrupted):
                list(samples)
        wait_for_the_end_of("RayWorker")

    with pytest.raises(InputError, match="ray_workers 0"):
        ray_crew(sampler, 0)


def test_a_lost_machine_is_said_to_be(random_model: Path) -> None:
    child = Path(__file__).with_name("lost_node_child.py")
    command = [sys.executable, str(child), str(random_model)]
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(out.stdout.splitlines()[-1])
    names = {(task, index) for task, index in told["names"]}
    assert len(names) == len(told["names"]) == 3 * N
    (said,) = told["said"]
    assert re.match(r"worker [12]: its machine(, \S+, is lost| does not answer, or has lost)", said)
    assert said.endswith("it is started again")


@pytest.mark.parametrize(
    ("kind", "message", "said"),
    [
        (
            "ActorDiedError",
            "The actor died unexpectedly.\n\tpid: 7\n\tip: 192.0.2.2\nThe actor died because "
            "its node has died. Node Id: 41\n\tthe actor's node was terminated",
            "its machine, 192.0.2.2, is lost",
        ),
        (
            "ActorDiedError",
            "The actor died unexpectedly.\n\tpid: 7\n\tip: 192.0.2.2\nThe actor is dead because "
            "its worker process has died. Worker exit type: SYSTEM_ERROR",
            "its process, 7 on 192.0.2.2, has ended unexpectedly (was there too little memory?)",
        ),
        ("NodeDiedError", "gone", "its machine is lost"),
        ("OutOfMemoryError", "Task", "killed by Ray, since its machine was running out of memory"),
        ("RaySystemError", "odd.\nmore", "System error: odd"),
    ],
)
def test_what_ray_says_in_a_line(kind: str, message: str, said: str) -> None:
    import ray

    error = getattr(ray.exceptions, kind)("")
    error.error_msg = error.message = error.client_exc = message
    assert str(why_lost(error)) == said


def test_a_run_is_resumed_on_a_cluster(
    cluster: Any,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def sample(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hydragen", "sample", *RUN, *args, "--quiet"])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert caught.value.code == 0, capfd.readouterr().err
        return capfd.readouterr().out

    (own_home / "doubles.yaml").write_text(PROBLEM)
    whole = sample().splitlines()
    sample("-n", "20", "-o", "out.jsonl")
    sample("--resume", "-o", "out.jsonl", "--ray", "auto", "--ray-workers", "1")
    wait_for_the_end_of("RayWorker")
    assert_same_samples(Path("out.jsonl").read_text().splitlines(), whole)
