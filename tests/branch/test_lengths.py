"""Guesses of lengths and pages, against the distributions that samples were drawn from."""

import numpy as np
import pytest

from hydragen_tree.branch.lengths import LengthForecast
from hydragen_tree.branch.page_forecast import PageForecast
from hydragen_tree.branch.stepper import Waiting

MOST, PAGE = 100, 4


def watched(lengths: np.ndarray, leaf: np.ndarray, steps: int) -> tuple[LengthForecast, np.ndarray]:
    """A forecast after so many steps of samples that began together, and who goes on."""
    forecast = LengthForecast(MOST)
    for sample in np.flatnonzero(lengths <= steps).tolist():
        forecast.ended(int(leaf[sample]), np.array([sample]), int(lengths[sample]))
    return forecast, lengths > steps


@pytest.mark.parametrize("steps", [20, 50, 100])
def test_unfinished_samples_count(steps: int) -> None:
    """The mean of those that have ended says too little; the share that goes on is right."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 40, 2000), MOST)
    leaf = np.zeros(lengths.size, np.int32)
    forecast, goes_on = watched(lengths, leaf, steps)
    drawn = np.full(int(goes_on.sum()), steps, np.int32)
    curves = forecast.curves(leaf[goes_on], drawn)
    times = np.arange(1, steps, 5)
    alive = curves.alive(np.zeros(times.size, np.int32), times)
    true = (lengths[:, None] > times).mean(0)
    np.testing.assert_allclose(alive, true, atol=0.02)
    if steps == 100:
        assert curves.length(0) == pytest.approx(lengths.mean(), rel=0.05)
    else:
        assert curves.length(0) > lengths[~goes_on].mean() + 5


def test_problems_differ() -> None:
    rng = np.random.default_rng(0)
    leaf = np.repeat(np.arange(3, dtype=np.int32), 100)
    mean = np.array([10, 40, 20])[leaf]
    lengths = np.clip(rng.normal(mean, 3), 1, MOST).astype(int)
    lengths[leaf == 2] = MOST + 1  # of which nothing is known
    forecast, goes_on = watched(lengths, leaf, 60)
    curves = forecast.curves(leaf[goes_on][:0], np.zeros(0, np.int32))
    short, long, unknown = (curves.length(number) for number in range(3))
    assert short < 15
    assert long > 30
    assert short < unknown < long


def test_a_problem_whose_samples_outlive_all_others_is_long() -> None:
    """None of its own has ended; where others did, it has gone on, and that is known."""
    forecast = LengthForecast(MOST)
    for leaf in range(1, 9):
        forecast.ended(leaf, np.arange(20), 30)
    young, old = (
        forecast.curves(np.zeros(20, np.int32), np.full(20, drawn, np.int32)) for drawn in (5, 35)
    )
    own, others = np.zeros(1, np.int32), np.ones(1, np.int32)
    assert young.alive(own, np.array([40]))[0] < 0.25
    assert old.alive(own, np.array([40]))[0] > 0.8
    assert old.alive(others, np.array([40]))[0] < 0.1
    assert old.length(0) > 60


def test_before_anything_has_ended_samples_are_thought_long() -> None:
    curves = LengthForecast(MOST).curves(np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert MOST / 2 < curves.length(0) < MOST


def test_predictions_are_compared() -> None:
    forecast = LengthForecast(MOST)
    forecast.predict(np.array([3, 4]), 20.0)
    forecast.predict(np.array([3]), 50.0)  # the first one counts
    forecast.ended(0, np.array([3, 9]), 24)
    forecast.ended(0, np.array([4]), 14)
    assert (forecast.n_compared, forecast.error_tokens) == (2, 10.0)
    assert (forecast.predicted_tokens, forecast.real_tokens) == (40.0, 38)


def test_the_next_token_of_every_row_needs_its_page() -> None:
    """The last token drawn has none yet: rows that share nothing must not seem to share it."""
    forecast = LengthForecast(MOST)
    forecast.ended(0, np.arange(500), MOST)
    drawn = np.full(100, 2 * PAGE + 1, np.int32)
    pages = PageForecast(forecast, np.zeros(100, np.int32), drawn, 200, PAGE, MOST)
    branch = Waiting(0, np.empty(0, np.int32), np.arange(1))
    pages._times = np.array([1])
    assert pages.most_with(branch, 1) == pytest.approx(301, rel=0.01)


def test_pages_are_those_of_a_simulated_batch() -> None:
    """Samples of other ages, half of them sharing the pages of their past, and new ones."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 30, 4000), MOST)
    forecast = LengthForecast(MOST)
    for sample, length in enumerate(lengths.tolist()):
        forecast.ended(0, np.array([sample]), length)
    drawn = np.minimum(rng.geometric(1 / 30, 200), MOST - 1).astype(np.int32)
    held = -(-drawn // PAGE)
    pages = PageForecast(forecast, np.zeros(200, np.int32), drawn, int(held.sum()) // 2, PAGE, MOST)
    empty = np.empty(0, np.int32)
    pages.add(Waiting(0, empty, np.arange(100)), 100)
    assert pages.rows == 300
    found = pages.most_with(Waiting(0, empty, np.arange(50)), 50)

    most = []
    for _ in range(20):
        age = np.append(drawn, np.zeros(150, int))
        left = rng.geometric(1 / 30, age.size)  # memoryless
        final = np.minimum(age + left, MOST)
        own = np.append(held / 2, np.zeros(150))
        of_step = [
            (
                (-(-(age + t) // PAGE) - np.append(held, np.zeros(150)) + own) * (age + t < final)
            ).sum()
            for t in range(MOST)
        ]
        most.append(max(of_step))
    assert found == pytest.approx(np.mean(most), rel=0.1)
