"""Workers that are actors of a Ray cluster, one a GPU.

An actor that is lost, with its process or with its machine, is started again elsewhere or there,
a few times; what it had not drawn goes to the others meanwhile.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from hydragen_tree.branch.budget import free_memory_bytes
from hydragen_tree.errors import HydragenError, InputError
from hydragen_tree.model.loading import ModelSource, find_model
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.ray_cluster import import_ray, resources, why_lost
from hydragen_tree.spread.work_list import Piece
from hydragen_tree.spread.worker import (
    Assignment,
    Figures,
    Hungry,
    Lost,
    Message,
    Ready,
    SamplerMaker,
    Worker,
    as_error,
)

_RESTARTS = 3  # of each worker
_BATCH_S = 0.1  # samples that end within this time travel together
_POLL_S = 0.2  # between two looks at whether the user wants to stop


class RayCrew:
    """Actors that draw, each with a model of its own. They start with the first run.

    Args:
        maker: makes a worker's sampler.
        workers: how many there shall be; they come as the cluster has room for them.
        needs: what each takes of the cluster: `num_gpus`, `num_cpus`.
    """

    def __init__(self, maker: SamplerMaker, workers: int, needs: Mapping[str, float]) -> None:
        self._ray = import_ray()
        self._maker, self._n_workers = maker, workers
        # Two calls at a time: pieces are added while others are drawn.
        self._actor_class = self._ray.remote(RayWorker).options(**needs, max_concurrency=2)
        self._actors: dict[int, Any] = {}
        self._restarts = dict.fromkeys(range(workers), _RESTARTS)
        self._waiting: dict[Any, int] = {}  # answers to come, and whose
        self._added: dict[Any, Piece] = {}  # of these, whether a piece could be added
        self._inbox: deque[tuple[int, Message]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1)

    @property
    def names(self) -> list[str]:
        """Of the workers, in their order."""
        return [f"worker {number + 1}" for number in range(self._n_workers)]

    @property
    def actors(self) -> list[Any]:
        """Handles of the actors that there are."""
        return list(self._actors.values())

    def begin(self, assignment: Assignment) -> None:
        """Tells all workers of a run; each answers `Ready`. Those that were lost start anew."""
        self._shared = self._ray.put(assignment)  # once for all workers of a machine
        for worker in range(self._n_workers):
            self._begin(worker)

    def give(self, worker: int, piece: Piece) -> None:
        """Has a worker draw a piece; it answers with samples, and `Idle` when all are done."""
        if any(who == worker and isinstance(message, Lost) for who, message in self._inbox):
            return  # it is not heard yet that this worker's pieces are to be given to others
        if any(who == worker for who in self._waiting.values()):  # it draws
            answer = self._actors[worker].add.remote(piece)
            self._added[answer] = piece
            self._waiting[answer] = worker
        else:
            self._draw(worker, piece)

    def _draw(self, worker: int, piece: Piece) -> None:
        draw = self._actors[worker].draw.options(num_returns="streaming")
        self._waiting[draw.remote(piece)] = worker

    def receive(self) -> tuple[int, Message]:
        """The next message of any worker, and which; waits for it."""
        while not self._inbox:
            # Not in this thread: a signal that comes while Ray waits becomes a KeyboardInterrupt of
            # Ray's own, whatever our handler raises.
            self._thread.submit(self._look).result()
        return self._inbox.popleft()

    def close(self) -> None:
        """Ends the actors, whatever they do."""
        actors = list(self._actors.values())
        self._actors, self._waiting, self._added = (
            {},
            {},
            {},
        )  # first: nobody shall think that they were lost
        for actor in actors:
            self._ray.kill(actor)
        self._inbox.clear()

    def _look(self) -> None:
        """Waits a moment for an answer, and takes in what has come."""
        ready, _ = self._ray.wait(list(self._waiting), timeout=_POLL_S)
        for answer in ready:
            self._take(answer, self._waiting[answer])

    def _begin(self, worker: int) -> None:
        if worker not in self._actors:
            self._actors[worker] = self._actor_class.remote(self._maker)
        answer = self._actors[worker].begin.remote(self._shared, measures=worker == 0)
        self._waiting[answer] = worker

    def _take(self, answer: Any, worker: int) -> None:
        """Takes in what has come of an answer, and the news if no more will."""
        try:
            messages: list[Message] = []
            if isinstance(answer, self._ray.ObjectRefGenerator):
                messages = self._ray.get(next(answer))
            elif answer in self._added:
                was_added = self._ray.get(answer)
                del self._waiting[answer]
                piece = self._added.pop(answer)
                if not was_added:  # it had just come to the end of the others
                    self._draw(worker, piece)
            else:
                messages = [self._ray.get(answer)]
                del self._waiting[answer]
        except StopIteration:
            del self._waiting[answer]
        except self._ray.exceptions.RayError as error:
            self._lose(worker, why_lost(error), again=True)
        else:
            for message in messages:
                if isinstance(message, Lost):
                    # What does not fit, or is no model, will not be so the next time either.
                    self._lose(worker, message.error, again=type(message.error) is HydragenError)
                    return
                self._inbox.append((worker, message))

    def _lose(self, worker: int, error: HydragenError, *, again: bool) -> None:
        """Parts with a worker's actor, and starts another one if that may help."""
        actor = self._actors.pop(worker, None)
        if actor is None:  # closed meanwhile
            return
        self._ray.kill(actor)
        self._waiting = {answer: w for answer, w in self._waiting.items() if w != worker}
        again = again and self._restarts[worker] > 0
        self._inbox.append((worker, Lost(error, starts_again=again)))
        if again:
            self._restarts[worker] -= 1
            self._begin(worker)


