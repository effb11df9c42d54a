"""`hydragen-sample` as real processes: whatever happens, whole lines, each sample once."""

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli import main
from tests.forked import Command

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
RUN = ["doubles.yaml", "-n", "60", "--max-tokens", "24", "--max-rows", "2", "-t", "1"]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "doubles.yaml").write_text(PROBLEM)
    return folder


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `hydragen ARGS` in this process; returns exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    for name in [name for name in os.environ if name.startswith("HYDRAGEN_")]:
        monkeypatch.delenv(name)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capfd.readouterr()

    return run


@pytest.fixture
def whole(cli: Cli, folder: Path) -> list[str]:
    """The lines of a run that nothing disturbs."""
    path = folder / "whole.jsonl"
    code, out, err = cli("sample", *RUN, "-o", path.name, "--resume")
    assert (code, out) == (0, ""), err
    return path.read_text().splitlines()


def start(folder: Path, *args: str, **options: Any) -> Command:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HYDRAGEN_")}
    environment = {**inherited, "XDG_CONFIG_HOME": os.devnull}
    return Command("run_sample", *args, cwd=folder, env=environment, **options)


def wait_for_lines(path: Path, n: int, process: Command) -> None:
    while not path.exists() or path.read_bytes().count(b"\n") < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def assert_same_samples(lines: list[str], expected: list[str]) -> None:
    """The same samples, each once, in any order; log-probabilities vary with the batch's sums."""

    def by_index(texts: list[str]) -> dict[int, dict[str, Any]]:
        return {line["sample_index"]: line for line in map(json.loads, texts)}

    assert len(lines) == len(expected)
    found = by_index(lines)
    for index, line in by_index(expected).items():
        for name in ("logprob", "sampled_logprob"):
            assert found[index].pop(name) == pytest.approx(line.pop(name), abs=1e-2)
        assert found[index] == line


def test_lines_and_summary(cli: Cli, whole: list[str]) -> None:
    lines = [json.loads(line) for line in whole]
    assert sorted(line["sample_index"] for line in lines) == list(range(60))
    assert {line["prompt_variant"] for line in lines} == {0, 1}
    assert {line["problem"] for line in lines} == {"doubles.yaml"}

    code, out, err = cli("sample", *RUN)
    assert code == 0
    assert out.splitlines() == whole
    assert "samples   60 of 1 problem\n" in err
    assert "samples end at <|end|> (0), '\\n```'\n" in err
    figures = err.replace(",", "")
    found = re.search(r"rows +(\d+) computed for (\d+) tokens: (\d+) saved\n", figures)
    assert found, err
    rows, tokens, saved = map(int, found.groups())
    assert rows + saved == tokens == sum(line["n_tokens"] for line in lines)
    found = re.search(r"keys +of (\d+) tokens (\d+) without sharing: (\d+) saved\n", figures)
    assert found, err
    kept, unshared, saved = map(int, found.groups())
    assert kept + saved == unshared
    assert "\x1b" not in err
    assert "Loading" not in err

    assert cli("sample", *RUN, "--quiet") == (0, out, "")


def test_stopped_again_and_again(cli: Cli, folder: Path, whole: list[str]) -> None:
    """Ctrl-C, SIGTERM, kill -9 and a torn line, each followed by --resume."""
    path = folder / "stopped.jsonl"
    args = [*RUN, "-o", path.name, "--resume"]
    for n_lines, signum, code in [
        (5, signal.SIGINT, 130),
        (15, signal.SIGTERM, 143),
        (30, signal.SIGKILL, -signal.SIGKILL),
    ]:
        with start(folder, *args) as process:
            wait_for_lines(path, n_lines, process)
            process.send_signal(signum)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert stdout == ""
        assert "Traceback" not in stderr
        n_written = path.read_bytes().count(b"\n")
        assert n_written < 60
        if signum != signal.SIGKILL:
            assert f"interrupted: {n_written} samples in stopped.jsonl" in stderr
            assert "--resume" in stderr
            assert path.read_bytes().endswith(b"}\n")
    with path.open("a") as file:
        file.write('{"task_id": "doub')

    code, _, err = cli("sample", *args)
    assert code == 0, err
    assert_same_samples(path.read_text().splitlines(), whole)
    before = path.read_bytes()
    code, _, err = cli("sample", *args)
    assert (code, err) == (0, "stopped.jsonl: complete, nothing to do\n")
    assert path.read_bytes() == before


def test_full_disk(cli: Cli, folder: Path, whole: list[str]) -> None:
    path = folder / "full.jsonl"
    limit = sum(map(len, whole)) // 2

    shrink_disk = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    with start(folder, *RUN, "-o", path.name, before=shrink_disk) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    n_written = path.read_bytes().count(b"\n")
    assert f"the {n_written} samples written before are intact" in stderr
    assert "Traceback" not in stderr
    assert path.read_bytes().endswith(b"}\n")

    code, _, err = cli("sample", *RUN, "-o", path.name, "--resume")
    assert code == 0, err
    assert_same_samples(path.read_text().splitlines(), whole)


def test_closed_pipe_ends_quietly(folder: Path, whole: list[str]) -> None:
    with start(folder, *RUN, "--quiet") as process:
        assert process.stdout.readline().rstrip("\n") == whole[0]
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no problems: name PROBLEM files"),
        (["missing.yaml"], "missing.yaml"),
        (["doubles.yaml", "--prompts", "p.jsonl"], "either problems or --prompts"),
        (["--prompts", "p.jsonl"], "--prompts p.jsonl: cannot be read: No such file"),
        (["--prompts", "/dev/null"], "--prompts /dev/null: no prompts"),
        (["--prompts", "p.jsonl", "--chat"], "--chat: renders problems"),
        (["doubles.yaml", "-n", "0"], "greater than or equal to 1"),
        (["doubles.yaml", "-t", "-1"], "--temperature -1.0: expected"),
        (["doubles.yaml", "--top-p", "0"], "--top-p 0.0: expected"),
        (["doubles.yaml", "--top-p", "1.1"], "--top-p 1.1: expected"),
        (["doubles.yaml", "--memory", "much"], "--memory much: expected a size"),
        (["doubles.yaml", "--resume", "--force", "-o", "x"], "choose one"),
        (["doubles.yaml", "--resume"], "--resume: only a file"),
        (["doubles.yaml", "-o", "no/out.jsonl"], "no/out.jsonl: cannot be written"),
        (["doubles.yaml", "-o", "doubles.yaml"], "doubles.yaml: is a problem's file"),
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

    monkeypatch.setattr("hydragen_tree.problem.reading.load_problems", fail)
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

    monkeypatch.setattr("hydragen_tree.sample.sampler.load_weights", refuse)


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

    code, out, _ = cli("plan", "doubles.yaml", "-n", "50", "--device", "cpu", "--devices", "4")
    assert code == 0
    assert "4 devices, a batch of 256 rows at most on each" in out
    assert "--shard 1/4 and so on: 12 or 13 samples each" in out
    code, _, err = cli("plan", "doubles.yaml", "--devices", "3", "--tensor-parallel", "2")
    assert (code, err) == (2, "hydragen: --devices 3: expected a multiple of 2\n")

    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = cli("plan", "doubles.yaml", "-n", "50")
    assert code == 0
    assert out.startswith("2 prompts, 2 leaves\n")
    assert "doubles #1" in out
    assert max(map(len, out.splitlines()[:3])) <= 60


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
