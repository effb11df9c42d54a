"""Commands as processes of their own, forked from one that has imported torch and transformers.

That takes some seconds of a processor, once for all tests instead of once a command. What a command
imports, and what libraries read from the environment as they are imported, is tested elsewhere.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

_TIMEOUT_S = 300
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["hydragen_cli.main", "hydragen_tree.run", "transformers.models.llama.modeling_llama"]
)


def run_command(
    entry: str, *args: str, cwd: Path, env: Mapping[str, str] = os.environ
) -> "subprocess.CompletedProcess[str]":
    """Runs a program of `hydragen_cli.main` as `subprocess.run` would, with nothing on stdin.

    Args:
        entry: `run`, `run_sample` or `run_eval`.
        args: of its command line.
        cwd: where.
        env: its environment.
    """
    with TemporaryDirectory() as folder:
        written = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_run, args=(entry, args, cwd, dict(env), *written))
        process.start()
        process.join(_TIMEOUT_S)
        assert process.exitcode is not None, f"{args}: runs for {_TIMEOUT_S} seconds"
        texts = [path.read_text(encoding="utf-8") for path in written]
        return subprocess.CompletedProcess(args, process.exitcode, *texts)


def output_of(cwd: Path, *args: str) -> str:
    """What `hydragen` writes on stdout, where it must succeed."""
    ran = run_command("run", *args, cwd=cwd)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _run(
    entry: str, args: tuple[str, ...], cwd: Path, env: dict[str, str], stdout: Path, stderr: Path
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate((Path(os.devnull), stdout, stderr)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
    sys.argv = ["-c", *args]
    import hydragen_cli.main

    try:
        getattr(hydragen_cli.main, entry)()
    finally:
        atexit._run_exitfuncs()
