"""Which samples are drawn next, problem by problem.

Where verdicts decide how many samples a problem gets, they come in rounds: 32, then up to 64, 128,
... The next round of a problem is given when the verdicts of those before ask for it, whatever the
others are doing: the batch has their samples meanwhile, and so it stays full while the last samples
of a round end. Which samples are drawn depends on verdicts alone, not on how fast anything is.
"""

import time
from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.passk.stopping import Stopping
from hydragen_tree.solving.board import Board

_POLL_S = 0.05


class Rounds:
    """Feeds a sampler, and is told of every sample that has come.

    Args:
        rule: how many samples a problem gets.
        board: what became of them so far.
        done: by task id, samples that are there already.
        deadline: by `time.monotonic()`, after which nothing is given but the first samples; None:
            never.
        in_rounds: every problem is to have as many samples as the others, at any time.
        enough: samples that wait, with which no round is begun that no verdict asks for.
        is_all_judged: whether everything that was drawn is judged, as far as it can be.
        wait: called while there is nothing to draw before something is judged.

    Attributes:
        ended: problems that need no more samples.
        is_out_of_time: something was left to give at the deadline.
    """

    def __init__(
        self,
        rule: Stopping,
        board: Board,
        done: Mapping[str, Collection[int]],
        *,
        deadline: float | None,
        in_rounds: bool,
        enough: int,
        is_all_judged: Callable[[], bool],
        wait: Callable[[], None],
    ) -> None:
        self._rule, self._board, self._done = rule, board, done
        self._deadline, self._enough = deadline, enough
        self._is_all_judged, self._wait = is_all_judged, wait
        sizes = rule.looks() if in_rounds else (rule.n,)
        self._sizes = {task_id: list(sizes) for task_id in board.problems}  # of rounds to come
        self._given = dict.fromkeys(board.problems, 0)  # of a problem's first samples
        self._drawing = dict.fromkeys(board.problems, 0)
        self.ended: set[str] = set()
        self.is_out_of_time = False

    @property
    def open(self) -> Collection[str]:
        """Problems that may get more samples."""
        return self._sizes.keys()

    def give(self, n_waiting: int) -> Mapping[str, NDArray[np.int64]] | None:
        """The samples to draw next, by task id; None: none for now, or none any more.

        Waits for verdicts where nothing is drawn meanwhile.

        Args:
            n_waiting: samples that were given and have not come into the batch.
        """
        while not self.is_out_of_time:
            is_late = self._is_late()
            due = self._due(n_waiting)
            if due and is_late:
                self.is_out_of_time = True
                break
            for task_id, indices in due.items():
                self._drawing[task_id] = indices.size
            if due or any(self._drawing.values()) or not self._sizes:
                return due or None
            self._wait()
            time.sleep(_POLL_S)
        return None

    def came(self, task_id: str) -> None:
        """A sample of a problem has been drawn, and the board knows of it."""
        self._drawing[task_id] -= 1

    def _is_late(self) -> bool:
        is_first = not any(self._given.values())
        return not is_first and self._deadline is not None and time.monotonic() > self._deadline

    def _due(self, n_waiting: int) -> dict[str, NDArray[np.int64]]:
        due: dict[str, NDArray[np.int64]] = {}
        is_all_judged = self._is_all_judged()
        for task_id in list(self._sizes):
            if not self._is_next(task_id, n_waiting, is_all_judged):
                continue
            if self._rule.looks_at_verdicts and self._board.is_met(task_id):
                self.ended.add(task_id)
                del self._sizes[task_id]
                continue
            if (lacking := self._next_round(task_id)).size:
                due[task_id] = lacking
        return due

    def _is_next(self, task_id: str, n_waiting: int, is_all_judged: bool) -> bool:
        """Whether a problem's next round may begin, or be found to be unnecessary."""
        if self._drawing[task_id]:
            return False
        if not self._rule.looks_at_verdicts:
            return n_waiting < self._enough
        problem = self._board.problems[task_id]
        return is_all_judged or problem.judged >= problem.drawn

    def _next_round(self, task_id: str) -> NDArray[np.int64]:
        """What a problem lacks of its first samples, up to the first round that lacks any."""
        sizes, done = self._sizes[task_id], self._done.get(task_id, ())
        while sizes:
            first, self._given[task_id] = self._given[task_id], sizes.pop(0)
            own = [index for index in range(first, self._given[task_id]) if index not in done]
            if own:
                return np.array(own, np.int64)
        del self._sizes[task_id]
        return np.empty(0, np.int64)
