"""What a run on many devices would take: by constants, and by an earlier run."""

from pathlib import Path

import numpy as np
import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.run import run
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.session import session_figures
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.spread.estimate import Estimate, estimate
from hydragen_tree.spread.pace import Pace
from tests.sample.test_sampler import SETTINGS, prompts

N, ROWS = 60, 8


@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Sampler:
    return Sampler.from_pretrained(str(random_model), device="cpu", max_rows=ROWS)


@pytest.fixture(scope="module")
def earlier(sampler: Sampler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of a run that came to its end."""
    path = tmp_path_factory.mktemp("earlier") / "samples.jsonl"
    with SampleWriter(path) as writer:
        model = sampler.fingerprint
        whole = Manifest.describe(prompts(), n=N, settings=SETTINGS, model=model, problems={})
        writer.begin(whole)
        run(prompts(), N, sampler=sampler, settings=SETTINGS, keep=writer.write)
        writer.finish(session_figures(sampler, prompts()[0]))
    return path


def of(sampler: Sampler, n: int, workers: int, pace: Pace) -> Estimate:
    outline = sampler.outline(prompts(), n)
    return estimate(
        outline, workers=workers, max_tokens=SETTINGS.max_tokens, max_rows=ROWS, pace=pace
    )


def test_a_run_is_estimated_as_long_as_it_took(sampler: Sampler, earlier: Path) -> None:
    pace = Pace.of(sampler.source).like(earlier, sampler.fingerprint)
    found = of(sampler, N, 1, pace)
    took_s = Manifest.read(earlier.with_name("samples.jsonl.manifest.json")).sessions[0]["figures"][
        "elapsed_s"
    ]
    assert found.draw_s == pytest.approx(took_s, rel=0.3)
    assert found.samples == 3 * N
    assert found.speed_up == 1.0


def test_many_workers_are_as_many_times_as_fast_but_for_what_they_are_idle(
    sampler: Sampler, earlier: Path
) -> None:
    pace = Pace.of(sampler.source).like(earlier, sampler.fingerprint)
    long, short = (of(sampler, n, 16, pace) for n in (100_000, 100))
    assert long.idle_share < 0.05
    assert long.speed_up == pytest.approx(16, rel=0.05)
    assert short.idle_share > 0.2
    assert short.speed_up < 12
    assert short.running_out_s > 0.2 * short.draw_s
    assert long.running_out_s < 0.01 * long.draw_s


def test_longer_samples_and_two_ranks_take_their_time(sampler: Sampler, random_model: Path) -> None:
    pace = Pace.of(sampler.source)
    outline = sampler.outline(prompts(), N)
    usual, longer = (
        estimate(outline, workers=2, max_tokens=tokens, max_rows=ROWS, pace=pace)
        for tokens in (100, 200)
    )
    assert 1.9 < longer.draw_s / usual.draw_s < 2.2
    assert usual.mean_tokens == pytest.approx(50, rel=0.1)
    halves = Pace.of(Sampler.from_pretrained(str(random_model), tensor_parallel=2).source)
    assert halves.weights < pace.weights
    assert np.all(halves.step_s(np.ones(1), 0.0, 0.0) > pace.step_s(np.ones(1), 0.0, 0.0))


def test_an_earlier_run_of_another_model_says_nothing(earlier: Path) -> None:
    tiny = Sampler.from_pretrained("tiny", device="cpu")
    with pytest.raises(InputError, match=r"like .*samples.jsonl: its model's sha256 is"):
        Pace.of(tiny.source).like(earlier, tiny.fingerprint)
