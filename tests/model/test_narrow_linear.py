"""Linear layers of 8 and 16 bits on a CPU: what they hold, which they are, what they cost."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hydragen_kernels import narrow_product
from hydragen_tree.errors import InputError
from hydragen_tree.model import dtypes
from hydragen_tree.model.explain import weight_bytes
from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.model.narrow_linear import NarrowLinear
from hydragen_tree.model.projections import fuse_projections
from hydragen_tree.model.quantising import measure_logit_error, quantised_layers
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

KINDS = {"int8": torch.int8, "bfloat16": torch.bfloat16}
ERRORS = {"int8": (2e-3, 0.2), "bfloat16": (2e-4, 0.03)}  # of logits of random weights

pytestmark = pytest.mark.skipif(
    any(narrow_product.why_unavailable(kind) is not None for kind in KINDS.values()),
    reason="the CPU does not multiply such numbers, or there is no C compiler",
)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("name", "most"), [("int8", 0.015), ("bfloat16", 0.004)])
@torch.inference_mode()
def test_a_layer_is_nearly_the_layer_that_it_was(name: str, most: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(300, 70)
    layer.weight *= torch.logspace(-2, 2, 70)[:, None]
    narrow = NarrowLinear.of(layer, KINDS[name])
    x = torch.randn(2, 5, 300)
    assert narrow(x).shape == (2, 5, 70)
    assert 1e-4 < relative(narrow(x), layer(x)) < most
    weights = narrow.stands_for(torch.float32)
    nearest = (weights - layer.weight).abs().amax(1) / layer.weight.abs().amax(1)
    assert nearest.max() < (0.5 / 127 if name == "int8" else 2**-8) * 1.0001
    assert narrow.exact_weight(torch.float32) is narrow.original


@pytest.mark.parametrize("name", KINDS)
def test_layers_of_one_input_become_one(name: str) -> None:
    torch.manual_seed(0)

    class Gates(nn.Module):
        def __init__(self, up: int) -> None:
            super().__init__()
            self.gate_proj = NarrowLinear.of(nn.Linear(40, 64), KINDS[name])
            self.up_proj = NarrowLinear.of(nn.Linear(40, up), KINDS[name])

    x = torch.randn(3, 40)
    for up, made in ((32, 1), (33, 0)):  # 33 outputs leave a panel open
        gates = Gates(up)
        expected = gates.gate_proj(x), gates.up_proj(x)
        assert fuse_projections(gates) == made
        found = gates.gate_proj(x), gates.up_proj(x)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", KINDS)
def test_logits_move_by_what_is_said(name: str, random_model: Path) -> None:
    source = find_model(str(random_model), device="cpu", weights=name)
    assert (source.weights, source.is_quantised) == (KINDS[name], True)
    model = load_weights(source)
    layers = quantised_layers(model)
    assert len(layers) == 2 * 7 + 1  # the head too
    tokens = list(range(40))
    error = measure_logit_error(model, tokens)
    plain = AutoModelForCausalLM.from_pretrained(random_model)
    with torch.inference_mode():
        found, exact = (one(torch.tensor([tokens])).logits[0] for one in (model, plain))
    found, exact = (x - x.mean(1, keepdim=True) for x in (found, exact))
    assert error.relative == pytest.approx(relative(found, exact), rel=1e-3)
    least, most = ERRORS[name]
    assert least < error.relative < most
    assert f"rounding to {8 * KINDS[name].itemsize} bits moves logits" in str(error)
    kinds = weight_bytes(source)
    assert kinds[KINDS[name]] == sum(
        layer.out_features * (layer.in_features * layer.kind.itemsize)
        + (0 if layer.scale is None else 4 * layer.out_features)
        for layer in layers
        if isinstance(layer, NarrowLinear)
    )


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_drawn_from_rounded_layers(name: str, random_model: Path) -> None:
    settings = SamplingSettings(max_tokens=10, logprobs=True)
    found, exact = (
        {
            one.sample_index: torch.tensor(one.token_logprobs[:1])
            for one in Sampler.from_pretrained(
                str(random_model), device="cpu", weights=weights
            ).sample(["def f(x):"], 6, settings)
        }
        for weights in (name, "auto")
    )
    assert found.keys() == exact.keys() == set(range(6))
    same = [abs(float(found[i][0] - exact[i][0])) for i in range(6)]
    assert 0 < sorted(same)[2] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int4"}, "expected auto, int8, bfloat16 or fp8"),
        ({"weights": "int8", "dtype": "bfloat16"}, "only with a dtype of float32"),
        ({"weights": "int8", "batch_invariant": True}, "not with linear layers in fewer bits"),
    ],
)
def test_what_cannot_be_is_refused(
    random_model: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find_model(str(random_model), device="cpu", **options)


def test_a_cpu_or_device_that_does_not_multiply_them_is_named(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="not on cuda; expected cpu"):
        dtypes.linear_dtype("int8", torch.bfloat16, torch.device("cuda"))
    monkeypatch.setattr(dtypes, "why_unavailable", lambda _: "the CPU has no AVX512-VNNI")
    with pytest.raises(InputError, match="has no AVX512-VNNI; use auto"):
        find_model(str(random_model), device="cpu", weights="int8")
