"""What a worker does, wherever it runs: one model, and piece after piece of the work.

A worker is told an `Assignment`, answers with `Ready`, and is then given pieces; it answers with
their samples. `Hungry` asks for the next piece while there is still something to do, so that the
batch stays full; `Idle` says that all is done. `Lost` is the last that is heard of one.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hydragen_tree.errors import HydragenError, first_line
from hydragen_tree.model.device import out_of_memory
from hydragen_tree.model.quantising import LogitError
from hydragen_tree.model.ranks import ALONE, Ranks
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.records import RunStats
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Part
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.spread.figures import one_after_another
from hydragen_tree.spread.work_list import Piece

_HUNGRY_SHARE = 4  # a worker asks for more when fewer samples wait than a quarter of its rows


class SamplerMaker(Protocol):
    """Makes a worker's sampler; called where the worker is."""

    def __call__(self, *, ranks: Ranks = ALONE) -> Sampler:
        """The sampler of one of the ranks that the worker has."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a process has to know to begin with.

    Attributes:
        maker: makes its sampler.
        threads: that torch uses; None: as many as it likes.
        ranks: its own among the worker's processes.
    """

    maker: SamplerMaker
    threads: int | None
    ranks: Ranks


@dataclass(frozen=True, eq=False, slots=True)
class Assignment:
    """A run, as a worker has to know it.

    Attributes:
        prompts: all of them.
        n: samples a task.
        settings: how to sample.
        shard: the part of them that is to be drawn; None: all.
        run: its number: an answer may be to a run that has ended meanwhile.
        measures: the worker also measures what 8 bits cost, where weights are rounded to them.
    """

    prompts: Sequence[Prompt]
    n: int
    settings: SamplingSettings
    shard: Part | None
    run: int
    measures: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded.

    Attributes:
        run: the assignment's.
        logit_error: what was measured, if that was asked for.
        why_slower: see `Sampler.why_slower`.
    """

    run: int
    logit_error: LogitError | None = None
    why_slower: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A worker's figures of now: all pieces of the run together."""

    stats: RunStats


@dataclass(frozen=True, slots=True)
class Hungry:
    """The worker's batch will soon have room that nothing it was given can fill."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Every sample of the pieces has been sent.

    Attributes:
        stats: see `Figures`.
        n_pieces: pieces taken in this run; another one may be on its way.
    """

    stats: RunStats
    n_pieces: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker has failed, or is gone.

    Attributes:
        error: why.
        starts_again: another takes its place, and will be `Ready`.
    """

    error: HydragenError
    starts_again: bool = False


Message = Ready | Sample | Figures | Hungry | Idle | Lost


class Worker:
    """Draws pieces of a run.

    Args:
        sampler: the model's.

    Attributes:
        n_pieces: pieces taken in this run.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.n_pieces = 0
        # Figures of the pieces that are done, and those of the last of them.
        self._counted = RunStats(), self._sampler.stats

    def begin(self, assignment: Assignment) -> Ready:
        """Makes ready for a run; the first time, the weights load."""
        self._assignment = assignment
        self._counted = RunStats(), self._sampler.stats
        self.n_pieces = 0
        error = None
        if assignment.measures:
            error = self._sampler.logit_error(assignment.prompts[0])
        _ = self._sampler.model
        return Ready(assignment.run, error, self._sampler.why_slower)

    def draw(
        self, piece: Piece, more: Callable[[bool], Piece | None] | None = None
    ) -> Iterator[Sample]:
        """Draws a piece of the run, and what comes while it is drawn.

        Args:
            piece: the first.
            more: asked before every step for another one that has come; told whether the batch
                will soon have room for it.

        Raises:
            HydragenError: as `Sampler.sample`.
        """
        first: list[Piece] = [piece]

        def feed(n_waiting: int) -> Mapping[str, NDArray[np.int64]] | None:
            hungry = n_waiting < self._sampler.max_rows // _HUNGRY_SHARE
            given = first.pop() if first else more(hungry) if more else None
            if given is None:
                return None
            self.n_pieces += 1
            return given.indices

        run = self._assignment
        yield from self._sampler.sample(
            run.prompts, run.n, run.settings, shard=run.shard, feed=feed
        )
        self._counted = self.stats, self._sampler.stats

    def idle(self) -> Idle:
        """What to say when nothing is left to draw."""
        return Idle(self.stats, self.n_pieces)

    @property
    def stats(self) -> RunStats:
        """Figures of all pieces of the run up to now."""
        before, last = self._counted
        now = self._sampler.stats
        return before if now is last else one_after_another(before, now)


def as_error(error: Exception) -> HydragenError:
    """What went wrong, as an error that can be sent; one that nobody foresaw says where."""
    if isinstance(error, HydragenError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return HydragenError(f"{type(error).__name__}: {first_line(error)} ({where})")
