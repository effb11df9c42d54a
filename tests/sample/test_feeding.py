"""A run that is given its samples in pieces draws what it draws when it has them all at once."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hydragen_tree.prompt.prompts import prompts_from_sources
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.sample.test_sampler import SETTINGS, prompts

N = 12
Piece = dict[str, NDArray[np.int64]]


@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Sampler:
    return Sampler.from_pretrained(str(random_model), max_rows=8)


def tokens_of(samples: list[Sample]) -> dict[tuple[str, int], tuple[int, ...]]:
    found = {(sample.task_id, sample.sample_index): sample.token_ids for sample in samples}
    assert len(found) == len(samples)
    return found


def pieces() -> list[Piece]:
    """All samples: problems whole and cut, in an order of their own."""
    return [
        {"c": np.arange(5, 9)},
        {"b": np.arange(N), "a": np.array([0, 3, 7])},
        {},
        {"c": np.array([0, 1, 2, 3, 4, 9, 10, 11])},
        {"a": np.array([1, 2, 4, 5, 6, 8, 9, 10, 11])},
    ]


def test_the_same_samples_and_a_batch_that_stays_full(sampler: Sampler) -> None:
    whole = tokens_of(list(sampler.sample(prompts(), N, SETTINGS)))
    at_once = sampler.stats

    left = pieces()
    waiting_when_fed = []

    def feed(n_waiting: int) -> Piece | None:
        if n_waiting >= 2 or not left:
            return None
        waiting_when_fed.append(n_waiting)
        return left.pop(0)

    assert tokens_of(list(sampler.sample(prompts(), N, SETTINGS, feed=feed))) == whole
    fed = sampler.stats
    assert max(waiting_when_fed) > 0
    for name in ("samples_total", "samples_done", "prompt_tokens", "prompt_tokens_unshared"):
        assert getattr(fed, name) == getattr(at_once, name) > 0

    steps = 0
    for piece in filter(None, pieces()):
        once = [piece]
        list(sampler.sample(prompts(), N, SETTINGS, feed=lambda _, once=once: once and once.pop()))
        steps += sampler.stats.steps_host
    assert fed.steps_host < 0.9 * steps  # no batch ran empty between two pieces


def test_a_feed_that_gives_nothing_draws_nothing(sampler: Sampler) -> None:
    assert list(sampler.sample(prompts(), N, SETTINGS, feed=lambda _: None)) == []
    assert (sampler.stats.samples_total, sampler.stats.prompt_tokens) == (0, 0)


def test_samples_that_come_when_tails_have_been_frozen() -> None:
    sampler = Sampler.from_pretrained("tiny", max_rows=64)
    settings = SamplingSettings(temperature=0.05, max_tokens=40)
    (prompt,) = prompts_from_sources(["n = int(input())\n"], sampler.tokenizer)
    calls = count()

    def feed(_: int) -> Piece | None:
        halves = {0: np.arange(100), 25: np.arange(100, 200)}
        own = halves.get(next(calls))
        return None if own is None else {prompt.task_id: own}

    whole = tokens_of(list(sampler.sample([prompt], 200, settings)))
    assert tokens_of(list(sampler.sample([prompt], 200, settings, feed=feed))) == whole
