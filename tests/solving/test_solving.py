"""Runs in a folder: drawn and judged at once, gone on with after any end."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.passk.stopping import Stopping
from hydragen_tree.problem.reading import load_problems
from hydragen_tree.problem.types import Problem
from hydragen_tree.prompt.prompts import build_prompts
from hydragen_tree.results.comparison import compare_runs
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.results import Results
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.solving import RunFolder, Solving, run_and_judge
from hydragen_tree.solving.following import follow
from tests.forked import Command
from tests.judge.test_eval import write_problems

N = 40
SETTINGS = SamplingSettings(max_tokens=32)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler.from_pretrained("tiny", device="cpu")


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=1, cache=False) as judge:
        yield judge


@pytest.fixture(autouse=True)
def problems_there(own_home: Path) -> None:
    write_problems(own_home)


def lines(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The lines of a file by sample, each of which stands there once."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    found = {(line["task_id"], line["sample_index"]): line for line in read}
    assert len(found) == len(read)
    return found


def completions(path: Path) -> dict[tuple[str, int], str]:
    """What was drawn; sums of log-probabilities are those of their batch, to the last bits."""
    return {key: line["completion"] for key, line in lines(path).items()}


def test_a_run_may_be_killed_anywhere(
    own_home: Path, sampler: Sampler, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 while it draws, then the same command: the folder of a run that was left alone."""
    args = ["run", "sum.yaml", "total.yaml", "-n", str(N), "--max-tokens", "32", "-o", "killed"]
    samples = own_home / "killed" / "samples.jsonl"
    with Command("run", *args) as process:
        while process.poll() is None and not (samples.exists() and samples.stat().st_size):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with samples.open("a") as file:  # as where the kill tore a line
        file.write('{"task_id": "su')
    assert load("run").main(args[1:], standalone_mode=False) == 0
    said = capsys.readouterr().err
    assert "pass@1" in said
    assert f"{2 * N} samples right" in said
    alone = own_home / "alone"
    problems = load_problems(["sum.yaml", "total.yaml"])
    summary = run_and_judge(problems, N, alone, sampler=sampler, judge=judge, settings=SETTINGS)
    killed = own_home / "killed"
    assert completions(samples) == completions(alone / "samples.jsonl")
    verdicts, others = (lines(folder / "verdicts.jsonl") for folder in (killed, alone))
    assert verdicts.keys() == others.keys() == lines(samples).keys()
    assert all(verdicts[key]["verdict"] == others[key]["verdict"] for key in verdicts)
    written = [json.loads((folder / "summary.json").read_text()) for folder in (killed, alone)]
    assert written[0]["overall"] == written[1]["overall"]
    assert written[0]["run"] == written[1]["run"]
    assert written[0]["run"]["complete"]
    assert summary.overall.samples == 2 * N
    assert all((folder / "report.html").stat().st_size > 1000 for folder in (killed, alone))
    assert len([*Results.read(killed).samples()]) == 2 * N


def test_n_may_grow_and_the_rest_may_not(own_home: Path, sampler: Sampler, judge: Judge) -> None:
    problems = load_problems(["sum.yaml"])

    def run(n: int, **more: Any) -> int:
        settings = SamplingSettings(max_tokens=8, **more.pop("settings", {}))
        given = {"sampler": sampler, "judge": judge, "settings": settings, **more}
        return run_and_judge(problems, n, own_home / "run", **given).overall.samples

    assert (run(2), run(6), run(6)) == (2, 6, 6)
    before = (own_home / "run" / "verdicts.jsonl").read_text()
    with pytest.raises(InputError, match=r"settings.temperature was 0.8, is 0.5"):
        run(6, settings={"temperature": 0.5})
    with pytest.raises(InputError, match="n was 6, is 2"):
        run(2)
    assert (own_home / "run" / "verdicts.jsonl").read_text() == before
    assert run(3, settings={"temperature": 0.5}, force=True) == 3
    assert len(lines(own_home / "run" / "verdicts.jsonl")) == 3


