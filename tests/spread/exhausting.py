"""A sampler whose device runs out of memory in the middle of a run; workers import it."""

from collections.abc import Iterator
from typing import Any

import torch

from hydragen_tree.model.ranks import ALONE, Ranks
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.worker import SamplerMaker

_DRAWN = 5


class Exhausting(Sampler):
    """Draws a few samples."""

    def _run(self, *given: Any) -> Iterator[Sample]:
        for number, sample in enumerate(super()._run(*given)):
            if number == _DRAWN:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of"
                )
            yield sample


def exhausting(maker: SamplerMaker, *, ranks: Ranks = ALONE) -> Sampler:
    """The sampler that a maker makes, with little memory."""
    sampler = maker(ranks=ranks)
    sampler.__class__ = Exhausting
    return sampler
