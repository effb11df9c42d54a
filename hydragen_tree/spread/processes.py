"""Workers that are processes of this machine, one a device.

Each is a Python of its own, connected by a socket. It is started as a program and not by
`multiprocessing`, which would run the caller's script again in it, and it has a session of its own,
so that Ctrl-C reaches this process alone. A process that ends, whatever ends it, closes its socket:
that is how its loss is noticed, and how it notices that we are gone.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from signal import Signals

from hydragen_tree.errors import HydragenError
from hydragen_tree.spread.work_list import Piece
from hydragen_tree.spread.worker import Assignment, Lost, Message, SamplerMaker

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from hydragen_tree.spread.child import main; main(int(sys.argv[1]))"
)
_PATIENCE_S = 5.0


class ProcessCrew:
    """Processes that draw, each with a model of its own. They start with the first run.

    Args:
        makers: by the worker's name, what makes its sampler.
        threads: that torch uses in each; None: as many as it likes.
    """

    def __init__(self, makers: Mapping[str, SamplerMaker], threads: int | None = None) -> None:
        self._makers, self._threads = makers, threads
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._connections: dict[int, Connection] = {}  # of workers that are not lost
        self._heard: deque[int] = deque()  # workers with something to say
        self._errors: dict[int, HydragenError] = {}

    @property
    def names(self) -> list[str]:
        """Of the workers, in their order."""
        return list(self._makers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers; none before the first run."""
        return [self._processes[worker].pid for worker in sorted(self._processes)]

    def begin(self, assignment: Assignment) -> None:
        """Tells all workers of a run; each answers `Ready`. Those that were lost start anew."""
        for worker, maker in enumerate(self._makers.values()):
            if worker not in self._connections:
                self._start(worker, maker)
        for worker in self._connections:
            self._send(worker, replace(assignment, measures=worker == 0))

    def give(self, worker: int, piece: Piece) -> None:
        """Has a worker draw a piece; it answers with samples, and with `Idle` when all are done."""
        self._send(worker, piece)

    def receive(self) -> tuple[int, Message]:
        """The next message of any worker, and which; waits for it. After `Lost` none follows."""
        while not self._heard:
            ready = wait(list(self._connections.values()))
            self._heard += (w for w, own in self._connections.items() if own in ready)
        worker = self._heard.popleft()
        try:
            message: Message = self._connections[worker].recv()
        except (EOFError, OSError):
            self._connections.pop(worker).close()
            said = worker in self._errors
            message = Lost(self._errors.pop(worker) if said else self._ending(worker))
        else:
            if isinstance(message, Lost):
                self._errors[worker] = message.error
                return self.receive()  # until the process has ended, too
        return worker, message

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for connection in self._connections.values():
            connection.close()
        for process in self._processes.values():
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes, self._connections, self._errors = {}, {}, {}
        self._heard.clear()

    def _start(self, worker: int, maker: SamplerMaker) -> None:
        ours, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._processes[worker] = subprocess.Popen(
                [sys.executable, "-c", _START, str(number), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=_stderr(),  # stdout belongs to the samples
                pass_fds=[number],
                start_new_session=True,
            )
        self._connections[worker] = ours
        self._send(worker, (maker, self._threads))

    def _send(self, worker: int, message: object) -> None:
        with suppress(OSError):  # a worker that is gone is noticed where it is listened to
            self._connections[worker].send(message)

    def _ending(self, worker: int) -> HydragenError:
        process = self._processes[worker]
        code = process.wait()
        if code >= 0:
            return HydragenError(f"ended with exit code {code}")
        hint = " (was there too little memory?)" if code == -Signals.SIGKILL else ""
        return HydragenError(f"killed by {Signals(-code).name}{hint}")


def _stderr() -> int:
    """Where a process may write what nobody reads as data."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2