def test_what_cannot_be_judged_is_refused_first(
    own_home: Path, sampler: Sampler, judge: Judge
) -> None:
    (own_home / "bare.yaml").write_text("id: bare\nstatement: Nothing to judge it by.\n")
    with pytest.raises(InputError, match=r"bare.yaml: no tests to judge with"):
        run_and_judge(
            load_problems(["sum.yaml", "bare.yaml"]), 2, "run", sampler=sampler, judge=judge
        )
    assert not [*(own_home / "run").iterdir()]


def test_a_growing_file_is_followed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"one\ntw")
    written, stop = threading.Event(), threading.Event()
    following = follow(path, written, stop)
    assert next(following) == b"one\n"
    with path.open("ab") as file:
        file.write(b"o\nthree\nfour")
    written.set()
    assert [*following] == [b"two\n", b"three\n"]
    stop.set()
    assert [*follow(path, threading.Event(), stop)] == []


class JudgeError(Exception):
    """What a judge may end by."""


def test_a_judge_that_fails_ends_the_run(
    own_home: Path, sampler: Sampler, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise JudgeError

    args = load_problems(["sum.yaml"]), 4, "run"
    given = {"sampler": sampler, "judge": judge, "settings": SETTINGS}
    with monkeypatch.context() as patched:
        patched.setattr(judge, "judge_stream", fail)
        with pytest.raises(JudgeError):
            run_and_judge(*args, **given)
    assert run_and_judge(*args, **given).overall.samples == 4


def of_run(folder: Path) -> tuple[dict[str, Any], Any]:
    """The summary's figures of the run, and the manifest's."""
    summary = json.loads((folder / "summary.json").read_text())
    return summary, json.loads((folder / "samples.jsonl.manifest.json").read_text())


@pytest.fixture
def sometimes_and_never(own_home: Path) -> list[Problem]:
    """A problem that is solved by saying nothing, as one in five samples does, and another."""
    for name, output in (("sometimes", ""), ("never", "42")):
        (own_home / f"{name}.yaml").write_text(
            f"id: {name}\nstatement: Add the numbers.\n"
            f"tests: [{{input: 1 2, output: '{output}'}}]\nlimits: {{time_s: 1}}\n"
        )
    return load_problems(["sometimes.yaml", "never.yaml"])


SHORT = SamplingSettings(max_tokens=10, temperature=1.0)


def test_solved_problems_leave_the_batch_to_the_others(
    own_home: Path,
    sampler: Sampler,
    judge: Judge,
    sometimes_and_never: list[Problem],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = Loop.samples
    given: Any = {"sampler": sampler, "judge": judge, "settings": SHORT}
    fixed = run_and_judge(sometimes_and_never, 70, "fixed", **given)
    loops: list[Loop] = []
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "samples", lambda *args: loops.append(args[0]) or samples(*args))
        summary = run_and_judge(sometimes_and_never, 70, "run", until_solved=3, **given)
    assert len(loops) == 1  # for all rounds
    drawn = completions(own_home / "run" / "samples.jsonl")
    assert Counter(task_id for task_id, _ in drawn) == {"sometimes": 32, "never": 70}
    all_of = completions(own_home / "fixed" / "samples.jsonl")
    assert drawn.items() <= all_of.items()  # the first ones of those that a fixed n draws
    sometimes, never = sorted(summary.problems, key=lambda problem: problem.samples)
    verdicts = lines(own_home / "fixed" / "verdicts.jsonl")
    right = sum(verdicts["sometimes", i]["verdict"] == "AC" for i in range(32))
    assert right >= 3
    assert (sometimes.samples, sometimes.accepted) == (32, right)
    assert sometimes.curve.estimates[0].value == pytest.approx(right / 32)
    (alone,) = (problem for problem in fixed.problems if problem.task_id == "never")
    assert [e.value for e in never.curve.estimates] == [e.value for e in alone.curve.estimates]
    record, manifest = of_run(own_home / "run")
    assert record["run"]["complete"]
    assert record["run"]["saved"]["samples"] == 38
    assert 0 < record["run"]["saved"]["tokens"] < record["run"]["saved"]["tokens_of_n"]
    assert manifest["stopping"] == {"until_solved": 3}
    assert manifest["result"]["samples"] == 102
    (session,) = manifest["sessions"]
    assert session["figures"]["samples_done"] == 102
    assert Manifest.read(own_home / "run" / "samples.jsonl.manifest.json").n_missing(102) == 0
    compared = compare_runs(Results.read("fixed"), Results.read("run"))
    assert [p.task_id for p in compared.problems] != []
    assert not compared.left_out
    # whoever reads the folder, or comes again, finds the same
    assert Overview.of(Results.read("run").samples()).summary == summary
    before = (own_home / "run" / "samples.jsonl").read_text()
    assert run_and_judge(sometimes_and_never, 70, "run", until_solved=3, **given) == summary
    assert (own_home / "run" / "samples.jsonl").read_text() == before
    with pytest.raises(InputError, match=r'what ends a problem was {"until_solved": 3}, is absent'):
        run_and_judge(sometimes_and_never, 70, "run", **given)


def test_narrow_intervals_end_problems(
    own_home: Path, sampler: Sampler, judge: Judge, sometimes_and_never: list[Problem]
) -> None:
    """No right one of 32 gives 0 to 0.109; of one in five it takes more to know it so well."""
    given: Any = {"sampler": sampler, "judge": judge, "settings": SHORT}
    run_and_judge(sometimes_and_never, 50, "run", until_width=0.12, **given)
    drawn = completions(own_home / "run" / "samples.jsonl")
    assert Counter(task_id for task_id, _ in drawn) == {"never": 32, "sometimes": 50}
    record, _ = of_run(own_home / "run")
    assert record["overall"]["samples"] == 82
    assert record["overall"]["estimates"][-1]["k"] == 32


def test_a_budget_ends_a_run_that_goes_on_later(
    own_home: Path, sampler: Sampler, judge: Judge
) -> None:
    problems = load_problems(["sum.yaml", "total.yaml"])
    given: Any = {"sampler": sampler, "judge": judge, "settings": SamplingSettings(max_tokens=4)}
    run_and_judge(problems, 40, "run", budget_s=1e-9, **given)
    record, manifest = of_run(own_home / "run")
    assert record["run"]["samples"] == 1 == len(lines(own_home / "run" / "verdicts.jsonl"))
    assert not record["run"]["complete"]
    assert manifest["result"] is None
    assert manifest["sessions"][0]["figures"]["samples_done"] >= 1
    summary = run_and_judge(problems, 40, "run", **given)
    assert summary.overall.samples == 80
    assert of_run(own_home / "run")[0]["run"]["complete"]


def test_a_stop_in_the_middle_of_a_round_changes_nothing(
    own_home: Path, sampler: Sampler, judge: Judge, sometimes_and_never: list[Problem]
) -> None:
    """Stopped after every few samples: the same samples and estimates as in one go."""

    class StopError(Exception):
        """What stops it."""

    given: Any = {"sampler": sampler, "judge": judge, "settings": SHORT}
    rule = Stopping(70, until_solved=3)
    at_once = run_and_judge(sometimes_and_never, 70, "at-once", until_solved=3, **given)
    folder = RunFolder(own_home / "stopped")
    folder.path.mkdir()
    prompts = build_prompts(sometimes_and_never, sampler.tokenizer)
    stops = 0
    while True:
        writes = 0

        @contextmanager
        def held() -> Iterator[None]:
            nonlocal writes
            yield
            writes += 1
            if writes == 17:
                raise StopError

        with Solving(folder, sometimes_and_never, prompts, rule, **given) as solving:
            try:
                solving.run(held)
            except StopError:
                stops += 1
                continue
            found = solving.finish()
            break
    assert stops >= 5
    assert completions(folder.samples) == completions(own_home / "at-once" / "samples.jsonl")
    assert found.overall == at_once.overall
    assert found.verdicts == at_once.verdicts
