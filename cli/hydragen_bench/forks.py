"""What a step costs while samples still share rows, beside one that has as many rows for good.

Random weights say almost nothing, so that a few steps would set all samples apart; a low
temperature keeps them together for longer.
"""

from typing import NamedTuple

from hydragen_bench.rig import Rig, abandon, random_prompt
from hydragen_bench.timing import seconds
from hydragen_tree.sample.loop import Loop
from hydragen_tree.settings import SamplingSettings

MOST_STEPS = 24
_SETTINGS = SamplingSettings(temperature=0.1, max_tokens=2 * MOST_STEPS)


class Forks(NamedTuple):
    """Steps in which samples shared rows.

    Attributes:
        steps: how many were measured.
        rows: in the batch after them.
        step_ms: milliseconds a step, chunks that found too few rows in their graph included.
    """

    steps: int
    rows: int
    step_ms: float


def forks_tokens(rows: int, prefix: int) -> int:
    """Tokens that the cache must hold for it."""
    return prefix + (rows + 1) * 2 * _SETTINGS.max_tokens


def measure_forks(rig: Rig, rows: int, prefix: int) -> Forks | None:
    """Steps `rows` samples of one prompt from their first fork on; None if none shared a row."""
    prompt = random_prompt(prefix, rig.vocabulary)
    cache = rig.cache(forks_tokens(rows, prefix), rows, prefix)
    decoder = rig.decoder(cache, _SETTINGS, rows, 1)
    measured = None
    for _ in range(2):  # the first compiles and captures
        loop = rig.run([prompt], rows, _SETTINGS, rows, cache, decoder)
        loop.admission.admit()
        measured = _steps(loop, rows)
        abandon(loop)
    return measured


def _steps(loop: Loop, samples: int) -> Forks | None:
    spent, steps = 0.0, 0
    while steps < MOST_STEPS and loop.stepper.n_rows < samples:
        spent += seconds(lambda: list(loop.step()))
        steps = loop.stats.tokens_sampled // samples
    if not steps:
        return None
    return Forks(steps, loop.stepper.n_rows, 1e3 * spent / steps)
