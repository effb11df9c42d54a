"""What runs in a process of `ProcessCrew`."""

import logging
import os
import threading
import time
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hydragen_tree.imports import spare_imports
from hydragen_tree.threads import limit_spinning

if TYPE_CHECKING:
    from hydragen_tree.spread.worker import Worker

_FIGURES_S = 0.25


def main(number: int, compiles: bool) -> None:
    """Serves at a socket until the other side closes it.

    Args:
        number: the socket's file descriptor.
        compiles: layers may be compiled.
    """
    limit_spinning()
    line = _Line(Connection(number))
    quieten(compiles)
    from hydragen_tree.spread.worker import Lost, as_error

    try:
        _serve(line)
    except Exception as error:
        line.send(Lost(as_error(error)))
    # Not by way of torch's and CUDA's own ends: there is nothing left to save.
    os._exit(1)


class _Line:
    """The connection to who gives the work; its end is ours.

    Attributes:
        inbox: what has come.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.inbox: SimpleQueue[Any] = SimpleQueue()

    def listen(self) -> None:
        """Fills the inbox, from now on and from a thread of its own."""
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Any:
        """The next message, before `listen`."""
        return self._connection.recv()

    def send(self, message: object) -> None:
        """Sends a message."""
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def _listen(self) -> None:
        try:
            while True:
                self.inbox.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # at once: what is being drawn has nobody to go to


def _serve(line: _Line) -> None:
    import torch

    from hydragen_tree.spread.work_list import Piece
    from hydragen_tree.spread.worker import Hungry, Place, Worker

    place: Place = line.receive()
    line.listen()
    if place.threads is not None:
        torch.set_num_threads(place.threads)
    sampler, ranks = place.maker(ranks=place.ranks), place.ranks
    if sampler.source.device.type == "cuda":
        torch.cuda.set_device(sampler.source.device)  # kernels start on the current one
    ranks.join(sampler.source.device)
    worker = Worker(sampler)
    has_asked = False

    def say(message: object) -> None:
        if ranks.leads:
            line.send(message)

    def next_piece(hungry: bool) -> Piece | None:
        nonlocal has_asked
        if not line.inbox.empty():  # while it draws, nothing else comes than pieces
            has_asked = False
            piece: Piece = line.inbox.get()
            return piece
        if hungry and not has_asked:
            has_asked = True
            line.send(Hungry())
        return None

    if ranks.leads:
        threading.Thread(target=_report, args=(line, worker), daemon=True).start()
    while True:
        message = ranks.agree(line.inbox.get)
        if isinstance(message, Piece):
            has_asked = False
            for sample in worker.draw(
                message, lambda hungry: ranks.agree(lambda: next_piece(hungry))
            ):
                say(sample)
            say(worker.idle())
        else:
            say(worker.begin(message))


def _report(line: _Line, worker: "Worker") -> None:
    """Sends the figures of now, where they have changed."""
    from hydragen_tree.spread.worker import Figures

    told = None
    while True:
        time.sleep(_FIGURES_S)
        figures = Figures(worker.stats)
        if figures != told:
            line.send(figures)
            told = figures


def quieten(compiles: bool) -> None:
    """No bars and no messages of libraries: they would stand among those of other workers.

    Comes before anything else imports transformers, which is spared what no worker needs.

    Args:
        compiles: layers may be compiled.
    """
    spare_imports(compiles=compiles)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("huggingface_hub", "hydragen_tree", "hydragen_kernels"):
        logging.getLogger(name).setLevel(logging.ERROR)
