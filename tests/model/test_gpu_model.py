"""Whole models on a GPU: as exact as dense transformers in the same dtype, fp32 being the judge."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture(scope="module")
def wide_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 128 numbers, grouped, as large models have; the tokenizer of `random_model`."""
    path = tmp_path_factory.mktemp("wide-model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=1024,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=256,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((random_model / name).read_bytes())
    return path


def load(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).cuda().eval()


@torch.inference_mode()
def logits(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    return model(torch.tensor([tokens], device="cuda")).logits[0]


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
@pytest.mark.parametrize("compiled", [False, True])
def test_greedy_continuation_is_as_exact_as_dense_decoding(
    compiled: bool, wide_model: Path
) -> None:
    """512 tokens: every one is what dense bf16 takes, or one that it can hardly tell from it."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 300)
    prompts = [
        Prompt("a", 0, np.append(root, rng.integers(0, 250, size)).astype(np.int32), ())
        for size in (20, 70)
    ]
    prompts[1] = Prompt("b", 0, prompts[1].token_ids, ())
    sampler = Sampler.from_pretrained(
        str(wide_model), device="cuda", dtype="bfloat16", compiled=compiled
    )
    settings = SamplingSettings(temperature=0.0, max_tokens=512, logprobs=True)
    samples = {sample.task_id: sample for sample in sampler.sample(prompts, 1, settings)}
    exact, half = load(wide_model, torch.float32), load(wide_model, torch.bfloat16)
    for prompt in prompts:
        sample = samples[prompt.task_id]
        text = [*prompt.token_ids.tolist(), *sample.token_ids]
        asked = slice(len(prompt.token_ids) - 1, len(text) - 1)
        truth, dense = logits(exact, text)[asked], logits(half, text)[asked]
        tokens = torch.tensor(sample.token_ids, device="cuda")
        ours = torch.tensor(sample.token_logprobs, device="cuda")
        at = torch.arange(len(tokens), device="cuda")
        noise = (dense - truth).abs().amax(-1)  # what bf16 costs dense decoding at each token
        behind = truth.amax(-1) - truth[at, tokens]
        assert (behind <= 4 * noise).all()
        assert (behind == 0).float().mean() > 0.9
        true_logprobs = truth.log_softmax(-1)[at, tokens]
        dense_logprobs = dense.float().log_softmax(-1)[at, tokens]
        assert error(ours, true_logprobs) < 2 * error(dense_logprobs, true_logprobs)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_two_devices_draw_the_same_side_by_side(wide_model: Path) -> None:
    """Each sampler works on its own device, whichever is the current one when its turn comes."""
    settings = SamplingSettings(max_tokens=24)
    devices = ("cuda:1", "cuda:0")
    samplers = [
        Sampler.from_pretrained(str(wide_model), device=device, compiled=False)
        for device in devices
    ]
    runs = [sampler.sample(["def f(x):"], 12, settings) for sampler in samplers]
    in_turn = list(zip(*runs, strict=True))
    first, second = (
        {sample.sample_index: sample.token_ids for sample in samples}
        for samples in zip(*in_turn, strict=True)
    )
    assert len(first) == 12
    assert first == second
    assert torch.cuda.current_device() == 0
