"""A box: one container with its runner, in which one program runs at a time.

The judge holds one end of every pipe. It feeds inputs, reads outputs up to a limit, and has the
last word: a container that does not answer in time is killed as a whole and started anew.
"""

import contextlib
import itertools
import json
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hydragen_tree.errors import HydragenError
from hydragen_tree.judge.cgroup import Cage, make_cage, unique_name
from hydragen_tree.judge.levels import ENVIRONMENT, Container, launch_command
from hydragen_tree.judge.request import Limits, Outcome, Request
from hydragen_tree.judge.streams import Streams, input_pipe, memory_file, output_pipe

_START_S = 20.0
_GRACE_S = 5.0
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
        handed = [fd for fd in (stdin, stdout) if isinstance(fd, int)]
        try:
            control = self._control or self._start()
            kills = self._limit(request.limits)
            streams = self._send(control, request, stdin, stdout)
        except OSError as error:
            self.close()
            raise BoxError(f"the sandbox does not take programs: {error}") from error
        finally:
            for fd in handed:
                os.close(fd)
        try:
            answer = self._converse(control, streams, request.limits)
        except (OSError, ValueError) as error:
            self.close()
            raise BoxError(f"the sandbox was lost: {error}") from error
        finally:
            streams.close()
        soiled = request.scratch and self.container.has_own_files and not self.container.nested
        if soiled or answer["left"]:
            self.close()
        self._clear_desk()
        if answer.get("fault"):
            raise BoxError(str(answer["fault"]))
        return self._outcome(answer, streams, starved=self._kills() > kills)

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
        return ours

    def _limit(self, limits: Limits) -> int:
        if self._cage is not None:
            self._cage.limit(limits.memory_bytes)
        return self._kills()

    def _kills(self) -> int:
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

    def _converse(self, control: socket.socket, streams: Streams, limits: Limits) -> dict[str, Any]:
        """Feed and read the program until the runner tells how it ended and its pipes are dry."""
        deadline = time.monotonic() + limits.wall_s + _GRACE_S
        answer: dict[str, Any] | None = None
        asked = False
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            streams.register(selector)
            while len(selector.get_map()) > 0:
                left_s = deadline - time.monotonic()
                if left_s <= 0 and answer is None:
                    raise TimeoutError(f"no answer within {limits.wall_s + _GRACE_S:.0f} s")
                events = selector.select(max(0.0, left_s))
                if answer is not None and not events:
                    break  # a process that escaped our reach holds a pipe open
                for key, _ in events:
                    if key.fd not in selector.get_map():
                        continue  # closed by an event before it
                    if key.fileobj is control:
                        data = control.recv(_CHUNK)
                        if not data:
                            raise ConnectionError("the runner has died")
                        answer = json.loads(data)
                        deadline = time.monotonic() + 0.5
                        selector.unregister(control)
                        streams.stop_feeding(selector)
                    else:
                        streams.move(selector, key.fd)
                if streams.too_much and not asked and answer is None:
                    control.send(b"kill")
                    asked = True
        assert answer is not None
        return answer

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
