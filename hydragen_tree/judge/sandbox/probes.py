"""Real attempts to get out of the sandbox, and what came of them.

Every attempt is a program run as any other. None can hurt the machine if it succeeds: files it may
overwrite, processes it may end and secrets it may read are made for it, and every bomb is small.
"""

import contextlib
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.request import Outcome, Request, RunLimits

_LIMITS = RunLimits(cpu_s=4, wall_s=8, memory_bytes=256 << 20, processes=64)
_FORKS = 300
_DISK_MIB = 192
_TOUCHED_MIB = 640

_WRITE = """
import os, sys
path = sys.argv[1]
for attempt in (lambda: open(path, "w").write("changed"), lambda: os.unlink(path),
                lambda: os.chmod(path, 0), lambda: open(path + "-new", "w")):
    try:
        attempt()
    except OSError as error:
        print(error.strerror)
"""
_READ = """
import os, sys
secret, home = sys.argv[1:]
for attempt in (lambda: open(secret).read(), lambda: os.listdir(home)):
    try:
        print(attempt())
    except OSError as error:
        print(error.strerror)
"""
_CONNECT = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[2] == "tcp" else socket.SOCK_DGRAM
try:
    with socket.socket(socket.AF_INET, kind) as out:
        out.settimeout(2)
        out.connect(("127.0.0.1", int(sys.argv[1])))
        out.send(b"out")
    print("sent")
except OSError as error:
    print(error.strerror)
"""
_SIGNAL = """
import os, sys
try:
    os.kill(int(sys.argv[1]), 9)
    print("sent")
except OSError as error:
    print(error.strerror)
"""
_FORK = """
import os, sys, time
for count in range(int(sys.argv[1])):
    try:
        if os.fork() == 0:
            time.sleep(20)
    except OSError as error:
        print(count, "processes, then:", error.strerror, flush=True)
        break
else:
    print("all", flush=True)
"""
_FILL = """
import os, sys
written = 0
try:
    for number in range(int(sys.argv[1])):
        with open(f"hydragen-probe-{number}", "wb") as file:
            written += file.write(bytes(1 << 20))
    print("all")
except OSError as error:
    print(written >> 20, "MiB, then:", error.strerror)
"""
_ALLOCATE = """
import sys
try:
    bytearray(100 << 30)
    print("all")
except MemoryError:
    print("refused")
"""
_TOUCH = """
import sys
held = []
for _ in range(int(sys.argv[1])):
    held.append(b"x" * (1 << 20))
print("all")
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Args:
        name: what was tried.
        stopped: it did not succeed.
        detail: what happened, for people.
    """

    name: str
    stopped: bool
    detail: str


def make_attempts(box: Box) -> list[Attempt]:
    """Try to get out of a box in every way we know.

    Raises:
        BoxError: the sandbox does not even run programs.
    """
    return [
        _write(box),
        _read(box),
        _network(box, "tcp"),
        _network(box, "udp"),
        _signal(box),
        _fork(box),
        _fill(box),
        _allocate(box),
        _touch(box),
    ]


def _run(box: Box, code: str, *args: object) -> Outcome:
    argv = ["attempt.py", *map(str, args)]
    return box.run(Request(_LIMITS, argv=argv, sources=[("attempt.py", code)]))


def _said(outcome: Outcome) -> str:
    if outcome.killed:
        return f"ended by its limit: {outcome.killed}"
    text = outcome.stdout.decode("utf-8", "replace").strip()
    last = text or outcome.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return last.replace("\n", "; ")[:200] or f"ended by signal {outcome.signal}"


@contextlib.contextmanager
def _bait(text: str) -> Iterator[Path]:
    """A file of ours that no program has any business with, in a directory open to all."""
    with tempfile.TemporaryDirectory(prefix="hydragen-probe-") as directory:
        Path(directory).chmod(0o777)
        file = Path(directory) / "bait"
        file.write_text(text)
        file.chmod(0o666)
        yield file


def _write(box: Box) -> Attempt:
    with _bait("untouched") as file:
        outcome = _run(box, _WRITE, file)
        alone = [file] == list(file.parent.iterdir())
        intact = alone and file.read_text() == "untouched" and file.stat().st_mode & 0o222 != 0
    return Attempt("write outside", intact, _said(outcome) if intact else "a file was changed")


def _read(box: Box) -> Attempt:
    secret = secrets.token_hex(16)
    home = Path.home()
    with _bait(secret) as file:
        outcome = _run(box, _READ, file, home)
    names = {name for name in _names(home) if not name.startswith("hydragen")}
    output = outcome.stdout.decode("utf-8", "replace")
    # An interpreter that lives below the home directory leaves the way to it visible.
    seen = sum(repr(name) in output for name in names)
    stopped = secret not in output and seen <= 1
    return Attempt("read files, home", stopped, _said(outcome) if stopped else "they can be read")


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []


def _network(box: Box, kind: str) -> Attempt:
    style = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, style) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.05)
        if kind == "tcp":
            listener.listen()
        outcome = _run(box, _CONNECT, listener.getsockname()[1], kind)
        try:
            if kind == "tcp":
                listener.accept()[0].close()
            else:
                listener.recv(16)
            arrived = True
        except TimeoutError:
            arrived = False
    return Attempt(f"{kind} out", not arrived, "it arrived" if arrived else _said(outcome))


def _signal(box: Box) -> Attempt:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        try:
            outcome = _run(box, _SIGNAL, victim.pid)
            alive = victim.poll() is None
        finally:
            victim.kill()
    return Attempt("signal others", alive, _said(outcome) if alive else "a process was ended")


def _fork(box: Box) -> Attempt:
    outcome = _run(box, _FORK, _FORKS)
    stopped = outcome.stdout.strip() != b"all"
    return Attempt("fork bomb", stopped, _said(outcome) if stopped else f"{_FORKS} processes")


def _fill(box: Box) -> Attempt:
    outcome = _run(box, _FILL, _DISK_MIB)
    stopped = outcome.stdout.strip() != b"all"
    return Attempt("fill the disk", stopped, _said(outcome) if stopped else f"{_DISK_MIB} MiB")


def _allocate(box: Box) -> Attempt:
    outcome = _run(box, _ALLOCATE)
    stopped = outcome.stdout.strip() != b"all"
    return Attempt("allocate 100 GB", stopped, _said(outcome) if stopped else "100 GB")


def _touch(box: Box) -> Attempt:
    outcome = _run(box, _TOUCH, _TOUCHED_MIB)
    stopped = outcome.stdout.strip() != b"all"
    return Attempt("use memory", stopped, _said(outcome) if stopped else f"{_TOUCHED_MIB} MiB")
