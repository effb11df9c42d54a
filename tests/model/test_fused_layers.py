"""Layers with fused norms, gates and rotations give what the model's own code gives."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.shrunken import VOCABULARY, shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_tree.model.fused_layers import Fused, FusedNorm, fuse_layers  # noqa: E402
from hydragen_tree.model.projections import fuse_projections  # noqa: E402

# models by what is replaced in two layers of them
KINDS = {
    "llama": Fused(norms=5, gated_layers=2, rotations=1),
    "qwen3": Fused(norms=9, gated_layers=2, rotations=1),
    "gemma": Fused(norms=5, gated_layers=2, rotations=1),
    "gemma2": Fused(norms=9, gated_layers=2, rotations=1),
    "olmo2": Fused(norms=9, gated_layers=2, rotations=1),
    "phi3": Fused(norms=5, gated_layers=0, rotations=1),
    "cohere": Fused(norms=0, gated_layers=2, rotations=0),
    "starcoder2": Fused(norms=0, gated_layers=0, rotations=1),
}


@pytest.fixture(autouse=True)
def own_code() -> Iterator[None]:
    """The functions of transformers' modules, put back afterwards."""
    name = "apply_rotary_pos_emb"
    before = {module: getattr(module, name) for module in _modelling() if hasattr(module, name)}
    yield
    for module in _modelling():
        if module in before:
            setattr(module, name, before[module])


def _modelling() -> list[object]:
    return [one for key, one in [*sys.modules.items()] if key.startswith("transformers.models.")]


def model_of(kind: str, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = shrunken(kind, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(DEVICE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms of ones tell little
    return model


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_fused_model_is_the_same(kind: str) -> None:
    model = model_of(kind, torch.float32)
    tokens = torch.randint(VOCABULARY, (1, 9), device=DEVICE)
    expected = model(tokens).logits.double()
    assert fuse_layers(model) == KINDS[kind]
    fuse_projections(model)
    found = model(tokens).logits.double()
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.max()) < 1e-4


@torch.inference_mode()
def test_a_norm_with_other_arithmetic_stays() -> None:
    model = model_of("llama", torch.float32)

    class OddRMSNorm(type(model.model.norm)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = 1.01 * super().forward(x)
            return out

    odd = OddRMSNorm(model.config.hidden_size).to(DEVICE)
    model.model.norm = odd
    assert fuse_layers(model).norms == 4
    assert model.model.norm is odd


@torch.inference_mode()
def test_weights_of_16_bits() -> None:
    dtype = torch.float16 if INTERPRETED else torch.bfloat16
    model = model_of("llama", dtype)
    assert fuse_layers(model) == KINDS["llama"]
    assert isinstance(model.model.norm, FusedNorm)
