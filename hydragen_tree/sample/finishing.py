"""The programs of answers that end together, found on the machine's other cores.

To find one takes some 100 us of a core, as long as a GPU may take to draw the answer. Workers are
plain processes that import no more than `solution`, not multiprocessing's, which would run the
user's script again. They are given what comes at once in a round of the loop, portion by portion,
so that every sample is whole, and written, before the next round begins. A worker that is lost
costs nothing but time: its part is done here, as all is from then on.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, TypeVar

from hydragen_tree.sample.solution import extract_solution

T = TypeVar("T")

_MOST_WORKERS = 8
_FEWEST_CORES = 4  # the loop and the rest of the machine want some as well
_LARGE_RUN = 2_000  # samples; smaller ones are done before workers pay
_MANY = 64  # answers that are worth a message
_KEPT = 8_192  # programs that are remembered: samples of a problem often repeat one another
_WORKER = """
import sys
sys.path[:] = {!r}
from hydragen_tree.sample.finishing import serve
serve()
"""


class Answer(NamedTuple):
    """What a program is looked for in; see `extract_solution`."""

    completion: str
    prompt: str | None
    starter: str
    entry_point: str | None

    @property
    def program(self) -> str:
        """The program in it."""
        return extract_solution(
            self.completion, self.prompt, starter=self.starter, entry_point=self.entry_point
        )


class Programs:
    """Finds the programs in answers, each of them once.

    Args:
        n_workers: processes that help where many answers come at once.
    """

    def __init__(self, n_workers: int = 0) -> None:
        self._known: OrderedDict[Answer, str] = OrderedDict()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._is_asked = False  # they have been sent what nobody has fetched yet
        try:
            for _ in range(n_workers):
                self._workers.append(_start())
        except OSError:  # no more processes are allowed
            self.close()

    @property
    def n_workers(self) -> int:
        """Processes that help."""
        return len(self._workers)

    def ask(self, answers: Sequence[Answer]) -> Callable[[], list[str]]:
        """Has the workers look for the program in each answer.

        Returns:
            What waits for the programs, in the answers' order: to be called before more is asked.
        """
        if self._is_asked:  # what they still say would answer another question
            self.close()
        new = [answer for answer in dict.fromkeys(answers) if answer not in self._known]
        if self._workers and len(new) >= _MANY:
            self._talk(partial(self._send, new))

        def found() -> list[str]:
            programs = self._talk(self._receive) if self._is_asked else None
            if programs is None:
                programs = [answer.program for answer in new]
            self._known.update(zip(new, programs, strict=True))
            ordered = [self._known[answer] for answer in answers]
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return ordered

        return found

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.kill()
            worker.communicate()
        self._workers, self._is_asked = [], False

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, answers: Sequence[Answer]) -> None:
        """Gives each worker a run of the answers."""
        share = -(-len(answers) // len(self._workers))
        for number, worker in enumerate(self._workers):
            assert worker.stdin is not None
            pickle.dump(answers[number * share : (number + 1) * share], worker.stdin)
            worker.stdin.flush()
        self._is_asked = True

    def _receive(self) -> list[str]:
        """Their programs."""
        programs: list[str] = []
        for worker in self._workers:
            assert worker.stdout is not None
            programs += pickle.load(worker.stdout)
        self._is_asked = False
        return programs

    def _talk(self, talk: Callable[[], T]) -> T | None:
        """What it says; None where a worker is lost: then all end."""
        try:
            return talk()
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            return None
        except BaseException:  # interrupted: what they still say would answer another question
            self.close()
            raise


class NoPrograms(Programs):
    """Finds none: for a rank whose samples nobody reads."""

    def ask(self, answers: Sequence[Answer]) -> Callable[[], list[str]]:
        """Nothing for each answer."""
        return lambda: [""] * len(answers)


def workers_for(device: str, n_samples: int) -> int:
    """How many workers pay in a run.

    Args:
        device: the type of the model's.
        n_samples: to be drawn.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if device != "cuda" or n_samples < _LARGE_RUN or cores < _FEWEST_CORES:
        return 0
    return min(_MOST_WORKERS, cores // 2)


def serve() -> None:
    """A worker: answers come on stdin, their programs go to stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the run decides
    while True:
        try:
            answers: list[Answer] = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump([answer.program for answer in answers], sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER.format(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
