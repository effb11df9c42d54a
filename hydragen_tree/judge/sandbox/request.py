"""What a box is asked to run, within which limits, and how it ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FIRST_FILE_FD = 10  # as in guest/process.py


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one program may use.

    Args:
        cpu_s: processor time, over all its threads and processes.
        wall_s: elapsed time.
        memory_bytes: resident memory, over all its processes.
        output_bytes: standard output, and standard error too.
        processes: processes at a time.
        file_bytes: the size of any one file.
    """

    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int = 8 << 20
    processes: int = 64
    file_bytes: int = 32 << 20


Role = Literal["program", "serve", "serve_with_prelude", "harness", "beside", "checker"]


@dataclass(frozen=True, slots=True)
class Request:
    """One program to run.

    Args:
        limits: what it may use.
        argv: its arguments, its own name first.
        sources: (name, text) of Python code, the main file first; it can import the others.
        role: what is done with Python code: run it as a program, serve calls of its functions,
            run it as a test of another program's functions, run it with test code in the same
            process, or ask it as a checker.
        image: descriptor of an executable; with neither sources nor image, `argv[0]` is executed.
        files: contents of files, at `file_path(0)`, `file_path(1)`, ...
        make: directories to make first.
        collect: a file that the program may leave a note in.
        scratch: it is a tool (compiler, checker) that needs a directory to write to; `{scratch}`
            in `argv`, `make` and `collect` stands for it.
    """

    limits: RunLimits
    argv: Sequence[str] = ("solution.py",)
    sources: Sequence[tuple[str, str]] = ()
    role: Role = "program"
    image: int | None = None
    files: Sequence[bytes] = ()
    make: Sequence[str] = ()
    collect: str = ""
    scratch: bool = False


@dataclass(slots=True)
class Outcome:
    """How a program ended.

    Args:
        exit_status: its exit status; None when a signal ended it.
        signal: that signal.
        killed: the limit that we ended it for: cpu, wall, memory, processes or output.
        refused: why the interpreter did not accept its source.
        cpu_s: processor time.
        wall_s: elapsed time.
        memory_bytes: the most resident memory seen.
        stdout: its output, up to the limit.
        stderr: the start of its error output, and where that was long, its end.
        note: the start of the file named in `collect`.
        not_allowed: what it tried that its level of isolation allows to none, where that was
            noted; it need not have failed of it.
        ended_at: when it ended, on the machine's monotonic clock.
        talked_at: when it and its partner last said something, on the same clock; 0 without one.
        hung_up_at: when its partner was told that it had closed its output, though it lived, on
            the same clock; infinite if it was not.
    """

    exit_status: int | None = None
    signal: int | None = None
    killed: str = ""
    refused: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    note: str = ""
    not_allowed: str = ""
    ended_at: float = 0.0
    talked_at: float = 0.0
    hung_up_at: float = math.inf

    @property
    def succeeded(self) -> bool:
        """Whether the program began and ended by itself with exit status 0."""
        return self.exit_status == 0 and not self.killed and not self.refused


def file_path(index: int) -> str:
    """Where a program finds the file with this index."""
    return f"/proc/self/fd/{FIRST_FILE_FD + index}"
