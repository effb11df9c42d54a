"""A sampler whose samples are drawn by several workers.

    while samples are missing:
        feed      samples into the work list, where they are given in the course of the run
        give      pieces of the work list to the workers that have nothing to do, or soon will
        receive   samples, which are yielded; figures; the news that a worker is lost
        give back what a lost worker has not drawn

Sample i of a task is the same whoever draws it, so what is yielded is what one process draws, in
another order.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from hydragen_tree.errors import HydragenError, InputError, Setting
from hydragen_tree.model.quantising import LogitError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.feeding import Feed
from hydragen_tree.sample.joining import Late
from hydragen_tree.sample.records import RunStats
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Part, sample_ranges
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.spread.figures import side_by_side
from hydragen_tree.spread.work_list import Piece, WorkList, missing_samples
from hydragen_tree.spread.worker import Assignment, Figures, Hungry, Idle, Lost, Message, Ready


class Crew(Protocol):
    """Workers, and the way to them; they are told apart by their number, from 0."""

    @property
    def names(self) -> Sequence[str]:
        """Of the workers, in their order."""

    def begin(self, assignment: Assignment) -> None:
        """Tells all workers of a run; each answers `Ready`."""

    def give(self, worker: int, piece: Piece) -> None:
        """Has a worker draw a piece; it answers with samples, and with `Idle` when all are done."""

    def receive(self) -> tuple[int, Message]:
        """The next message of any worker, and which; waits for it.

        A worker that is `Lost` says no more, unless it is `Ready` again.
        """

    def close(self) -> None:
        """Ends the workers, whatever they do."""


@dataclass(slots=True)
class WorkerState:
    """What is known of a worker.

    Attributes:
        name: of its device.
        doing: `loading`, `drawing`, `waiting` for work, or `lost`.
        stats: its figures in this run.
        started: `time.perf_counter()` when its weights were there.
        error: why it is lost.
        pieces: what it was given in this run; the last of them are not done.
        hungry: it has asked for more.
    """

    name: str
    doing: Literal["loading", "drawing", "waiting", "lost"] = "loading"
    stats: RunStats = field(default_factory=RunStats)
    started: float = 0.0
    error: HydragenError | None = None
    pieces: list[Piece] = field(default_factory=list)
    hungry: bool = False


class SpreadSampler(Sampler):
    """Draws what another sampler draws, with several workers.

        spread = SpreadSampler(sampler, device_crew(sampler, find_devices("all")))
        for sample in spread.sample(problems, n=1000):
            ...

    The workers end with the run; in a `with` block they, and their weights, stay until its end.

    Args:
        sampler: whose prompts, checks and settings these are; no weights are loaded here.
        crew: the workers.
        say: told what a user should know: that a worker is lost.

    Attributes:
        workers: what is known of each, live.
    """

    def __init__(
        self, sampler: Sampler, crew: Crew, say: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(
            sampler.source,
            attention=sampler.attention,
            memory_bytes=sampler.memory_bytes,
            max_rows=sampler.max_rows,
            compiled=sampler.compiled,
            drafts=sampler.drafts,
        )
        self.workers = [WorkerState(name) for name in crew.names]
        self._crew = crew
        self._say = say or (lambda message: None)
        self._measured: LogitError | None = None
        self._why_slower: str | None = None
        self._stay = False
        self._n_runs = 0

    def logit_error(self, prompt: Prompt) -> LogitError | None:
        """See `Sampler.logit_error`; here None until a worker has measured it in a run."""
        return self._measured

    @property
    def why_slower(self) -> str | None:
        """See `Sampler.why_slower`; here by what a worker has said."""
        return self._why_slower

    def close(self) -> None:
        """Ends the workers."""
        self._crew.close()

    def __enter__(self) -> "SpreadSampler":
        self._stay = True
        return self

    def __exit__(self, *error: object) -> None:
        self._stay = False
        self.close()

    def _on_device(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        return samples  # nothing is computed here

    def _run(
        self,
        prompts: Sequence[Prompt],
        n: int,
        settings: SamplingSettings,
        done: Mapping[str, Collection[int]],
        shard: Part | None,
        feed: Feed | None,
        late: Late | None,
    ) -> Iterator[Sample]:
        if late is not None:
            raise InputError("several workers draw what is there from the start, and nothing late")
        ranges = sample_ranges((prompt.task_id for prompt in prompts), n, shard)
        work = WorkList(
            prompts,
            ranges,
            workers=len(self.workers),
            max_tokens=settings.max_tokens,
            max_rows=self.max_rows,
        )
        if feed is None:
            work.add(missing_samples(ranges, done))
        self.workers[:] = [WorkerState(name) for name in self._crew.names]
        self.stats = RunStats(started=time.perf_counter())
        self._n_runs += 1
        try:
            self._crew.begin(Assignment(prompts, n, settings, shard, self._n_runs))
            while True:
                if feed is not None:
                    work.add(feed(work.n_waiting) or {})
                if work.is_finished and not self._is_drawing:
                    break
                self._give(work)
                if all(worker.doing == "lost" for worker in self.workers):
                    raise _all_lost(self.workers)
                number, message = self._crew.receive()
                if isinstance(message, Sample):
                    if work.finished(message):
                        self.stats.samples_done += 1
                        yield message
                else:
                    self._note(self.workers[number], message, work)
        finally:
            if self._is_drawing or not work.is_finished or not self._stay:
                self.close()  # what they are drawing is nothing that a later run wants

    @property
    def _is_drawing(self) -> bool:
        return any(worker.doing == "drawing" for worker in self.workers)

    def _give(self, work: WorkList) -> None:
        """Gives work to those who have none, and then to those who ask for more."""
        for number, worker in enumerate(self.workers):
            if worker.doing == "waiting" and (piece := work.take()) is not None:
                self._give_piece(number, piece)
        if any(worker.doing in ("loading", "waiting") for worker in self.workers):
            return  # the rest may be less than enough for those that have nothing yet
        for number, worker in enumerate(self.workers):
            if worker.hungry and (piece := work.take()) is not None:
                self._give_piece(number, piece)

    def _give_piece(self, number: int, piece: Piece) -> None:
        worker = self.workers[number]
        worker.doing, worker.hungry = "drawing", False
        worker.pieces.append(piece)
        self._crew.give(number, piece)

    def _note(
        self,
        worker: WorkerState,
        message: Ready | Figures | Hungry | Idle | Lost,
        work: WorkList,
    ) -> None:
        """Takes in what a worker says of itself."""
        started = self.stats.started
        match message:
            case Ready() if message.run == self._n_runs:
                worker.doing, worker.started = "waiting", time.perf_counter()
                if not self.stats.samples_total:
                    started = worker.started
                self._why_slower = message.why_slower
                if message.logit_error is not None:
                    self._measured = message.logit_error
                    self._say(str(message.logit_error))
            case Figures() if worker.doing == "drawing":
                worker.stats = message.stats
            case Hungry():
                worker.hungry = True
            case Idle() if message.n_pieces == len(worker.pieces):
                worker.stats, worker.doing, worker.hungry = message.stats, "waiting", False
            case Lost():
                self._part_with(worker, message, work)
        self.stats = side_by_side([each.stats for each in self.workers], started)
        if any(each.started for each in self.workers):
            self.stats.samples_total = work.n_samples
        self.stats.samples_done = work.n_finished

    def _part_with(self, worker: WorkerState, lost: Lost, work: WorkList) -> None:
        worker.doing, worker.hungry = "loading" if lost.starts_again else "lost", False
        worker.error = lost.error
        worker.stats.samples_live = worker.stats.rows_live = 0
        n_back = sum(map(work.give_back, worker.pieces))  # of most of them nothing is left
        worker.pieces = []
        rest = f"; the others draw its {n_back:,} samples" if n_back else ""
        rest += "; it is started again" if lost.starts_again else ""
        if any(each.doing != "lost" for each in self.workers):
            self._say(f"{worker.name}: {lost.error}{rest}")


def _all_lost(workers: Sequence[WorkerState]) -> HydragenError:
    """The one error of all workers, or one that names each."""
    errors = {worker.name: worker.error for worker in workers if worker.error is not None}
    first, *others = errors.values()
    is_of_the_run = type(first) is not HydragenError  # what it asks for cannot be done by any
    if is_of_the_run and all(str(error) == str(first) for error in others):
        return first
    why = "; ".join(f"{name}: {error}" for name, error in errors.items())
    return HydragenError(
        f"no worker is left ({why}); samples written before are intact, and ",
        Setting("resume"),
        " draws the rest",
    )
