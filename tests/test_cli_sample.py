"""`hydragen-sample` as real processes: whatever happens, whole lines, each sample once."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli import main

PROBLEM = """
id: doubles
statement: Read an integer n and print 2n.
tests:
  - {input: "3\\n", output: "6\\n", sample: true}
few_shot:
  shots: 1
  variants: 2
  pool:
    - {id: squares, statement: Print n squared., solution: "print(int(input()) ** 2)"}
    - {id: hello, statement: Print hello., solution: "print('hello')"}
"""
SAMPLE = [sys.executable, "-c", "from hydragen_cli.main import run_sample; run_sample()"]
RUN = ["doubles.yaml", "-n", "120", "--max-tokens", "24", "--max-rows", "8", "-t", "1.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "doubles.yaml").write_text(PROBLEM)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    """The lines of a run that nothing disturbs."""
    ran = sample(folder, *RUN, "-o", "expected.jsonl")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    return lines_of(folder / "expected.jsonl")


def sample(folder: Path, *args: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*SAMPLE, *args], cwd=folder, env=environment(), capture_output=True, text=True, **options
    )


def start(folder: Path, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*SAMPLE, *args],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": os.devnull}


def lines_of(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def wait_for_lines(path: Path, n: int, process: "subprocess.Popen[str]") -> None:
    while not path.exists() or path.read_bytes().count(b"\n") < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def test_lines_and_summary(folder: Path, expected: list[str]) -> None:
    lines = [json.loads(line) for line in expected]
    assert sorted(line["sample_index"] for line in lines) == list(range(120))
    assert {line["prompt_variant"] for line in lines} == {0, 1}
    assert {line["problem"] for line in lines} == {"doubles.yaml"}

    ran = sample(folder, *RUN)
    assert ran.returncode == 0
    assert sorted(ran.stdout.splitlines()) == expected
    assert "120 of 1 problem\n" in re.sub(" +", " ", ran.stderr)
    assert "demonstration model" in ran.stderr
    assert "\x1b" not in ran.stderr

    ran = sample(folder, *RUN, "--quiet")
    assert sorted(ran.stdout.splitlines()) == expected
    assert ran.stderr == ""


def test_stopped_again_and_again(folder: Path, expected: list[str]) -> None:
    """Ctrl-C, SIGTERM, kill -9 and a torn line, each followed by --resume."""
    path = folder / "stopped.jsonl"
    args = [*RUN, "-o", path.name, "--resume"]
    for n_lines, signum, code in [
        (5, signal.SIGINT, 130),
        (20, signal.SIGTERM, 143),
        (40, signal.SIGKILL, -signal.SIGKILL),
    ]:
        process = start(folder, *args)
        wait_for_lines(path, n_lines, process)
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert stdout == ""
        assert "Traceback" not in stderr
        if signum != signal.SIGKILL:
            n_written = path.read_bytes().count(b"\n")
            assert f"interrupted: {n_written} samples in stopped.jsonl" in stderr
            assert "--resume" in stderr
            assert path.read_bytes().endswith(b"}\n")
            assert n_written < 120
    with path.open("a") as file:
        file.write('{"task_id": "doub')

    ran = sample(folder, *args)
    assert ran.returncode == 0, ran.stderr
    assert lines_of(path) == expected
    again = sample(folder, *args)
    assert again.returncode == 0
    assert "complete, nothing to do" in again.stderr
    assert lines_of(path) == expected


def test_full_disk(folder: Path, expected: list[str]) -> None:
    path = folder / "full.jsonl"
    limit = sum(map(len, expected)) // 2

    def shrink_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ran = sample(folder, *RUN, "-o", path.name, preexec_fn=shrink_disk)
    assert ran.returncode == 1
    n_written = path.read_bytes().count(b"\n")
    assert f"the {n_written} samples written before are intact" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert path.read_bytes().endswith(b"}\n")

    ran = sample(folder, *RUN, "-o", path.name, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert lines_of(path) == expected


def test_closed_pipe_ends_quietly(folder: Path, expected: list[str]) -> None:
    process = start(folder, *RUN, "--quiet")
    assert process.stdout is not None
    assert process.stdout.readline().rstrip("\n") in expected
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `hydragen ARGS` in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no problems: name PROBLEM files"),
        (["missing.yaml"], "missing.yaml"),
        (["doubles.yaml", "--prompts", "p.jsonl"], "either problems or --prompts"),
        (["--prompts", "p.jsonl"], "--prompts p.jsonl: cannot be read: No such file"),
        (["--prompts", "/dev/null"], "--prompts: no prompts"),
        (["--prompts", "p.jsonl", "--chat"], "--chat: renders problems"),
        (["doubles.yaml", "-n", "0"], "greater than or equal to 1"),
        (["doubles.yaml", "-t", "-1"], "--temperature -1.0: expected"),
        (["doubles.yaml", "--top-p", "0"], "--top-p 0.0: expected"),
        (["doubles.yaml", "--top-p", "1.1"], "--top-p 1.1: expected"),
        (["doubles.yaml", "--memory", "much"], "--memory much: expected a size"),
        (["doubles.yaml", "--resume", "--force", "-o", "x"], "choose one"),
        (["doubles.yaml", "--resume"], "--resume: only a file"),
        (["doubles.yaml", "-o", "no/out.jsonl"], "no/out.jsonl: cannot be written"),
        (["doubles.yaml", "-o", "doubles.yaml"], "doubles.yaml: exists"),
        (["doubles.yaml", "--sampels", "3"], "--sample"),
        (["doubles.yaml", "--model", "./nowhere"], "--model ./nowhere"),
        (["doubles.yaml", "--max-tokens", "100000"], "100"),
        (["doubles.yaml", "--variants", "9"], "9 asked for"),
        (["doubles.yaml", "--attention", "magic"], "--attention magic: expected"),
        (["doubles.yaml", "--dtype", "int3"], "--dtype"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(cli: Cli, folder: Path, args: list[str], message: str) -> None:
    before = {file: file.read_bytes() for file in folder.iterdir()}
    code, out, err = cli("sample", *args)
    assert code == 2
    assert message in err
    assert out == ""
    assert len(err.splitlines()) <= 3
    assert "Traceback" not in err
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_unexpected_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sources: object) -> None:
        raise RuntimeError("the roof is on fire")

    monkeypatch.setattr("hydragen_tree.problem.load_problems", fail)
    code, _, err = cli("sample", "doubles.yaml")
    assert code == 1
    assert err == (
        "hydragen: unexpected RuntimeError: the roof is on fire; HYDRAGEN_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("HYDRAGEN_DEBUG", "1")
    code, _, err = cli("sample", "doubles.yaml")
    assert code == 1
    assert "Traceback" in err


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("hydragen_tree.sampler.load_weights", refuse)


@pytest.mark.usefixtures("no_weights")
def test_dry_run(cli: Cli) -> None:
    code, out, err = cli("sample", "doubles.yaml", "-n", "50", "--dry-run", "-o", "doubles.yaml")
    assert code == 0
    prompts = [json.loads(line) for line in out.splitlines()]
    assert [prompt["prompt_variant"] for prompt in prompts] == [0, 1]
    assert all(prompt["text"].endswith("### Solution\n```python\n") for prompt in prompts)
    assert "without sharing" in err
    assert "keys and values at most" in err


@pytest.mark.usefixtures("no_weights")
def test_plan(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = cli("plan", "doubles.yaml", "-n", "50", "--json")
    assert (code, err) == (0, "")
    plan = json.loads(out)
    tokens = {segment["index"]: segment["tokens"] for segment in plan["segments"]}
    assert plan["leaves"] == plan["prompts"] == 2
    assert plan["rows"] == 50
    assert plan["savings"]["tokens"] == sum(tokens.values())
    assert plan["savings"]["tokens_unshared"] == plan["prompt_tokens"] * 25
    named = [prompt for segment in plan["segments"] for prompt in segment["prompts"]]
    assert sorted(prompt["variant"] for prompt in named) == [0, 1]

    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = cli("plan", "doubles.yaml", "-n", "50")
    assert code == 0
    assert out.startswith("2 prompts, 2 leaves\n")
    assert "doubles #1" in out
    assert max(map(len, out.splitlines())) <= 60


def test_prompts_file(cli: Cli, folder: Path) -> None:
    prompts = [{"prompt": "def add(a, b):", "task_id": "add"}, {"prompt": [5, 6, 7]}]
    (folder / "p.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    code, out, _ = cli("sample", "--prompts", "p.jsonl", "-n", "2", "--max-tokens", "4")
    (folder / "p.jsonl").unlink()
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    found = sorted((line["task_id"], line["sample_index"]) for line in lines)
    assert found == [("add", 0), ("add", 1), ("prompt-1", 0), ("prompt-1", 1)]


def test_schema(cli: Cli, folder: Path) -> None:
    code, out, _ = cli("schema")
    assert code == 0
    assert "statement" in json.loads(out)["properties"]
    assert cli("schema", "-o", "schema.json") == (0, "", "")
    assert (folder / "schema.json").read_text() == out
    (folder / "schema.json").unlink()
    code, _, err = cli("schema", "-o", "no/schema.json")
    assert code == 2
    assert "no/schema.json: cannot be written" in err
