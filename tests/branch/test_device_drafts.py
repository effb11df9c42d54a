"""Samples are the same with drafts in captured steps; on a GPU, else under the interpreter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_tree.branch import draft_widths
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.branch.test_decoder import DEVICE, INTERPRETED, prompts, small_model, windowed_model
from tests.sample.test_sibling_drafts import prompts as texts

pytestmark = [
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or the interpreter"
    ),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
__all__ = ["small_model", "windowed_model"]  # fixtures


def repetitive(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, but sure of what comes next, which depends on the last token mostly."""
    path = tmp_path_factory.mktemp("repetitive")
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight *= 0.01
        loaded.get_output_embeddings().weight *= 4.0
    loaded.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((model / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def sure_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repetitive(small_model, tmp_path_factory)


def fix_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Steps have this width always."""
    monkeypatch.setattr(draft_widths, "WIDTHS", (width,))


def draw(
    model: Path, settings: SamplingSettings, backend: str, n: int, **options: Any
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    sampler = Sampler.from_pretrained(
        str(model), device=DEVICE, attention=backend, **{"dtype": "float32", **options}
    )
    samples = list(sampler.sample(prompts(), n, settings))
    assert sampler.stats.tokens_sampled == sum(sample.n_tokens for sample in samples)
    return {(sample.task_id, sample.sample_index): sample for sample in samples}, sampler


@pytest.mark.parametrize(
    ("width", "settings", "n", "options"),
    [
        (2, SamplingSettings(temperature=1.0, max_tokens=16, logprobs=True), 3, {}),
        (8, SamplingSettings(temperature=1.0, max_tokens=20, logprobs=True), 3, {}),
        (4, SamplingSettings(temperature=0.7, top_p=0.9, max_tokens=9), 4, {"max_rows": 3}),
        (4, SamplingSettings(temperature=0.0, max_tokens=19), 3, {}),
        (
            4,
            SamplingSettings(temperature=1.0, max_tokens=20),
            4,
            {"memory_bytes": 24_000 if INTERPRETED else 96_000},
        ),
    ],
    ids=["two", "eight", "waiting", "greedy", "short of memory"],
)
def test_device_steps_with_drafts_equal_host_steps(
    width: int,
    settings: SamplingSettings,
    n: int,
    options: dict[str, Any],
    sure_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fix_width(monkeypatch, width)
    expected, _ = draw(sure_model, settings, "torch", n, drafts="off")
    found, sampler = draw(sure_model, settings, "triton", n, drafts="on", **options)
    same(found, expected, settings)
    stats = sampler.stats
    assert stats.steps_host == 0
    if "memory_bytes" not in options:  # fewer are taken along where pages are few
        assert 0 < stats.drafts_accepted < stats.drafts_proposed


def same(
    found: dict[tuple[str, int], Sample],
    expected: dict[tuple[str, int], Sample],
    settings: SamplingSettings,
) -> None:
    assert sorted(found) == sorted(expected)
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.completion == expected[name].completion
        assert sample.finish_reason == expected[name].finish_reason
        assert sample.logprob == pytest.approx(expected[name].logprob, rel=1e-3)
        if settings.logprobs:
            assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)


@pytest.mark.skipif(INTERPRETED, reason="products have one order on a GPU, and on a CPU in C")
def test_bits_are_those_without_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_width(monkeypatch, 4)
    settings = SamplingSettings(temperature=0.8, max_tokens=40, logprobs=True)
    found = []
    for drafts, max_rows in (("off", 64), ("on", 64), ("on", 20)):
        sampler = Sampler.from_pretrained(
            "tiny",
            device=DEVICE,
            dtype="float16",
            batch_invariant=True,
            drafts=drafts,
            max_rows=max_rows,
        )
        samples = sampler.sample(texts(sampler), 12, settings)
        found.append({(one.task_id, one.sample_index): one for one in samples})
        assert (sampler.stats.drafts_accepted > 0) == (drafts == "on")
    assert found[0] == found[1] == found[2]


def test_steps_of_one_order_with_drafts_equal_host_steps(
    sure_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_width(monkeypatch, 4)
    settings = SamplingSettings(temperature=1.0, max_tokens=16, logprobs=True)
    expected, _ = draw(sure_model, settings, "torch", 3, drafts="off")
    found, sampler = draw(sure_model, settings, "ordered", 3, drafts="on", max_rows=5)
    assert sampler.stats.drafts_accepted > 0
    same(found, expected, settings)


def test_layers_see_drafts_through_windows(
    windowed_model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_width(monkeypatch, 4)
    model = repetitive(windowed_model, tmp_path_factory)
    settings = SamplingSettings(temperature=1.0, max_tokens=14)
    expected, _ = draw(model, settings, "torch", 3, drafts="off")
    found, sampler = draw(model, settings, "triton", 3, drafts="on")
    same(found, expected, settings)
    assert sampler.stats.drafts_proposed > 0


def test_a_run_is_the_same_each_time(sure_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths are chosen by what was drawn, and by no clock."""
    monkeypatch.setattr(draft_widths, "step_cost", lambda queries: 1.0)
    settings = SamplingSettings(temperature=0.7, max_tokens=16, logprobs=True)
    runs = [draw(sure_model, settings, "triton", 3, drafts="on") for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    counts = [
        (run.stats.steps_device, run.stats.drafts_proposed, run.stats.drafts_accepted)
        for _, run in runs
    ]
    assert counts[0] == counts[1]
    assert counts[0][2] > 0
