"""Programs judged by a real cluster: the same verdicts, though an actor is killed."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli import main
from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from tests.cli.test_sample import PROBLEM
from tests.judge.test_stream import IN_C, RIGHT, SUM
from tests.spread.test_ray import actor_processes, wait_for_the_end_of

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

PROGRAMS = [RIGHT, "print(3)", "print(", "1/0"]


def test_the_same_verdicts_though_an_actor_is_killed(cluster: Any) -> None:
    from hydragen_tree.judge.ray_judge import RayJudge

    items = [(SUM, f"{PROGRAMS[i % 4]}\n# {i // 2}", i) for i in range(48)]
    with Judge(workers=2, cache=False) as judge:
        expected = {i: verdict.status for i, verdict in judge.judge_stream(items)}
    with RayJudge("auto", cache=False) as judge:
        assert judge.workers == 2
        assert judge.judge(SUM, IN_C, "c").accepted
        answers = judge.judge_stream(items)
        found = dict([next(answers)])
        (process,) = actor_processes("RayJudgeActor")
        os.kill(process, signal.SIGKILL)
        found.update(answers)
        assert actor_processes("RayJudgeActor") != [process]
    assert {i: verdict.status for i, verdict in found.items()} == expected
    wait_for_the_end_of("RayJudgeActor")


def test_eval_on_a_cluster(
    cluster: Any,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def verdicts(*args: str) -> list[tuple[str, int]]:
        monkeypatch.setattr(sys, "argv", ["hydragen", "eval", "s.jsonl", *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        out, err = capfd.readouterr()
        assert caught.value.code == 0, err
        assert ("2 programs at a time on the cluster" in err) == ("--ray" in args)
        lines = map(json.loads, out.splitlines())
        return sorted((line["verdict"], line["sample_index"]) for line in lines)

    Path("doubles.yaml").write_text(PROBLEM)
    with Path("s.jsonl").open("w") as file:
        for index, code in enumerate(["print(int(input()) * 2)", "print(1)", "print("]):
            sample = {"task_id": "doubles", "sample_index": index, "solution": code}
            print(json.dumps(sample), file=file)
    args = ["--problems", "doubles.yaml", "--no-cache"]
    assert verdicts(*args, "--ray", "auto") == verdicts(*args) == [("AC", 0), ("CE", 2), ("WA", 1)]


def test_a_machine_that_is_lost_for_good_is_the_judge_s_fault(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydragen_tree.judge import ray_judge

    monkeypatch.setattr(ray_judge, "_RESTARTS", 0)
    with ray_judge.RayJudge("auto", cache=False) as judge:
        assert judge.judge(SUM, RIGHT).accepted
        (process,) = actor_processes("RayJudgeActor")
        os.kill(process, signal.SIGKILL)
        verdict = judge.judge(SUM, "print(1)")
    assert (verdict.status, verdict.message) == ("IE", "no machine is left to judge on")


def test_a_cluster_must_offer_the_same(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydragen_tree.judge import judge as module
    from hydragen_tree.judge import ray_judge

    find = module.find_interpreter

    def other(python: str | None) -> Any:
        from dataclasses import replace

        return replace(find(python), version="4.0.0 (other)")

    monkeypatch.setattr(module, "find_interpreter", other)
    with pytest.raises(InputError, match="judges with Python 3"):
        ray_judge.RayJudge("auto", cache=False)
