"""Workers that are processes of this machine, one a device.

A worker whose model is held by several devices is several processes, its ranks. Rank 0 is the one
that is spoken to and that answers; it tells the others. With one of them all are lost.

Each process is a Python of its own, connected by a socket. It is started as a program and not by
`multiprocessing`, which would run the caller's script again in it, and it has a session of its own,
so that Ctrl-C reaches this process alone. A process that ends, whatever ends it, closes its socket:
that is how its loss is noticed, and how it notices that we are gone.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory

from hydragen_tree.errors import HydragenError
from hydragen_tree.model.peer_sums import NO_MULTICAST
from hydragen_tree.model.ranks import RankLostError, Ranks
from hydragen_tree.spread.work_list import Piece
from hydragen_tree.spread.worker import Assignment, Lost, Message, Place, SamplerMaker

_START = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from hydragen_tree.spread.child import main; main({}, compiles={})"
)
_PATIENCE_S = 5.0
_LAST_WORDS_S = 2.0  # in which ranks say why, once one of them is lost
# Ranks are of one machine. Sums go without NVLink's multicast: not every machine lets programs use
# it. And sets of strings have one order in all ranks.
OF_RANKS = {
    "NCCL_NVLS_ENABLE": "0",
    NO_MULTICAST: "1",
    "PYTHONHASHSEED": "0",
}
if sys.platform == "linux":
    OF_RANKS |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(slots=True)
class _Process:
    """A process of a worker.

    Attributes:
        running: the process.
        connection: to it.
        error: why it is lost, once it has said so.
    """

    running: subprocess.Popen[bytes]
    connection: Connection
    error: HydragenError | None = None

    def tell(self, message: object) -> None:
        """Sends a message; one that is gone is noticed where it is listened to."""
        with suppress(OSError):
            self.connection.send(message)

    def hear(self) -> Message | None:
        """The next message, waited for; None: it is gone."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> None:
        """Ends it, whatever it does."""
        self.connection.close()
        try:
            self.running.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()

    def ending(self) -> HydragenError:
        """Why it is gone, by what it said or by its exit."""
        if self.error is not None:
            return self.error
        code = self.running.wait()
        if code >= 0:
            return HydragenError(f"ended with exit code {code}")
        hint = " (was there too little memory?)" if code == -Signals.SIGKILL else ""
        return HydragenError(f"killed by {Signals(-code).name}{hint}")


class ProcessCrew:
    """Processes that draw, each worker with a model of its own. They start with the first run.

    Args:
        makers: by the worker's name, what makes the sampler of each of its ranks; mostly of one.
        threads: that torch uses in each process; None: as many as it likes.
        compiles: their layers may be compiled; else they do without torch's compiler if they can.
    """

    def __init__(
        self,
        makers: Mapping[str, Sequence[SamplerMaker]],
        threads: int | None = None,
        *,
        compiles: bool = True,
    ) -> None:
        self._makers, self._threads, self._compiles = makers, threads, compiles
        self._workers: dict[int, list[_Process]] = {}  # those that are not lost
        self._meetings: dict[int, TemporaryDirectory[str]] = {}
        self._heard: deque[tuple[int, int]] = deque()  # workers and ranks with something to say

    @property
    def names(self) -> list[str]:
        """Of the workers, in their order."""
        return list(self._makers)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes, worker by worker; none before the first run."""
        return [
            one.running.pid for worker in sorted(self._workers) for one in self._workers[worker]
        ]

    def begin(self, assignment: Assignment) -> None:
        """Tells all workers of a run; each answers `Ready`. Those that were lost start anew."""
        for worker, makers in enumerate(self._makers.values()):
            if worker not in self._workers:
                self._start(worker, makers)
        for worker, (first, *_) in self._workers.items():
            first.tell(replace(assignment, measures=worker == 0))

    def give(self, worker: int, piece: Piece) -> None:
        """Has a worker draw a piece; it answers with samples, and with `Idle` when all are done."""
        if worker in self._workers:
            self._workers[worker][0].tell(piece)

    def receive(self) -> tuple[int, Message]:
        """The next message of any worker, and which; waits for it. After `Lost` none follows."""
        while True:
            worker, rank = self._next_heard()
            process = self._workers[worker][rank]
            message = process.hear()
            if isinstance(message, Lost):
                process.error = message.error
            elif message is not None:
                return worker, message
            else:  # and not before: until the process has ended, too
                return worker, Lost(self._part_with(worker, rank))

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for processes in self._workers.values():
            for process in processes:
                process.connection.close()
        for worker in [*self._workers]:
            self._end(worker)

    def _next_heard(self) -> tuple[int, int]:
        while not self._heard:
            places = {
                process.connection: (worker, rank)
                for worker, processes in self._workers.items()
                for rank, process in enumerate(processes)
            }
            self._heard += [places[one] for one in wait([*places]) if isinstance(one, Connection)]
        return self._heard.popleft()

    def _start(self, worker: int, makers: Sequence[SamplerMaker]) -> None:
        size, meeting = len(makers), ""
        if size > 1:
            folder = self._meetings[worker] = TemporaryDirectory(prefix="hydragen-")
            meeting = str(Path(folder.name, "ranks"))
        environment = {**os.environ, **OF_RANKS} if size > 1 else None
        self._workers[worker] = []
        for rank, maker in enumerate(makers):
            process = _started(environment, self._compiles)
            self._workers[worker].append(process)
            process.tell(Place(maker, self._threads, Ranks(rank, size, meeting)))

    def _part_with(self, worker: int, rank: int) -> HydragenError:
        """Ends what is left of a worker of which a process is gone; says why it is."""
        processes = self._workers[worker]
        gone = {rank: processes[rank].ending()}
        end = time.monotonic() + _LAST_WORDS_S
        others = {p.connection: n for n, p in enumerate(processes) if n != rank}
        while others and (ready := wait([*others], max(0.0, end - time.monotonic()))):
            for connection in ready:
                assert isinstance(connection, Connection)
                number = others[connection]
                message = processes[number].hear()
                if isinstance(message, Lost):
                    processes[number].error = message.error
                elif message is None:
                    gone[number] = processes[number].ending()
                    del others[connection]
        self._end(worker, kill=True)
        # That another rank does not answer is no reason.
        own = {
            n: error for n, error in sorted(gone.items()) if not isinstance(error, RankLostError)
        }
        number, error = next(iter((own or gone).items()))
        if len(processes) == 1 or type(error) is not HydragenError:
            return error
        return HydragenError(f"rank {number}: ", *error.args)

    def _end(self, worker: int, kill: bool = False) -> None:
        for process in self._workers.pop(worker):
            if kill:
                process.running.kill()
            process.end()
        self._heard = deque(place for place in self._heard if place[0] != worker)
        if folder := self._meetings.pop(worker, None):
            folder.cleanup()


def _started(environment: Mapping[str, str] | None, compiles: bool) -> _Process:
    ours, theirs = Pipe()
    with theirs:
        number = theirs.fileno()
        running = subprocess.Popen(
            [sys.executable, "-c", _START.format(number, compiles), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=_stderr(),  # stdout belongs to the samples
            pass_fds=[number],
            start_new_session=True,
            env=environment,
        )
    return _Process(running, ours)


def _stderr() -> int:
    """Where a process may write what nobody reads as data."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2
