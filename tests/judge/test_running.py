"""`hydragen-eval` while it runs: streams, pipes that close, signals, being killed."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.judge.grading import read_lines
from tests.forked import Command
from tests.judge.test_eval import command

PROBLEM = """\
id: sum
statement: Add the numbers.
tests:
- {input: "1 2\\n", output: "3\\n", sample: true}
- {input: "4 5\\n", output: "9\\n"}
limits: {time_s: 1}
"""
RIGHT = "print(sum(map(int, input().split())))"


@pytest.fixture(autouse=True)
def home(own_home: Path) -> Path:
    """A home of its own, with a problem."""
    (own_home / "sum.yaml").write_text(PROBLEM)
    return own_home


def sample(index: int, solution: str) -> dict[str, Any]:
    return {"task_id": "sum", "sample_index": index, "solution": solution}


def test_lines_are_whole_however_they_arrive() -> None:
    read, write = os.pipe()
    lines = read_lines(os.fdopen(read, "rb", buffering=0), threading.Event())
    long = b"x" * 200_000
    for portion in (b"one\ntw", b"o\n", b"\nthr"):
        os.write(write, portion)
    assert [next(lines) for _ in range(3)] == [b"one\n", b"two\n", b"\n"]
    writer = threading.Thread(target=lambda: (os.write(write, b"ee\n" + long), os.close(write)))
    writer.start()
    assert list(lines) == [b"three\n", long]
    writer.join()


def test_a_stop_ends_the_reading_of_a_pipe_that_stays_open() -> None:
    read, write = os.pipe()
    stop = threading.Event()
    lines = read_lines(os.fdopen(read, "rb", buffering=0), stop)
    os.write(write, b"whole\npart")
    assert next(lines) == b"whole\n"
    threading.Timer(0.1, stop.set).start()
    assert list(lines) == []
    os.close(write)


def start(*args: str) -> Command:
    return Command("run_eval", *args)


def send(process: Command, *lines: dict[str, Any]) -> None:
    process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
    process.stdin.flush()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within a minute: {what}")
        time.sleep(0.02)


def wait_for_lines(path: Path, count: int) -> None:
    wait_until(
        lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines in {path}"
    )


def sleeper(seconds: float) -> tuple[str, str]:
    """A right program that sleeps first, and the name that its process goes by meanwhile."""
    name = f"hy{secrets.token_hex(6)}"
    rename = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n"
    return f"{rename}time.sleep({seconds})\n{RIGHT}", name


def is_running(name: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if entry.read_text().strip() == name:
                return True
    return False


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    [line] = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in x]
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_verdicts_finish(home: Path, signum: int, code: int) -> None:
    slow, name = sleeper(1)
    with start("-", "sum.yaml", "-o", "v.jsonl") as process:
        send(process, sample(0, RIGHT), sample(1, slow))
        wait_until(lambda: is_running(name), "the program runs")
        process.send_signal(signum)  # stdin stays open: it must not wait for more
        assert process.wait(60) == code
        said = process.stderr.read()
    lines = [json.loads(line) for line in (home / "v.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["AC", "AC"]
    assert "interrupted: 2 verdicts written" in said
    assert "--resume continues" in said


def test_the_second_signal_ends_it_at_once(home: Path) -> None:
    slow, name = sleeper(30)
    with start("-", "sum.yaml", "-o", "v.jsonl") as process:
        send(process, sample(0, RIGHT), sample(1, slow))
        wait_until(lambda: is_running(name), "the program runs")
        wait_for_lines(home / "v.jsonl", 1)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not catches(process.pid, signal.SIGINT), "the first signal is seen")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
    wait_until(lambda: not is_running(name), "the program is dead")
    assert_resumes(home)


def test_a_killed_run_is_resumed(home: Path) -> None:
    slow, name = sleeper(30)
    with start("-", "sum.yaml", "-o", "v.jsonl") as process:
        send(process, sample(0, RIGHT), sample(1, slow))
        wait_until(lambda: is_running(name), "the program runs")
        wait_for_lines(home / "v.jsonl", 1)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    wait_until(lambda: not is_running(name), "the program is dead")
    assert_resumes(home)


def assert_resumes(home: Path) -> None:
    """The first of three samples is judged; the others follow, and nothing twice."""
    with start("-", "sum.yaml", "-o", "v.jsonl", "--resume") as process:
        send(process, sample(0, RIGHT), sample(1, "print(3)"), sample(2, RIGHT + "#"))
        _, said = process.communicate()
    assert process.returncode == 0, said
    lines = [json.loads(line) for line in (home / "v.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["sample_index"])
    assert [line["verdict"] for line in lines] == ["AC", "WA", "AC"]
    assert "2 samples judged, 2 accepted, 1 judged before" in said


def test_verdicts_appear_while_samples_still_arrive() -> None:
    with start("-", "sum.yaml") as process:
        send(process, sample(0, RIGHT))
        assert json.loads(process.stdout.readline())["verdict"] == "AC"
        send(process, sample(1, "print(3)"))
        assert json.loads(process.stdout.readline())["verdict"] == "WA"
        process.communicate()
    assert process.returncode == 0


def test_a_closed_pipe_ends_it_quietly() -> None:
    with start("-", "sum.yaml") as process:
        send(process, sample(0, RIGHT))
        process.stdout.readline()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # it may end at the first of them
            for i in range(1, 4):
                send(process, sample(i, f"{RIGHT}  # {i}"))
        assert process.wait(60) == 0
        said = process.stderr.read()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    assert "Traceback" not in said
    assert "rror" not in said


@pytest.mark.slow
def test_samples_are_judged_as_they_are_drawn(home: Path) -> None:
    flags = ("sum.yaml", "-n", "3", "--max-tokens", "12", "--device", "cpu")
    with (
        subprocess.Popen(
            command("run_sample", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as sampler,
        subprocess.Popen(
            command("run_eval", "-"), stdin=sampler.stdout, stdout=subprocess.PIPE
        ) as judge,
    ):
        assert sampler.stdout is not None
        sampler.stdout.close()
        verdicts = [json.loads(line) for line in judge.communicate()[0].splitlines()]
        assert sampler.wait() == 0
    assert judge.returncode == 0
    assert sorted(verdict["sample_index"] for verdict in verdicts) == [0, 1, 2]
    assert all(verdict.keys() >= {"verdict", "completion", "seed"} for verdict in verdicts)


def test_an_interrupt_ends_a_check_after_the_test_that_runs(tmp_path: Path) -> None:
    tests = "".join(f"- {{input: '{i}', output: '{i}'}}\n" for i in range(200))
    slow = "import time; time.sleep(0.5); print(input())"
    problem = f"statement: Echo.\nsolution: {slow!r}\nlimits: {{time_s: 5}}\ntests:\n{tests}"
    (tmp_path / "slow.yaml").write_text(problem)
    code = "from hydragen_cli.main import run; run()"
    command = [sys.executable, "-c", code, "check", str(tmp_path / "slow.yaml"), "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "isolation" in process.stderr.readline()
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(15) == 130
        finally:
            process.kill()