class RayWorker:
    """What is in an actor.

    Args:
        maker: makes the sampler.
    """

    def __init__(self, maker: SamplerMaker) -> None:
        from hydragen_tree.spread.child import quieten

        quieten(compiles=True)  # its maker, unpickled, has imported all of it
        self._maker = maker
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # to draw
        self._is_drawing = False
        self._pieces: deque[Piece] = deque()  # that have been added

    def begin(self, assignment: Assignment, measures: bool) -> Ready | Lost:
        """See `Worker.begin`; the first call also finds the model."""
        try:
            if self._worker is None:
                self._worker = Worker(self._maker())
            return self._worker.begin(replace(assignment, measures=measures))
        except Exception as error:
            return Lost(as_error(error))

    def add(self, piece: Piece) -> bool:
        """Adds a piece to those that are being drawn; False if that has come to its end."""
        with self._lock:
            if self._is_drawing:
                self._pieces.append(piece)
            return self._is_drawing

    def draw(self, piece: Piece) -> Iterator[list[Message]]:
        """Samples and figures as they come, some at a time; `Idle` or `Lost` last."""
        with self._turn:
            yield from self._draw(piece)

    def _draw(self, piece: Piece) -> Iterator[list[Message]]:
        assert self._worker is not None
        messages: list[Message] = []
        has_asked = False

        def more(hungry: bool) -> Piece | None:
            nonlocal has_asked
            with self._lock:
                added = self._pieces.popleft() if self._pieces else None
            if added is None and hungry and not has_asked:
                messages.append(Hungry())
            has_asked = added is None and (has_asked or hungry)
            return added

        self._is_drawing = True
        following: Piece | None = piece
        sent = time.monotonic()
        try:
            while following is not None:
                for sample in self._worker.draw(following, more):
                    messages.append(sample)
                    if time.monotonic() - sent >= _BATCH_S:
                        yield [*messages, Figures(self._worker.stats)]
                        messages.clear()
                        sent = time.monotonic()
                with self._lock:
                    following = self._pieces.popleft() if self._pieces else None
                    self._is_drawing = following is not None
            yield [*messages, self._worker.idle()]
        except Exception as error:
            yield [*messages, Lost(as_error(error))]


def ray_crew(sampler: Sampler, workers: int | None = None) -> RayCrew:
    """Actors with a sampler like the one given, on the cluster that has been joined.

    Args:
        sampler: as `find_source` found its model.
        workers: how many; None: one for each GPU of the cluster, or each processor if it has none.

    Raises:
        InputError: no worker is asked for.
    """
    if workers is not None and workers < 1:
        raise InputError("expected an integer >= 1", setting="ray_workers", value=workers)
    kind = sampler.source.device.type
    resource = "CPU" if kind == "cpu" else "GPU"
    there = int(resources().get(resource, 0))
    workers = workers or max(there, 1)
    maker = partial(
        _sampler_there,
        sampler.source,
        share=workers if kind == "cpu" else 1,
        memory_bytes=sampler.memory_bytes,
        attention=sampler.attention,
        max_rows=sampler.max_rows,
        compiled=sampler.compiled,
        drafts=sampler.drafts,
    )
    return RayCrew(maker, workers, {"num_cpus": 1} if kind == "cpu" else {"num_gpus": 1})


def find_source(model: str, **options: Any) -> ModelSource:
    """Finds a model as the cluster's workers will see it, on a GPU where it has one.

    Args:
        model: see `find_model`.
        options: the rest of them, but for the device.

    Raises:
        ModelError: as `find_model`.
    """
    if not resources().get("GPU"):
        return find_model(model, device="cpu", **options)
    ray = import_ray()
    task = ray.remote(find_model).options(num_gpus=1)
    try:
        source: ModelSource = ray.get(task.remote(model, device="cuda", **options))
    except ray.exceptions.RayTaskError as error:
        raise as_error(error.cause) from error
    return source


def _sampler_there(
    source: ModelSource, *, share: int, memory_bytes: int | None, **options: Any
) -> Sampler:
    """Makes a worker's sampler where the worker is.

    Args:
        source: the model.
        share: workers that may come to share the memory of a machine.
        memory_bytes: for keys and values.
        options: of the sampler.
    """
    if memory_bytes is None and source.device.type == "cpu":
        memory_bytes = free_memory_bytes(source.device) // min(share, os.cpu_count() or 1)
    if source.device.type != "cpu":  # the actor sees no device but its own
        source = replace(source, device=torch.device(source.device.type, 0))
    return Sampler(source, memory_bytes=memory_bytes, **options)
