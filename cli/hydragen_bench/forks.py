"""What a step costs beside the model while samples still fork: the host's part of it.

While rows can fork the host takes every step: it plans it, starts the model's graph, draws, waits
for the tokens, splits rows and copies pages. All but the graph is counted here. Random weights say
almost nothing, so that a few steps would set all samples apart; a low temperature keeps them
together for longer.
"""

import time
from typing import NamedTuple

from torch import Tensor

from hydragen_bench.rig import Rig, abandon, random_prompt
from hydragen_bench.timing import seconds, synchronize
from hydragen_tree.branch.decoder import Decoder
from hydragen_tree.sample.loop import Loop
from hydragen_tree.settings import SamplingSettings

MOST_STEPS = 24
_SETTINGS = SamplingSettings(temperature=0.1, max_tokens=2 * MOST_STEPS)


class Forks(NamedTuple):
    """Steps in which samples shared rows.

    Attributes:
        steps: how many were measured.
        rows: in the batch after them.
        host_ms: milliseconds a step, the model's graph not counted.
    """

    steps: int
    rows: int
    host_ms: float


class TimedDecoder(Decoder):
    """Waits for every step that draws nothing, and adds up how long that took."""

    model_s = 0.0

    def logits(self) -> Tensor:
        """As `Decoder.logits`."""
        synchronize()
        start = time.perf_counter()
        logits = super().logits()
        synchronize()
        self.model_s += time.perf_counter() - start
        return logits


def forks_tokens(rows: int, prefix: int) -> int:
    """Tokens that the cache must hold for it."""
    return prefix + (rows + 1) * 2 * _SETTINGS.max_tokens


def measure_forks(rig: Rig, rows: int, prefix: int) -> Forks | None:
    """Steps `rows` samples of one prompt from their first fork on; None if none shared a row."""
    prompt = random_prompt(prefix, rig.vocabulary)
    cache = rig.cache(forks_tokens(rows, prefix))
    decoder = rig.decoder(cache, _SETTINGS, rows, 1, TimedDecoder)
    assert isinstance(decoder, TimedDecoder)
    measured = None
    for _ in range(2):  # the first compiles and captures
        loop = rig.run([prompt], rows, _SETTINGS, rows, cache, decoder)
        list(loop.step())  # draws from the prompt's own logits
        measured = _steps(loop, decoder)
        abandon(loop)
    return measured


def _steps(loop: Loop, decoder: TimedDecoder) -> Forks | None:
    count, spent, decoder.model_s = 0, 0.0, 0.0
    while count < MOST_STEPS and loop.batch.may_fork(greedy=False):
        spent += seconds(lambda: list(loop.step()))
        count += 1
    if not count:
        return None
    return Forks(count, loop.batch.size, 1e3 * (spent - decoder.model_s) / count)
