"""A box: one container with its runner, in which one program runs at a time.

The judge holds one end of every pipe. It feeds inputs, reads outputs up to a limit, and has the
last word: a container that does not answer in time is killed as a whole and started anew.
"""

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hydragen_tree.errors import HydragenError
from hydragen_tree.judge.sandbox.cgroup import ControlGroup, make_control_group, unique_name
from hydragen_tree.judge.sandbox.execution import Execution, communicate
from hydragen_tree.judge.sandbox.levels import ENVIRONMENT, Container, launch_command
from hydragen_tree.judge.sandbox.request import Outcome, Request
from hydragen_tree.judge.sandbox.streams import Streams, input_pipe, memory_file, output_pipe

_START_S = 20.0
_CLOSE_S = 2.0
_CHUNK = 1 << 16
_EXCERPT = 4096
_BOX_NUMBERS = itertools.count()


class BoxError(HydragenError):
    """The sandbox itself failed; never the fault of the program in it."""


class Box:
    """A container, started at its first use and again whenever it had to be killed.

    Args:
        container: how to start it.
        grouped: put it into a control group where the system allows.
    """

    def __init__(self, container: Container, *, grouped: bool = True) -> None:
        self.container = container
        self._name = unique_name(next(_BOX_NUMBERS))
        self._group: ControlGroup | None = make_control_group(self._name) if grouped else None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._workdir: Path | None = None
        self._kills = 0  # by the kernel, for want of memory, before the program that runs

    @property
    def in_group(self) -> bool:
        """Whether a control group limits the memory of the whole container."""
        return self._group is not None

    def run(self, request: Request, stdin: bytes | int = b"", stdout: int | None = None) -> Outcome:
        """Run a program to its end.

        Args:
            request: the program.
            stdin: its input, or the descriptor of a pipe to read it from, which is closed here.
            stdout: the descriptor of a pipe to write to, which is closed here; by default the
                output is collected.

        Raises:
            BoxError: the sandbox failed. The box can be used again.
        """
        execution = self.begin(request, stdin, stdout)
        communicate(execution)
        return self.end(request, execution)

    def begin(
        self, request: Request, stdin: bytes | int = b"", stdout: int | None = None
    ) -> Execution:
        """Start a program: `run` without waiting. The arguments are the same.

        Raises:
            BoxError: the sandbox failed. The box can be used again.
        """
        handed = [fd for fd in (stdin, stdout) if isinstance(fd, int)]
        try:
            control = self._control or self._start()
            if self._group is not None:
                self._group.limit(request.limits.memory_bytes)
            streams = self._send(control, request, stdin, stdout)
        except OSError as error:
            self.close()
            raise BoxError(f"the sandbox does not take programs: {error}") from error
        finally:
            for fd in handed:
                os.close(fd)
        return Execution(control, streams, request.limits.wall_s, self.close)

    def end(self, request: Request, execution: Execution) -> Outcome:
        """How a program ended that was started here, once `communicate` is done.

        Raises:
            BoxError: the sandbox failed. The box can be used again.
        """
        execution.streams.close()
        answer = execution.answer
        if answer is None or execution.error is not None:
            raise BoxError(f"the sandbox was lost: {execution.error}") from execution.error
        dirty = request.scratch and self.container.has_own_files and not self.container.nested
        if dirty or answer["left"]:
            self.close()
        self._remove_workdir()
        known, self._kills = self._kills, self._count_kills()
        if answer.get("fault"):
            raise BoxError(str(answer["fault"]))
        return self._outcome(answer, execution.streams, out_of_memory=self._kills > known)

    def close(self) -> None:
        """Kill the container and everything in it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # The runner kills its program and ends when its socket closes; a stuck one is killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_S)
            self._process.kill()
            self._process.wait()
            self._process = None
        self._remove_workdir()

    def dispose(self) -> None:
        """Close for good, and remove the control group."""
        self.close()
        if self._group is not None:
            self._group.remove()
            self._group = None

    def ensure(self) -> None:
        """Start the container if it is not execution.

        Raises:
            BoxError: it does not start; the message holds what it said.
        """
        if self._control is None:
            try:
                self._start()
            except OSError as error:
                raise BoxError(str(error)) from error

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            errors_r, errors_w = os.pipe()
            stack.callback(os.close, errors_r)
            join_files = self._group.join_files if self._group else []
            self._process = subprocess.Popen(
                launch_command(self.container, join_files, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors_w,
                pass_fds=[theirs.fileno()],
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
            os.close(errors_w)
            theirs.close()
            ours.settimeout(_START_S)
            try:
                greeting = ours.recv(_CHUNK)
            except TimeoutError:
                greeting = b""
            if not greeting:
                self.close()
                os.set_blocking(errors_r, False)
                said = b""
                with contextlib.suppress(OSError):
                    said = os.read(errors_r, _EXCERPT)
                last = said.decode(errors="replace").strip().rpartition("\n")[2]
                raise BoxError(f"{self.container.level} does not start: {last or 'no answer'}")
            stack.pop_all()
            os.close(errors_r)
        self._control = ours
        self._kills = self._count_kills()
        return ours

    def _count_kills(self) -> int:
        return self._group.kills() if self._group is not None else 0

    def _send(
        self, control: socket.socket, request: Request, stdin: bytes | int, stdout: int | None
    ) -> Streams:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            in_r, in_w = input_pipe(stdin, theirs, ours)
            out_r, out_w = output_pipe(stdout, theirs, ours)
            err_r, err_w = output_pipe(None, theirs, ours)
            assert err_r is not None
            fds = [in_r, out_w, err_w]
            if os.getuid() == 0:  # the program is somebody else, and may open /dev/stdin
                for fd in fds:
                    os.fchmod(fd, 0o666)
            for _, text in request.sources:
                fds.append(memory_file(text.encode(errors="surrogateescape"), theirs))
            if request.image is not None:
                fds.append(request.image)
            fds += [memory_file(content, theirs) for content in request.files]
            socket.send_fds(control, [json.dumps(self._message(request)).encode()], fds)
            ours.pop_all()
        pending = memoryview(stdin if isinstance(stdin, bytes) else b"")
        return Streams(in_w, pending, out_r, err_r, request.limits.output_bytes)

    def _message(self, request: Request) -> dict[str, Any]:
        limits = request.limits
        place = self._place(request)

        def fill(text: str) -> str:
            return text.replace("{scratch}", place)

        return {
            "argv": [fill(word) for word in request.argv],
            "sources": [name for name, _ in request.sources],
            "role": request.role,
            "image": request.image is not None,
            "make": [fill(path) for path in request.make],
            "collect": fill(request.collect),
            "scratch": place if request.scratch else "",
            "chdir": place,
            "limits": {
                "cpu_s": limits.cpu_s,
                "wall_s": limits.wall_s,
                "memory_bytes": limits.memory_bytes,
                "processes": limits.processes,
                "file_bytes": limits.file_bytes,
            },
        }

    def _place(self, request: Request) -> str:
        """The working directory: writable for tools, and for programs in their own namespaces."""
        container = self.container
        if container.has_own_files:
            return "/tmp" if container.nested or request.scratch else "/"
        if container.level == "landlock" and not request.scratch:
            return "/"
        if self._workdir is None:
            self._workdir = Path(tempfile.mkdtemp(prefix="hydragen-judge-"))
        return str(self._workdir)

    def _remove_workdir(self) -> None:
        if self._workdir is not None:
            shutil.rmtree(self._workdir, ignore_errors=True)
            self._workdir = None

    def _outcome(self, answer: dict[str, Any], streams: Streams, *, out_of_memory: bool) -> Outcome:
        status = answer["status"]
        killed = "output" if streams.too_much else answer["killed"]
        if out_of_memory and not killed:
            killed = "memory"
        signalled = os.WIFSIGNALED(status)
        return Outcome(
            exit_status=None if signalled else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if signalled else None,
            killed=killed,
            refused=answer.get("refused", ""),
            cpu_s=answer["cpu_s"],
            wall_s=answer["wall_s"],
            memory_bytes=max(answer["peak_bytes"], answer["seen_bytes"]),
            stdout=b"".join(streams.out),
            stderr=bytes(streams.err_head + streams.err_tail),
            note=answer["note"],
            not_allowed=answer["not_allowed"],
            ended_at=answer["ended_at"],
        )
