"""The levels of isolation, strongest first, and the command that starts a container at each."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from hydragen_tree.judge.sandbox.interpreter import Interpreter

LevelName = Literal["bubblewrap", "unshare", "landlock", "rlimits"]
LEVELS: tuple[LevelName, ...] = ("bubblewrap", "unshare", "landlock", "rlimits")

GUEST = Path(__file__).parent / "guest"
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
)
SCRATCH = ("/tmp", "/dev/shm")
SCRATCH_BYTES = 64 << 20
# A fixed hash seed: a program that depends on the order of a set gets the same verdict twice.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class Container:
    """How to start one container.

    Args:
        level: the level of isolation.
        command: what to execute, up to the runner and its setting.
        nested: the runner makes namespaces for every program; else, except at the last level, a
            program may start no processes and write nothing, so that one can follow another.
        read: paths that programs can read.
    """

    level: LevelName
    command: tuple[str, ...]
    nested: bool
    read: tuple[str, ...]

    @property
    def has_own_files(self) -> bool:
        """Whether it has a file system of its own."""
        return self.level in ("bubblewrap", "unshare")


def build(level: LevelName, interpreter: Interpreter, *, nested: bool = True) -> Container | None:
    """The container of a level; None where its program is not installed.

    Args:
        level: the level wanted.
        interpreter: the Python inside.
        nested: for bubblewrap: keep the right to make namespaces for every program.
    """
    below_usr = ("/usr/", "/bin/", "/lib/")
    prefixes = [p for p in interpreter.prefixes if not (p + "/").startswith(below_usr)]
    read = tuple(p for p in (*_SYSTEM, *prefixes, str(GUEST)) if Path(p).exists())
    own_namespaces = level == "unshare" or (level == "bubblewrap" and nested)
    setting = {
        "level": level,
        "nested": own_namespaces,
        "read": read,
        "scratch": SCRATCH if level in ("bubblewrap", "unshare") else (),
        "scratch_bytes": SCRATCH_BYTES,
    }
    runner = _python_command(interpreter.path, "runner", setting)
    if level == "bubblewrap":
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            return None
        command = [*_bubblewrap(bwrap, read, nested=nested), *runner]
    elif level == "unshare":
        unshare = shutil.which("unshare")
        if unshare is None:
            return None
        command = [unshare, *_UNSHARE, "--", *runner]
    else:
        command = runner
    return Container(level, tuple(command), own_namespaces, read)


def launch_command(container: Container, cgroups: list[str], control_fd: int) -> list[str]:
    """The command line that the judge itself executes.

    Args:
        container: what to start.
        cgroups: files through which its first process joins control groups.
        control_fd: the runner's end of the socket, among the descriptors handed down.
    """
    setting = {
        "command": container.command,
        "cgroups": cgroups,
        "control_fd": control_fd,
        "read": container.read,
        "drop_root": container.has_own_files,
    }
    return _python_command(sys.executable, "launch", setting)


_UNSHARE = (
    *("--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"),
    *("--fork", "--kill-child=KILL"),
)


def _bubblewrap(bwrap: str, read: tuple[str, ...], *, nested: bool) -> list[str]:
    command = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--uid", "1000", "--gid", "1000", "--hostname", "judge"]
    command += ["--die-with-parent", "--new-session", "--as-pid-1"]
    # First, as what can be read may lie below it.
    if "--size" in _help_text(bwrap):
        command += ["--size", str(SCRATCH_BYTES)]
    command += ["--tmpfs", "/tmp"]
    for path in read:
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        else:
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    return [*command, "--cap-add", "CAP_SYS_ADMIN"] if nested else command


@lru_cache
def _help_text(program: str) -> str:
    answer = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    return answer.stdout + answer.stderr


def _python_command(python: str, module: str, setting: dict[str, Any]) -> list[str]:
    """Run `main` of a module of the guest folder, with nothing else on the path.

    It returns only where a program takes over the process, and gives what runs it.
    """
    start = (
        "import sys; sys.path[0] = sys.argv.pop(1)\n"
        f"from guest.{module} import main\n"
        "sys.path[0] = ''; main(sys.argv.pop(1))()\n"
    )
    return [python, "-s", "-c", start, str(GUEST.parent), json.dumps(setting)]
