"""Samples of models whose layers keep running states: what is shared, forked and given up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_tree.errors import CapacityError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.model.shrunken import shrunken

KINDS = {"qwen3_next": {}, "granitemoehybrid": {"layer_types": ["linear_attention", "attention"]}}


@pytest.fixture(scope="module", params=KINDS)
def hybrid(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small model of random weights with the byte-level tokenizer of `random_model`."""
    path = tmp_path_factory.mktemp(request.param)
    config = shrunken(request.param, **KINDS[request.param])
    config.vocab_size, config.eos_token_id, config.bos_token_id = 257, 256, None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.05)
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((random_model / name).read_bytes())
    return path


def prompts() -> list[Prompt]:
    """Three levels of sharing, and a prompt that ends where another goes on."""
    rng = np.random.default_rng(0)
    root, middle = rng.integers(0, 250, 40), rng.integers(0, 250, 21)
    tails = [rng.integers(0, 250, size) for size in (9, 0, 33)]
    texts = [np.concatenate([root, middle, tail]) for tail in tails]
    texts += [np.append(root, rng.integers(0, 250, 5)), rng.integers(0, 250, 12)]
    return [Prompt(f"p{at}", 0, text.astype(np.int32), ()) for at, text in enumerate(texts)]


def drawn(
    path: Path, n: int, temperature: float, **limits: int
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    sampler = Sampler.from_pretrained(str(path), device="cpu", **limits)
    settings = SamplingSettings(temperature=temperature, max_tokens=16, seed=7)
    samples = list(sampler.sample(prompts(), n, settings))
    return {(one.task_id, one.sample_index): one for one in samples}, sampler


@torch.inference_mode()
def test_greedy_samples_are_those_of_dense_passes(hybrid: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(hybrid).eval()
    samples, _ = drawn(hybrid, 1, 0.0)
    for prompt in prompts():
        tokens = samples[prompt.task_id, 0].token_ids
        assert tokens
        text = torch.tensor([[*prompt.token_ids.tolist(), *tokens]])
        logits = model(text, use_cache=False).logits[0, len(prompt.token_ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(tokens)


def test_samples_are_the_same_in_a_small_batch_and_with_little_memory(hybrid: Path) -> None:
    samples, sampler = drawn(hybrid, 6, 0.5)
    assert sampler.stats.rows_computed < sum(len(one.token_ids) for one in samples.values())
    few, narrow = drawn(hybrid, 6, 0.5, max_rows=4)
    assert (
        narrow.stats.prefilled_tokens > sampler.stats.prefilled_tokens
    )  # tails of those set aside
    size = sampler.source.shape.state_bytes
    assert size > 1000
    page = sampler.page_tokens * sampler.source.shape.token_bytes
    little, parking = drawn(hybrid, 6, 0.5, memory_bytes=2 * 8 * size + 5 * page)
    assert parking.stats.rows_parked > 0
    for other in (few, little):
        assert {key: one.token_ids for key, one in other.items()} == {
            key: one.token_ids for key, one in samples.items()
        }


def test_states_without_room_are_refused(hybrid: Path) -> None:
    size = Sampler.from_pretrained(str(hybrid), device="cpu").source.shape.state_bytes
    with pytest.raises(CapacityError, match=r"running states take .* has to hold \d of them"):
        drawn(hybrid, 1, 1.0, memory_bytes=size)
