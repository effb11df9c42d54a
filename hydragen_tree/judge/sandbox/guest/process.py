"""One program's process: how it takes its place, and how its tree is measured and ended."""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import resource
import signal
import sys
import time
import types
from types import CodeType
from typing import Any

from . import kernel, landlock, refusals, seccomp

FIRST_FILE_FD = 10
_REPORT_FD = 3
_ABOVE_ALL = 64
_SWEEP_S = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOCK_HZ = os.sysconf("SC_CLK_TCK")
_OWN = ("ending", "runner", "serve", "beside", "checker")
_OWN_MODULES = (__package__, *(f"{__package__}.{name}" for name in _OWN))


class ProcessTree:
    """The processes below `root`, which is ours: an init, or the runner itself."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.seen_bytes = 0
        self.seen_cpu_s = 0.0

    def passed(self, limits: dict[str, Any]) -> str:
        """The name of a limit that the tree has passed by now, or an empty string."""
        cpu_s, resident = 0.0, 0
        pids = _below(self._root)
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # gone meanwhile
                continue
            cpu_s += sum(int(field) for field in fields[11:15]) / _CLOCK_HZ
            resident += int(fields[21]) * _PAGE
        if len(pids) > 1 and resident > limits["memory_bytes"]:
            resident = sum(map(_share_of_memory, pids))
        self.seen_bytes = max(self.seen_bytes, resident)
        self.seen_cpu_s = max(self.seen_cpu_s, cpu_s)
        if cpu_s > limits["cpu_s"]:
            return "cpu"
        if resident > limits["memory_bytes"]:
            return "memory"
        # Starting too many fails by itself, where the kernel counts them for us.
        return "processes" if len(pids) > 2 * limits["processes"] else ""

    def sweep(self) -> int:
        """Kill what the program left to us, its subreaper; the number of processes that remain."""
        deadline = time.monotonic() + _SWEEP_S
        while rest := _below(self._root):
            for pid in rest:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            _reap()
            if time.monotonic() > deadline:
                return len(rest)
        return 0


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _share_of_memory(pid: int) -> int:
    """Resident bytes of a process, where pages of several count for each in part."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = dict(line.split(b":") for line in file.read().splitlines()[1:])
        return int(lines[b"Pss"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _below(root: int) -> list[int]:
    """All processes below `root`, parents first."""
    found = [root]
    for pid in found:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
        except OSError:
            continue
    return found[1:]


def become_program(
    request: dict[str, Any],
    fds: list[int],
    report_fd: int,
    ruleset: int | None,
    filters: list[bytes],
    cached: CodeType | None,
) -> list[CodeType]:
    """Turn this fork into the program of `request`: its files, its limits, its group.

    Args:
        request: `argv`, `env`, `limits`, `sources` (names; Python only), `chdir`, `make`.
        fds: stdin, stdout, stderr, then one per source or the executable, then the files.
        report_fd: where the runner hears why a program was not started.
        ruleset: Landlock ruleset, if any.
        filters: seccomp filter, if any; with a second one the runner is told of what the first
            refuses, where that can be, and the second is for where it cannot.
        cached: the only source as it was compiled before, if it was.

    Returns:
        The compiled sources of a Python program. Any other is executed, and nothing returns.
    """
    os.setpgid(0, 0)  # no new session: the kernel would make a scheduling group for each
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    with open("/proc/self/oom_score_adj", "wb", 0) as file:
        file.write(b"1000")  # where memory is short, the program goes first
    if ruleset is not None:
        ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL)
    sources = _arrange(fds, report_fd, len(request["sources"]) or (1 if request["image"] else 0))
    os.chdir(request["chdir"])
    for name in request.get("make", ()):
        os.mkdir(name)
    _limit(request["limits"])
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    if ruleset is not None:
        landlock.restrict(ruleset)
    if len(filters) == 2:
        refusals.install(filters[0], filters[1], _REPORT_FD)
    elif filters:
        seccomp.install(filters[0])
    try:
        if not request["sources"]:
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and then inherited
                signal.signal(ignored, signal.SIG_DFL)
            image = sources[0] if request["image"] else request["argv"][0]
            os.execve(image, request["argv"], dict(os.environ))
        named = zip(sources, request["sources"])
        code = [cached or compile_source(read_whole(fd), name) for fd, name in named]
    except OSError as error:
        _refuse({"fault": f"{request['argv'][0]} cannot be started: {error}"})
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        _refuse({"refused": _describe(error)})
    os.closerange(_REPORT_FD, FIRST_FILE_FD)
    os.closerange(_ABOVE_ALL, 1024)
    _look_like_a_fresh_interpreter(request["argv"])
    return code


def _arrange(fds: list[int], report_fd: int, sources: int) -> list[int]:
    """Put standard streams at 0-2, the report at 3, files at 10 and up; the sources' places."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE_ALL) for fd in [*fds, report_fd]]
    for target, fd in enumerate(high[:3]):
        os.dup2(fd, target)
    os.dup2(high[-1], _REPORT_FD, inheritable=False)
    os.closerange(_REPORT_FD + 1, _ABOVE_ALL)
    for i, fd in enumerate(high[3 + sources : -1]):
        os.dup2(fd, FIRST_FILE_FD + i)
    places = high[3 : 3 + sources]
    for fd in high:
        if fd in places:
            os.set_inheritable(fd, False)
        else:
            os.close(fd)
    return places


def _limit(limits: dict[str, Any]) -> None:
    # The kernel counts whole ticks here, on a virtual machine some per cent more than were used.
    seconds = int(1.5 * limits["cpu_s"]) + 2
    memory = limits["memory_bytes"]
    wanted = {
        # Backstops: the runner's own eye on the tree is exact, these hold when it is slow.
        resource.RLIMIT_CPU: seconds,
        # Address space is not memory: thread stacks and allocator arenas are mostly untouched.
        resource.RLIMIT_AS: 2 * memory + (4 << 30),
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_NPROC: limits["processes"] + 2,
        resource.RLIMIT_MEMLOCK: 65536,
        resource.RLIMIT_STACK: memory,
    }
    for which, value in wanted.items():
        ceiling = resource.getrlimit(which)[1]
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(which, (value, value))


def read_whole(fd: int) -> bytes:
    """The content of a file, wherever the descriptor stands in it."""
    size = os.fstat(fd).st_size
    parts, at = [], 0
    while at < size:
        parts.append(os.pread(fd, size - at, at))
        at += len(parts[-1])
    return b"".join(parts)


def compile_source(source: bytes, name: str) -> CodeType:
    """Compile a program as the interpreter does a file."""
    return compile(source, name, "exec", dont_inherit=True)


def _describe(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    return f"{type(error).__name__}: {error}"


def _refuse(message: dict[str, str]) -> None:
    os.write(_REPORT_FD, json.dumps(message)[:4000].encode() + b"\n")
    os._exit(1)


def _look_like_a_fresh_interpreter(argv: list[str]) -> None:
    """Undo what tells this fork from `python solution.py`."""
    errors = "surrogateescape"
    sys.stdin = open(0, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors=errors, newline="\n", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", 1, encoding="utf-8", errors="backslashreplace", newline="\n", closefd=False
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = list(argv)
    sys.path[0:1] = [os.getcwd()]
    vars(sys.modules["__main__"])["__name__"] = __package__  # ours, for `show_error`
    sys.excepthook = show_error
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __file__=os.path.join(os.getcwd(), argv[0]))
    sys.modules["__main__"] = main


def show_error(kind: Any, error: BaseException, trace: Any) -> None:
    """Print a traceback without its first frames, which are ours.

    Args:
        kind: the error's class.
        error: the error.
        trace: its traceback.
    """
    own = trace
    while own and own.tb_frame.f_globals.get("__name__") in _OWN_MODULES:
        own = own.tb_next
    sys.__excepthook__(kind, error.with_traceback(own), own)
