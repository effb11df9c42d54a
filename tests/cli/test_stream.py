"""`hydragen-sample --prompts -` behind a pipe that is still open, with real processes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydragen_tree.prompt.prompts import prompts_from_sources
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.forked import Command
from tests.judge.test_eval import command

N = 2
PROMPTS: list[Any] = [
    {"prompt": "def add(a, b):", "task_id": "first"},
    {"prompt": "def add(a, c):"},
    {"prompt": "for i in range("},
]


class Process:
    """A run that is given its lines one by one."""

    def __init__(self, process: Command) -> None:
        self.process = process

    def say(self, *lines: Any) -> None:
        for line in lines:
            self.process.stdin.write(line if isinstance(line, str) else json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self, prompts: int) -> list[dict[str, Any]]:
        return [json.loads(self.process.stdout.readline()) for _ in range(prompts * N)]

    def end(self) -> tuple[int, str, str]:
        out, said = self.process.communicate(timeout=60)
        return self.process.wait(), out, said


@contextmanager
def running(*options: str) -> Iterator[Process]:
    args = ["--prompts", "-", "-n", str(N), "--max-tokens", "6", "--device", "cpu", "-q", *options]
    with Command("run_sample", *args) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


def test_samples_come_before_the_last_prompt(own_home: Path) -> None:
    """Then a bad line, behind which nothing is drawn; what came before it is."""
    with running() as run:
        run.say(PROMPTS[0])
        first = run.hear(1)
        run.say(*PROMPTS[1:], "nonsense\n", {"prompt": "too late"})
        rest = run.hear(2)
        code, out, said = run.end()
    assert (code, out) == (2, "")
    assert "--prompts: line 4: not valid JSON" in said
    sources = [
        (line.get("task_id", f"prompt-{i}"), line["prompt"]) for i, line in enumerate(PROMPTS)
    ]
    sampler = Sampler.from_pretrained("tiny", device="cpu")
    prompts = prompts_from_sources(sources, sampler.tokenizer)
    whole = {
        (sample.task_id, sample.sample_index): sample.completion
        for sample in sampler.sample(prompts, N, SamplingSettings(max_tokens=6))
    }
    found = {(line["task_id"], line["sample_index"]): line["completion"] for line in first + rest}
    assert found == whole
    assert [line["task_id"] for line in first] == ["first"] * N


def test_ctrl_c_while_it_waits(own_home: Path) -> None:
    with running() as run:
        run.say(PROMPTS[0])
        run.hear(1)
        run.process.send_signal(signal.SIGINT)
        code, _, said = run.end()
    assert code == 130
    assert "Traceback" not in said


def test_a_reader_that_goes_away_ends_it_quietly(own_home: Path) -> None:
    with running() as run:
        run.say(PROMPTS[0])
        run.hear(1)
        run.process.stdout.close()
        run.say(PROMPTS[1])
        assert run.process.stderr.read() == ""
        assert run.process.wait(60) in (0, 141)


def test_all_that_is_bad_is_named_where_it_is_there_at_once(own_home: Path) -> None:
    lines = "[]\n" + json.dumps(PROMPTS[0]) + "\n\xff\nnonsense"
    ran = subprocess.run(
        command("run_sample", "--prompts", "-", "-n", "1"),
        input=lines.encode("latin-1"),
        capture_output=True,
    )
    said = ran.stderr.decode()
    assert (ran.returncode, ran.stdout) == (2, b"")
    for number in (1, 3, 4):
        assert f"--prompts: line {number}: " in said
    assert "line 3: not UTF-8 text" in said
