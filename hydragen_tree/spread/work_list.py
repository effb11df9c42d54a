"""The samples of a run that nobody has drawn yet, handed out in pieces.

    add        samples that are to be drawn
    take       a piece of what is left, for a worker that has nothing to do
    finished   a sample has come; the same one may come twice, and counts once
    give_back  what a lost worker has not drawn of its piece is there for the others again

Pieces are handed out in rounds of one a worker, each round three fifths of the work that is left:
few pieces, since what two of them share is computed twice, and small ones towards the end, so that
all workers end together though some are faster and samples differ in length. A problem is cut only
where it does not fit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sample import Sample

_SHARE_OF_A_ROUND = 0.6  # even a worker half as fast as the others then ends with them
_ROWS_SHARE = 4  # a piece fills a quarter of a batch at least: smaller ones are hardly faster
_PRIOR_SAMPLES = 4  # as many samples of usual length are added to those a problem has shown


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Samples for one worker.

    Args:
        indices: by task id, ascending sample indices; none is empty.
    """

    indices: Mapping[str, NDArray[np.int64]]

    @property
    def n_samples(self) -> int:
        """How many samples it has."""
        return sum(own.size for own in self.indices.values())


def missing_samples(
    ranges: Mapping[str, range], done: Mapping[str, Collection[int]]
) -> dict[str, NDArray[np.int64]]:
    """By task id, the samples of a run that do not exist yet.

    Args:
        ranges: by task id, the run's sample indices.
        done: by task id, those that exist already.
    """
    missing: dict[str, NDArray[np.int64]] = {}
    for task, whole in ranges.items():
        own = np.arange(whole.start, whole.stop, dtype=np.int64)
        if there := done.get(task):
            own = own[~np.isin(own, np.fromiter(there, np.int64))]
        if own.size:
            missing[task] = own
    return missing


class WorkList:
    """What is left of a run.

    Args:
        prompts: of the run, in the order in which they are to be drawn.
        ranges: by task id, the run's sample indices, of which some or all are added.
        workers: how many the pieces are for.
        max_tokens: of a sample.
        max_rows: of a worker's batch.

    Attributes:
        n_samples: how many there are to draw.
        n_finished: how many of them have come.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        ranges: Mapping[str, range],
        *,
        workers: int,
        max_tokens: int,
        max_rows: int,
    ) -> None:
        self._workers, self._max_tokens = workers, max_tokens
        self._least_samples = max(1, max_rows // _ROWS_SHARE)
        self._first = {task: own.start for task, own in ranges.items()}
        self._finished = {task: np.zeros(len(own), np.bool_) for task, own in ranges.items()}
        self._prompt_tokens = dict.fromkeys(ranges, 0)
        for prompt in prompts:
            if prompt.task_id in ranges:
                self._prompt_tokens[prompt.task_id] += len(prompt.token_ids)
        self._waiting: dict[str, NDArray[np.int64]] = {}
        self.n_samples = 0
        self.n_finished = 0
        self._drawn: dict[str, tuple[int, int]] = {}  # samples and tokens that have come
        self._all_drawn = (0, 0)
        self._taken_in_round = 0

    def add(self, indices: Mapping[str, NDArray[np.int64]]) -> None:
        """Takes samples that are to be drawn, after all that wait; ascending, and none twice."""
        for task, own in indices.items():
            before = self._waiting.get(task)
            self._waiting[task] = own if before is None else np.union1d(before, own)
            self.n_samples += own.size

    @property
    def n_waiting(self) -> int:
        """Samples that no worker has."""
        return sum(own.size for own in self._waiting.values())

    @property
    def is_finished(self) -> bool:
        """Every sample has come."""
        return self.n_finished == self.n_samples

    def take(self) -> Piece | None:
        """A piece for a worker; None if nothing waits."""
        if not self._waiting:
            return None
        work = sum(self._work(task, own.size) for task, own in self._waiting.items())
        share = _SHARE_OF_A_ROUND / self._workers  # of what was left when the round began
        share_of_rest = share / (1 - self._taken_in_round * share)
        self._taken_in_round = (self._taken_in_round + 1) % self._workers
        least = min(self._least_samples, -(-self.n_waiting // self._workers))
        return self._cut(work * share_of_rest, least)

    def finished(self, sample: Sample) -> bool:
        """Takes note of a sample; False if it has come before."""
        task = sample.task_id
        place = sample.sample_index - self._first[task]
        if self._finished[task][place]:
            return False
        self._finished[task][place] = True
        self.n_finished += 1
        samples, tokens = self._drawn.get(task, (0, 0))
        self._drawn[task] = samples + 1, tokens + sample.n_tokens
        self._all_drawn = self._all_drawn[0] + 1, self._all_drawn[1] + sample.n_tokens
        return True

    def give_back(self, piece: Piece) -> int:
        """Takes back what has not come of a piece; it is the next to be taken.

        Returns:
            How many samples that is.
        """
        back = {}
        for task, own in piece.indices.items():
            own = own[~self._finished[task][own - self._first[task]]]
            if own.size:
                back[task] = own
        for task, own in self._waiting.items():
            back[task] = np.union1d(back[task], own) if task in back else own
        n_back = sum(own.size for own in back.values())
        n_back -= sum(own.size for own in self._waiting.values())
        self._waiting = back
        return n_back

    def _cut(self, work: float, least: int) -> Piece:
        """The first waiting samples, as many as are this much work, `least` at any rate."""
        taken: dict[str, NDArray[np.int64]] = {}
        spent, size = 0.0, 0
        for task, own in self._waiting.items():
            whole = self._work(task, own.size)
            if spent + whole <= work or size + own.size <= least:
                taken[task] = own
                spent, size = spent + whole, size + own.size
                continue
            if 2 * spent >= work and 2 * size >= least:
                break  # rather somewhat less than a problem cut in two
            room = work - spent - self._prompt_tokens[task]
            fitting = max(int(room / self._length(task)), least - size, 0)
            if fitting:
                taken[task] = own[:fitting]
            break
        for task, own in taken.items():
            rest = self._waiting.pop(task)[own.size :]
            if rest.size:
                self._waiting = {task: rest, **self._waiting}
        return Piece(taken)

    def _work(self, task: str, samples: int) -> float:
        """Predicted work of samples of one problem: the tokens that are computed for them."""
        return self._prompt_tokens[task] + samples * self._length(task)

    def _length(self, task: str) -> float:
        """Tokens that a sample is predicted to have, by those of its problem, and of all."""
        all_samples, all_tokens = self._all_drawn
        usual = all_tokens / all_samples if all_samples else float(self._max_tokens)
        samples, tokens = self._drawn.get(task, (0, 0))
        return (tokens + _PRIOR_SAMPLES * usual) / (samples + _PRIOR_SAMPLES)
