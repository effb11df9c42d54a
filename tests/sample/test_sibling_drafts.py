"""Samples are the same with drafts and without, whatever forks, ends, waits or leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hydragen_kernels import ordered_layers
from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample import assembly
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

ORDERED = pytest.mark.skipif(ordered_layers.why_unavailable() is not None, reason="no C compiler")
NAMES = "def total(numbers):\n    result = 0\n    for number in numbers:\n        result +="


@pytest.fixture
def nearly_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts cost next to nothing, so that as many as possible are taken along."""

    monkeypatch.setattr(assembly, "free_rows", lambda *_, ordered: 1e4)


def prompts(sampler: Sampler) -> list[Prompt]:
    """Two of one problem, which share most, and a stranger."""

    def prompt(task: str, variant: int, text: str, *stop: str) -> Prompt:
        return Prompt(task, variant, np.array(sampler.tokenizer(text).input_ids, np.int32), stop)

    return [
        prompt("a", 0, NAMES, "\n\n"),
        prompt("a", 1, NAMES + " number\n", "\n\n"),
        prompt("b", 0, "n = int(input())\nnumbers = "),
    ]


def draw(
    drafts: str, settings: SamplingSettings, n: int, **options: Any
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    sampler = Sampler.from_pretrained("tiny", device="cpu", drafts=drafts, **options)
    samples = list(sampler.sample(prompts(sampler), n, settings))
    assert sampler.stats.tokens_sampled == sum(sample.n_tokens for sample in samples)
    return {(sample.task_id, sample.sample_index): sample for sample in samples}, sampler


@pytest.mark.parametrize(
    ("settings", "n", "options", "saved"),
    [
        (SamplingSettings(temperature=0.8, max_tokens=60, logprobs=True), 8, {}, 1.0),
        (SamplingSettings(temperature=0.0, max_tokens=64), 3, {}, 1.0),
        (SamplingSettings(temperature=0.8, max_tokens=7, stop=["or"]), 12, {"max_rows": 4}, 1.0),
        (SamplingSettings(temperature=0.8, max_tokens=40), 8, {"memory_bytes": 1_000_000}, 1.0),
        (SamplingSettings(temperature=0.7, top_p=0.9, max_tokens=40), 8, {"max_rows": 2}, 1.2),
    ],
    ids=["together", "greedy", "stops", "parked", "waiting"],
)
@pytest.mark.usefixtures("nearly_free")
def test_samples_are_those_without_drafts(
    settings: SamplingSettings, n: int, options: dict[str, Any], saved: float
) -> None:
    expected, plain = draw("off", settings, n, **options)
    found, sampler = draw("auto", settings, n, **options)
    assert found.keys() == expected.keys()
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.finish_reason == expected[name].finish_reason
        assert sample.completion == expected[name].completion
        assert sample.logprob == pytest.approx(expected[name].logprob, abs=1e-3)
        if settings.logprobs:
            assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)
    assert plain.stats.drafts_proposed == 0
    assert 0 < sampler.stats.drafts_accepted <= sampler.stats.drafts_proposed
    assert sampler.stats.steps_host * saved <= plain.stats.steps_host
    if "memory_bytes" in options:
        assert sampler.stats.rows_parked > 0


def test_many_greedy_samples_are_drafted_like_one() -> None:
    settings = SamplingSettings(temperature=0.0, max_tokens=64)
    _, one = draw("auto", settings, 2)  # one of each variant
    _, many = draw("auto", settings, 40)
    assert 0 < one.stats.drafts_accepted == many.stats.drafts_accepted
    assert one.stats.steps_host == many.stats.steps_host


@ORDERED
@pytest.mark.usefixtures("nearly_free")
def test_bits_are_those_without_drafts() -> None:
    settings = SamplingSettings(temperature=0.8, max_tokens=40, logprobs=True)
    expected, _ = draw("off", settings, 8, batch_invariant=True)
    found, sampler = draw("auto", settings, 8, batch_invariant=True, max_rows=5)
    assert found == expected
    assert sampler.stats.drafts_accepted > 0


def test_a_run_is_the_same_each_time() -> None:
    """To the last bit, in the same order: no clock decides what is tried."""
    settings = SamplingSettings(temperature=0.8, max_tokens=24, logprobs=True)
    first, second = (draw("auto", settings, 6)[0] for _ in range(2))
    assert list(first.items()) == list(second.items())


def test_there_is_no_other_way_to_draft(random_model: Path) -> None:
    with pytest.raises(InputError, match="drafts"):
        Sampler.from_pretrained(str(random_model), drafts="always")
