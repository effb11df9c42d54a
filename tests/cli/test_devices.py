"""`hydragen-sample --devices` as real processes: the file that one process writes."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hydragen_cli import main
from tests.cli.test_sample import PROBLEM, RUN, assert_same_samples, start, wait_for_lines

Cli = Callable[..., tuple[int, str, str]]
TWO = ["--devices", "cpu,cpu"]


@pytest.fixture
def home(own_home: Path) -> Path:
    (own_home / "doubles.yaml").write_text(PROBLEM)
    return own_home


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `hydragen ARGS` in this process; returns exit code, stdout and stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capfd.readouterr()

    return run


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def assert_end(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_stopped_and_resumed_with_other_numbers_of_devices(cli: Cli, home: Path) -> None:
    """kill -9 of the driver, then Ctrl-C, then one device; no worker outlives its driver."""
    path = home / "out.jsonl"
    args = [*RUN, "-o", path.name, "--resume"]
    for n_lines, signum, code in [(5, signal.SIGKILL, -signal.SIGKILL), (20, signal.SIGINT, 130)]:
        with start(home, *args, *TWO) as process:
            wait_for_lines(path, n_lines, process)
            workers = children(process.pid)
            assert len(workers) == 2
            process.send_signal(signum)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert "Traceback" not in stderr
        assert_end(workers)
    assert f"interrupted: {len(path.read_bytes().splitlines())} samples in out.jsonl" in stderr

    code, _, err = cli("sample", *args, "--devices", "cpu")
    assert code == 0, err
    code, _, err = cli("sample", *RUN, "-o", "whole.jsonl", "--quiet")
    assert code == 0, err
    lines, whole = (Path(name).read_text().splitlines() for name in ("out.jsonl", "whole.jsonl"))
    assert_same_samples(lines, whole)
    manifests = [
        json.loads(Path(f"{name}.jsonl.manifest.json").read_text()) for name in ("out", "whole")
    ]
    for manifest in manifests:
        sessions = manifest.pop("sessions")
    assert manifests[0] == manifests[1]
    assert "workers" not in sessions[-1]["figures"]


def test_two_ranks_write_the_same_file(cli: Cli) -> None:
    for name, args in [("whole", []), ("parts", ["--tensor-parallel", "2", "--device", "cpu"])]:
        few = ["doubles.yaml", "-n", "6", "--max-tokens", "12", "-t", "1", "-o", f"{name}.jsonl"]
        code, _, err = cli("sample", *few, "--quiet", *args)
        assert code == 0, err
    lines, whole = (Path(name).read_text().splitlines() for name in ("parts.jsonl", "whole.jsonl"))
    assert_same_samples(lines, whole)


def test_full_disk(cli: Cli) -> None:
    code, _, err = cli("sample", *RUN, "--devices", "cpu", "-o", "/dev/full", "--quiet")
    assert code == 1
    assert err == "hydragen: /dev/full: No space left on device; nothing is lost\n"


def test_closed_pipe_ends_quietly(home: Path) -> None:
    with start(home, *RUN, "--devices", "cpu", "--quiet") as process:
        assert json.loads(process.stdout.readline())["task_id"] == "doubles"
        workers = children(process.pid)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0
    assert_end(workers)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--devices", "cpu", "--device", "cpu"], "--devices cpu: says where, as --device does"),
        (["--devices", "nonsense"], "--devices nonsense: "),
        (["--devices", "99"], "--devices 99: "),
        (["--tensor-parallel", "8"], "--tensor-parallel 8: num_key_value_heads of tiny is 4"),
        (["--tensor-parallel", "2", "--ray", "local"], "--tensor-parallel 2: the devices of a"),
    ],
)
def test_bad_input(cli: Cli, home: Path, args: list[str], message: str) -> None:
    code, out, err = cli("sample", "doubles.yaml", *args, "-o", "out.jsonl")
    assert (code, out) == (2, "")
    assert message in err
    assert [file.name for file in home.iterdir() if file.is_file()] == ["doubles.yaml"]
