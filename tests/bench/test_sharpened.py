"""Random weights whose head is as sure, and ends samples as often, as asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from hydragen_bench import configs, run, sharpened
from hydragen_bench.sets import Point, made_up
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.bench.sharpened_model import BITS, LENGTH, VOCABULARY
from tests.model.shrunken import shrunken


def test_bisection_finds_a_value_or_the_nearer_end() -> None:
    assert sharpened.bisect(lambda x: x**3, 8.0, -10.0, 10.0) == pytest.approx(2.0, abs=1e-3)
    assert sharpened.bisect(lambda x: x, 50.0, -10.0, 10.0) == pytest.approx(10.0, abs=1e-3)


@torch.inference_mode()
def test_no_layer_writes_to_the_constant_channel() -> None:
    """Nor one with running states: what a head reads there is what embeddings put into it."""
    model = AutoModelForCausalLM.from_config(shrunken("qwen3_next", mlp_only_layers=[0, 1, 2]))
    sharpened._make_constant_channel(model)
    read = []
    model.model.norm.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model(torch.arange(12)[None], use_cache=False)
    assert (read[0][..., 0] == 1.0).all()


def test_a_sharpened_model_is_as_sure_and_ends_as_often_as_asked_for(folder: Path) -> None:
    figures = sharpened.read_figures(folder)
    assert figures["entropy_bits"] == pytest.approx(BITS, rel=0.25)
    assert figures["end_probability"] == pytest.approx(1 / LENGTH, rel=0.25)
    sampler = Sampler.from_pretrained(str(folder))
    assert sampler.source.eos_ids == {sharpened.END}
    settings = SamplingSettings(sharpened.TEMPERATURE, top_p=sharpened.TOP_P, max_tokens=200)
    prompts = [prompt.token_ids.tolist() for prompt in made_up(Point(40, 1), VOCABULARY)]
    samples = list(sampler.sample(prompts, 8, settings))
    lengths = [sample.n_tokens for sample in samples]
    assert LENGTH / 2 < np.mean(lengths) < LENGTH * 2
    assert np.std(lengths) > LENGTH / 3  # they are not all alike
    assert sum(sample.finish_reason == "eos" for sample in samples) > 0.95 * len(samples)
    bits = -sum(sample.logprob for sample in samples) / sum(lengths) / np.log(2)
    assert 0.2 * BITS < bits < 2 * BITS
    assert sampler.stats.rows_computed < 0.9 * sampler.stats.tokens_sampled  # they share rows


def test_any_engine_finds_the_same_in_its_folder(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.eos_token_id == sharpened.END
    with torch.inference_mode():
        states = model.model(torch.randint(1, VOCABULARY, (4, 9))).last_hidden_state
    assert (states[..., 0] > 0).all()
    assert float(states[..., 0].std() / states[..., 0].mean()) < 0.3
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == VOCABULARY
    texts = [tokenizer.decode([token]) for token in range(VOCABULARY)]
    assert len(set(texts)) == VOCABULARY
    assert not any(stop in "".join(texts) for stop in run.STOPS)


def test_samples_may_have_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    monkeypatch.setitem(configs.CONFIGS, "less", LlamaConfig(vocab_size=64, **sizes, **heads))
    sharpened.make_folder("less", tmp_path / "less", 2.0, 0.0)
    assert Sampler.from_pretrained(str(tmp_path / "less")).source.eos_ids == frozenset()
