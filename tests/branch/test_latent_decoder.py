"""Tails of latent vectors in whole runs: the samples of a run whose tails hold keys and values.

Also in captured steps on a GPU, else under Triton's interpreter.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_tree.branch import forecast, groups
from hydragen_tree.model import latent
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.model.shrunken import shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# the interpreter takes a second a step even so
SETTINGS = SamplingSettings(
    temperature=0.7, max_tokens=5 if INTERPRETED else 40, seed=7, logprobs=True
)
SAMPLES = 2 if INTERPRETED else 8
KERNELS_RUN = INTERPRETED or DEVICE == "cuda"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []


@pytest.fixture(scope="module")
def model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DeepSeek V2 of random weights with a byte-level tokenizer."""
    path = tmp_path_factory.mktemp("latent-model")
    config = shrunken("deepseek_v2", num_hidden_layers=1, kv_lora_rank=24)
    config.vocab_size, config.eos_token_id, config.bos_token_id = 257, 256, None
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.05)
    made.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((random_model / name).read_bytes())
    return path


def prompts() -> list[Prompt]:
    """A root shared by two prompts, one of which it is itself, and a stranger."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 40)
    texts = [root, np.append(root, rng.integers(0, 250, 9)), rng.integers(0, 250, 20)]
    return [Prompt(f"p{at}", 0, text.astype(np.int32), ()) for at, text in enumerate(texts)]


def drawn(
    path: Path, backend: str, settings: SamplingSettings, n: int, **options: Any
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    options = {"device": DEVICE, "dtype": "float32", "attention": backend, **options}
    sampler = Sampler.from_pretrained(str(path), **options)
    samples = list(sampler.sample(prompts(), n, settings))
    return {(one.task_id, one.sample_index): one for one in samples}, sampler


@pytest.fixture(scope="module")
def expanded(model: Path) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    """Samples drawn with keys and values in tails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "tail_latent_dim", lambda config: 0)
        samples, sampler = drawn(model, "torch", SETTINGS, SAMPLES)
    assert sampler.source.shape.latent_dim == 0
    return samples, sampler


@pytest.mark.parametrize("memory", ["enough", "little"])
@pytest.mark.parametrize("drafts", ["off", "auto", "on"])
@pytest.mark.parametrize("backend", ["auto", "torch", "triton"])
def test_the_same_samples_in_less_memory(
    backend: str,
    drafts: str,
    memory: str,
    expanded: tuple[dict[tuple[str, int], Sample], Sampler],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if backend == "triton" and (not KERNELS_RUN or drafts == "auto"):
        pytest.skip("needs a GPU or the interpreter; there auto is off")
    if backend != "triton" and drafts == "on":
        pytest.skip("as auto")
    if INTERPRETED and (backend != "triton" or memory == "little"):
        pytest.skip("without the interpreter, and with a GPU")
    monkeypatch.setattr(forecast, "LEAST_ROWS", 1)
    monkeypatch.setattr(groups, "_LEAST_ROOM", 1)
    samples, other = expanded
    options: dict[str, Any] = {"drafts": drafts}
    if memory == "little":  # so that rows leave and come back
        width = latent.tail_latent_dim(other.source.config)
        shape = replace(other.source.shape, latent_dim=width)
        runs, tails = (2, 6) if other.page_tokens == 64 else (5, 8)
        both = runs * shape.token_bytes + (runs + tails) * shape.tail_token_bytes
        options["memory_bytes"] = other.page_tokens * both
    found, sampler = drawn(model, backend, SETTINGS, SAMPLES, **options)
    assert found.keys() == samples.keys()
    for key, sample in found.items():
        assert sample.token_ids == samples[key].token_ids
        assert sample.token_logprobs == pytest.approx(samples[key].token_logprobs, abs=1e-3)
    shape, stats = sampler.source.shape, sampler.stats
    assert shape.latent_dim == latent.tail_latent_dim(other.source.config)
    assert shape.tail_token_bytes < shape.token_bytes / 2
    assert stats.kv_bytes_peak < other.stats.kv_bytes_peak
    is_captured = backend == "triton" or (backend == "auto" and DEVICE == "cuda")
    assert (stats.steps_device > 0) == is_captured
    if other.page_tokens == 16:  # a page of a GPU holds all that a row draws
        assert (stats.rows_parked > 0) == (memory == "little")
