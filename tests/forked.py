"""Commands as processes of their own, forked from one that has imported torch and transformers.

That takes some seconds of a processor, once for all tests instead of once a command. What a command
imports, and what libraries read from the environment as they are imported, is tested elsewhere.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from hydragen_cli import main

_TIMEOUT_S = 300
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "hydragen_cli.main",
        "hydragen_cli.eval",
        "hydragen_tree.run",
        "transformers.models.llama.modeling_llama",
    ]
)


class Forked:
    """A forked process, with what tests need of a `subprocess.Popen`.

    Args:
        target: what it does; a module's function, as it is sent by name.
        args: of the target; connections among them reach it as they are.

    Attributes:
        pid: its id.
    """

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        self._process = _FORKS.Process(target=target, args=args)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, less than 0 for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it is the fork server that learns first of its end
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


class Command(Forked):
    """A program of `hydragen_cli.main` in a forked process.

    Args:
        entry: `run`, `run_sample` or `run_eval`.
        args: of its command line.
        cwd: where; None: here.
        env: its environment; None: this one's.
        before: what is called in its process first.

    Attributes:
        stdin, stdout, stderr: our ends of its pipes, of text.
    """

    def __init__(
        self,
        entry: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        super().__init__(
            _run, theirs, entry, args, cwd or Path.cwd(), dict(env or os.environ), before
        )
        self.stdin = os.fdopen(os.dup(pipes[0][1].fileno()), "w", encoding="utf-8")
        self.stdout, self.stderr = (
            os.fdopen(os.dup(ours.fileno()), encoding="utf-8") for ours, _ in pipes[1:]
        )
        for connection in (end for pipe in pipes for end in pipe):
            connection.close()

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *exc: object) -> None:
        for file in (self.stdout, self.stderr, self.stdin):
            with suppress(BrokenPipeError):
                file.close()
        self.wait()

    def communicate(self, text: str = "", timeout: float = _TIMEOUT_S) -> tuple[str, str]:
        """Writes the rest of its input; what it writes to stdout and stderr until it ends."""
        with self, ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(file.read) for file in (self.stdout, self.stderr)]
            with suppress(BrokenPipeError):
                self.stdin.write(text)
                self.stdin.close()
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return texts[0].result(), texts[1].result()


def run_command(
    entry: str,
    *args: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str = "",
) -> "subprocess.CompletedProcess[str]":
    """Runs a program of `hydragen_cli.main` to its end, with a text on stdin."""
    with Command(entry, *args, cwd=cwd, env=env) as process:
        texts = process.communicate(text)
    assert process.returncode is not None
    return subprocess.CompletedProcess(args, process.returncode, *texts)


def output_of(cwd: Path, *args: str) -> str:
    """What `hydragen` writes on stdout, where it must succeed."""
    ran = run_command("run", *args, cwd=cwd)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _run(
    pipes: list[Connection],
    entry: str,
    args: tuple[str, ...],
    cwd: Path,
    env: dict[str, str],
    before: Callable[[], object] | None,
) -> None:
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin = os.fdopen(0, encoding="utf-8")  # multiprocessing has put /dev/null there
    sys.argv = ["-c", *args]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if before is not None:
        before()
    try:
        getattr(main, entry)()
    finally:
        atexit._run_exitfuncs()
