"""Layers with fused norms, gates and rotations give what the model's own code gives."""

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hydragen_kernels import ordered_layers
from hydragen_tree.model.fused_layers import (
    Fused,
    FusedNorm,
    fuse_layers,
)
from hydragen_tree.model.layer_kernels import LayerKernels, triton_kernels
from hydragen_tree.model.projections import fuse_projections
from tests.model.shrunken import VOCABULARY, shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = INTERPRETED or torch.cuda.is_available()
WITH_TRITON = [pytest.mark.skipif(not HAS_TRITON, reason="no GPU, not under the interpreter")]
if not INTERPRETED:
    WITH_TRITON.append(pytest.mark.gpu)
WITH_C = pytest.mark.skipif(ordered_layers.why_unavailable() is not None, reason="no C compiler")

# models by what is replaced in two layers of them
KINDS = {
    "llama": Fused(norms=5, gated_layers=2, rotations=1),
    "qwen3": Fused(norms=9, gated_layers=2, rotations=1),
    "gemma": Fused(norms=5, gated_layers=2, rotations=1),
    "gemma2": Fused(norms=9, gated_layers=2, rotations=1),
    "olmo2": Fused(norms=9, gated_layers=2, rotations=1),
    "phi3": Fused(norms=5, gated_layers=0, rotations=1),
    "cohere": Fused(norms=0, gated_layers=2, rotations=0),
    "gpt_oss": Fused(norms=5, gated_layers=0, rotations=1),  # half as many angles
    "glm4_moe": Fused(norms=5, gated_layers=2, rotations=1),  # a part of each head
    "deepseek_v2": Fused(norms=9, gated_layers=2, rotations=1),  # pairs
    "glm4": Fused(norms=9, gated_layers=0, rotations=0),
    "starcoder2": Fused(norms=0, gated_layers=0, rotations=1),
}


class Place(NamedTuple):
    """A device and the kernels of its layers."""

    device: str
    kernels: LayerKernels


@pytest.fixture(
    params=[
        pytest.param("C", marks=WITH_C),
        pytest.param("Triton", marks=WITH_TRITON),
    ]
)
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "C":
        return Place("cpu", ordered_layers)
    return Place("cpu" if INTERPRETED else "cuda", triton_kernels())


@pytest.fixture(autouse=True)
def own_code() -> Iterator[None]:
    """The functions of transformers' modules, put back afterwards."""
    names = "apply_rotary_pos_emb", "apply_rotary_emb"
    places = [(one, name) for one in _modelling() for name in names if hasattr(one, name)]
    before = [getattr(*place) for place in places]
    yield
    for place, function in zip(places, before, strict=True):
        setattr(*place, function)


def _modelling() -> list[object]:
    return [one for key, one in [*sys.modules.items()] if key.startswith("transformers.models.")]


def model_of(kind: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = shrunken(kind, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms of ones tell little
    return model


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_fused_model_is_the_same(kind: str, place: Place) -> None:
    model = model_of(kind, torch.float32, place.device)
    tokens = torch.randint(VOCABULARY, (1, 9), device=place.device)
    expected = model(tokens).logits.double()
    assert fuse_layers(model, place.kernels) == KINDS[kind]
    fuse_projections(model)
    found = model(tokens).logits.double()
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.max()) < 1e-4


@torch.inference_mode()
def test_a_norm_with_other_arithmetic_stays(place: Place) -> None:
    model = model_of("llama", torch.float32, place.device)

    class OddRMSNorm(type(model.model.norm)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = 1.01 * super().forward(x)
            return out

    odd = OddRMSNorm(model.config.hidden_size).to(place.device)
    model.model.norm = odd
    assert fuse_layers(model, place.kernels).norms == 4
    assert model.model.norm is odd


@pytest.mark.parametrize("place", [pytest.param("Triton", marks=WITH_TRITON)], indirect=True)
@torch.inference_mode()
def test_weights_of_16_bits(place: Place) -> None:
    dtype = torch.float16 if INTERPRETED else torch.bfloat16
    model = model_of("llama", dtype, place.device)
    assert fuse_layers(model, place.kernels) == KINDS["llama"]
    assert isinstance(model.model.norm, FusedNorm)
