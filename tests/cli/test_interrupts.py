"""Signals: the first ends the work between two whole steps, the second ends the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from hydragen_cli.interrupts import Interrupted, Interrupts

def step(name, held):
    print(name, flush=True)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        time.sleep(0.01)
    print("whole" if held else "undisturbed", flush=True)

with Interrupts() as interrupts:
    try:
        with interrupts.held():
            step("held", True)
        step("free", False)
    except Interrupted as interrupted:
        print("interrupted", flush=True)
        time.sleep(float(sys.argv[1]))
        sys.exit(interrupted.exit_code)
"""


def run(signal_after: str, signum: int, again: bool = False) -> tuple[int, list[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "30" if again else "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] == signal_after or (again and lines[-1] == "interrupted"):
                process.send_signal(signum)
    return process.returncode, lines


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_waits_for_what_is_held(signum: int, code: int) -> None:
    assert run("held", signum) == (code, ["held", "whole", "interrupted"])
    assert run("free", signum) == (code, ["held", "whole", "free", "interrupted"])


def test_second_signal_ends_the_process() -> None:
    code, lines = run("held", signal.SIGINT, again=True)
    assert code == -signal.SIGINT
    assert lines[-1] == "interrupted"


def test_no_signal_no_change() -> None:
    code, lines = run("nothing", signal.SIGINT)
    assert (code, lines) == (0, ["held", "whole", "free", "undisturbed"])


def test_ignored_signal_stays_ignored() -> None:
    """As under nohup, and for what a script starts in the background."""
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from hydragen_cli.interrupts import Interrupts\n"
        "with Interrupts(): signal.raise_signal(signal.SIGINT)\n"
        "print('alive')"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout == "alive\n"


WHILE_IMPORTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
from hydragen_cli.main import {entry}
{entry}()
"""


@pytest.mark.parametrize(
    ("entry", "module"),
    [
        ("run", "typer"),
        ("run_sample", "hydragen_cli.program"),
        ("run_sample", "hydragen_cli.sample"),
        ("run_eval", "hydragen_cli.eval"),
        ("run_sample", "hydragen_tree.problem.reading"),
        ("run_sample", "torch"),
        ("run_sample", "transformers"),
    ],
)
def test_a_signal_while_a_program_is_imported(entry: str, module: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("statement: Print 1.\n")
    code = WHILE_IMPORTING.format(entry=entry, module=module)
    command = [sys.executable, "-c", code, "p.yaml", "-n", "1", "-o", "out.jsonl"]
    if entry == "run_eval":
        command = [sys.executable, "-c", code, "none.jsonl"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 130, ran
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]
