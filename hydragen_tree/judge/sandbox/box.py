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
from hydragen_tree.judge.sandbox.cgroup import Cage, make_cage, unique_name
from hydragen_tree.judge.sandbox.levels import ENVIRONMENT, Container, launch_command
from hydragen_tree.judge.sandbox.request import Outcome, Request
from hydragen_tree.judge.sandbox.running import Running, attend
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
        caged: put it into a control group where the system allows.
    """

    def __init__(self, container: Container, *, caged: bool = True) -> None:
        self.container = container
        self._name = unique_name(next(_BOX_NUMBERS))
        self._cage: Cage | None = make_cage(self._name) if caged else None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._desk: Path | None = None
        self._kills = 0  # by the kernel, for want of memory, before the program that runs

    @property
    def caged(self) -> bool:
        """Whether a control group limits the memory of the whole container."""
        return self._cage is not None

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
        running = self.begin(request, stdin, stdout)
        attend(running)
        return self.end(request, running)

    def begin(
        self, request: Request, stdin: bytes | int = b"", stdout: int | None = None
    ) -> Running:
        """Start a program: `run` without waiting. The arguments are the same.

        Raises:
            BoxError: the sandbox failed. The box can be used again.
        """
        handed = [fd for fd in (stdin, stdout) if isinstance(fd, int)]
        try:
            control = self._control or self._start()
            if self._cage is not None:
                self._cage.limit(request.limits.memory_bytes)
            streams = self._send(control, request, stdin, stdout)
        except OSError as error:
            self.close()
            raise BoxError(f"the sandbox does not take programs: {error}") from error
        finally:
            for fd in handed:
                os.close(fd)
        return Running(control, streams, request.limits.wall_s, self.close)

    def end(self, request: Request, running: Running) -> Outcome:
        """How a program ended that was started here and attended to.

        Raises:
            BoxError: the sandbox failed. The box can be used again.
        """
        running.streams.close()
        answer = running.answer
        if answer is None or running.error is not None:
            raise BoxError(f"the sandbox was lost: {running.error}") from running.error
        soiled = request.scratch and self.container.has_own_files and not self.container.nested
        if soiled or answer["left"]:
            self.close()
        self._clear_desk()
        known, self._kills = self._kills, self._count_kills()
        if answer.get("fault"):
            raise BoxError(str(answer["fault"]))
        return self._outcome(answer, running.streams, starved=self._kills > known)

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
        self._clear_desk()

    def dispose(self) -> None:
        """Close for good, and remove the control group."""
        self.close()
        if self._cage is not None:
            self._cage.remove()
            self._cage = None

    def ensure(self) -> None:
        """Start the container if it is not running.

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
            doors = self._cage.doors if self._cage else []
            self._process = subprocess.Popen(
                launch_command(self.container, doors, theirs.fileno()),
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
        return self._cage.kills() if self._cage is not None else 0

    def _send(
        self, control: socket.socket, request: Request, stdin: bytes | int, stdout: int | None
    ) -> Streams:
        with contextlib.ExitStack() as sent, contextlib.ExitStack() as kept:
            in_r, in_w = input_pipe(stdin, sent, kept)
            out_r, out_w = output_pipe(stdout, sent, kept)
            err_r, err_w = output_pipe(None, sent, kept)
            assert err_r is not None
            fds = [in_r, out_w, err_w]
            if os.getuid() == 0:  # the program is somebody else, and may open /dev/stdin
                for fd in fds:
                    os.fchmod(fd, 0o666)
            for _, text in request.sources:
                fds.append(memory_file(text.encode(errors="surrogateescape"), sent))
            if request.image is not None:
                fds.append(request.image)
            fds += [memory_file(content, sent) for content in request.files]
            socket.send_fds(control, [json.dumps(self._message(request)).encode()], fds)
            kept.pop_all()
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
        if self._desk is None:
            self._desk = Path(tempfile.mkdtemp(prefix="hydragen-judge-"))
        return str(self._desk)

    def _clear_desk(self) -> None:
        if self._desk is not None:
            shutil.rmtree(self._desk, ignore_errors=True)
            self._desk = None

    def _outcome(self, answer: dict[str, Any], streams: Streams, *, starved: bool) -> Outcome:
        status = answer["status"]
        killed = "output" if streams.too_much else answer["killed"]
        if starved and not killed:
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
            ended_at=answer["ended_at"],
        )
