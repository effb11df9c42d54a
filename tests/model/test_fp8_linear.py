"""Quantised layers against the same numbers in float64, on a CPU and, with `-m gpu`, on a GPU."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from hydragen_kernels.inputs import FP8
from hydragen_tree.model import fp8_linear
from hydragen_tree.model.fp8_linear import BLOCK, Fp8Linear, Quantised, quantise, widen_blocks
from hydragen_tree.model.projections import fuse_projections, products_of
from hydragen_tree.model.quantising import (
    forget_originals,
    measure_logit_error,
    quantisable,
    quantise_layers,
    quantised_layers,
)

CPU = torch.device("cpu")


def worst_row(found: Tensor, expected: Tensor) -> float:
    """The greatest relative error of a row, by the Euclidean norm."""
    difference = (found.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1).clamp(min=1e-9)).max())


# -- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("width", "group"), [(64, 64), (384, 128), (17, 17), (1, 1)])
def test_numbers_are_the_nearest_of_their_scale(width: int, group: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(7, width) * torch.logspace(-3, 3, 7)[:, None]).to(dtype)
    numbers, scale = quantise(x, group)
    assert numbers.dtype == FP8
    assert scale.shape == (7, width // group)
    spread = scale.double().repeat_interleave(group, 1)
    found, wanted = numbers.double(), x.double() / spread
    # half of the last of three bits, and half of the smallest number near zero
    assert ((found - wanted).abs() <= wanted.abs() / 16 * 1.0001 + 2**-10).all()
    largest = found.abs().unflatten(1, (-1, group)).amax(2)
    assert (largest == 448.0).all()


def test_zeros_and_what_is_not_finite() -> None:
    x = torch.zeros(4, 32)
    x[1, 3], x[2, 3], x[3, :] = torch.nan, torch.inf, 1e-30
    found = quantise(x, 32).widened(torch.float32)
    assert (found[0] == 0).all()
    assert found[1].isnan().any()
    assert not found[2].isfinite().all()
    assert (found[3].abs() < 1e-14).all()


def test_blocks_may_be_cut() -> None:
    numbers = torch.ones(130, 200).to(FP8)
    wide = widen_blocks(numbers, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.float32)
    corners = wide[0, 127], wide[127, 128], wide[128, 0], wide[129, 199]
    assert [float(one) for one in corners] == [1.0, 2.0, 3.0, 4.0]
    assert wide.shape == (130, 200)


# -- layers ------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A layer and its input."""

    rows: tuple[int, ...]
    width: int
    outputs: int
    by_blocks: bool = False
    bias: bool = False
    input_scale: float | None = None


CASES = {
    "one row": Case((1,), 64, 48),
    "odd rows": Case((3, 7), 144, 80, bias=True),
    "many rows": Case((1, 300), 512, 256),
    "one scale for inputs": Case((5,), 64, 32, input_scale=0.01),
    "inputs beyond their scale": Case((5,), 64, 32, bias=True, input_scale=0.002),
    "blocks": Case((9,), 384, 256, by_blocks=True),
    "one block, one row": Case((1,), 128, 128, by_blocks=True, bias=True),
    "blocks, many rows": Case((2, 130), 640, 384, by_blocks=True),
}


class Numbers(NamedTuple):
    """What a layer is made of, and an input."""

    x: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None


def numbers_of(case: Case, device: torch.device, dtype: torch.dtype) -> Numbers:
    torch.manual_seed(1)
    x = torch.randn(*case.rows, case.width, device=device).to(dtype)
    weight = torch.randn(case.outputs, case.width, device=device)
    weight *= torch.logspace(-1, 1, case.outputs, device=device)[:, None]
    numbers, scale = quantise(weight, BLOCK if case.by_blocks else case.width)
    return Numbers(
        x,
        numbers,
        scale[::BLOCK].contiguous() if case.by_blocks else scale[:, 0],
        torch.randn(case.outputs, device=device).to(dtype) if case.bias else None,
        None if case.input_scale is None else torch.tensor(case.input_scale, device=device),
    )


def expected_of(numbers: Numbers) -> Tensor:
    """The product in float64, of inputs that are quantised, from what weights stand for."""
    x, weight, scale, bias, input_scale = numbers
    by_blocks = scale.ndim == 2
    rows = x.flatten(0, -2)
    if input_scale is None:
        seen = quantise(rows, BLOCK if by_blocks else x.shape[-1]).widened(torch.float64)
    else:
        step = (rows.float() / input_scale).clamp(-448, 448).to(FP8)
        seen = step.double() * input_scale.double()
    if by_blocks:
        wide = widen_blocks(weight, scale, torch.float64)
    else:
        wide = weight.double() * scale.double()[:, None]
    out = seen @ wide.T
    if bias is not None:
        out = out + bias.double()
    return out.view(*x.shape[:-1], -1)


def layer_of(numbers: Numbers) -> Fp8Linear:
    x, *rest = numbers
    return Fp8Linear(*rest, dtype=x.dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@torch.inference_mode()
def test_a_layer_multiplies_what_it_has_quantised(
    dtype: torch.dtype, tolerance: float, name: str
) -> None:
    numbers = numbers_of(CASES[name], CPU, dtype)
    layer = layer_of(numbers)
    assert not layer.is_quantised  # a CPU holds what they stand for
    found = layer(numbers.x)
    assert found.dtype == dtype
    assert worst_row(found, expected_of(numbers)) < tolerance


@pytest.fixture
def multiplying_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch multiplies 8 bits on a CPU too, slowly: here the layers let it."""
    monkeypatch.setattr(fp8_linear, "multiplies", lambda _, by_blocks=False: not by_blocks)


BY_ROWS = [name for name, case in CASES.items() if not case.by_blocks]


@pytest.mark.parametrize("name", BY_ROWS)
@torch.inference_mode()
def test_products_of_8_bits(name: str, multiplying_cpu: None) -> None:
    numbers = numbers_of(CASES[name], CPU, torch.bfloat16)
    layer = layer_of(numbers)
    assert layer.is_quantised
    assert layer.weight.nbytes == layer.in_features * layer.out_features
    assert worst_row(layer(numbers.x), expected_of(numbers)) < 1e-2


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
@torch.inference_mode()
def test_a_layer_is_one_graph_for_any_number_of_rows(multiplying_cpu: None) -> None:
    layer = layer_of(numbers_of(CASES["odd rows"], CPU, torch.bfloat16))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (2, 3, 40):
        x = torch.randn(rows, layer.in_features).to(torch.bfloat16)
        assert torch.equal(compiled(x), layer(x))
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@torch.inference_mode()
def test_a_gpu_multiplies_the_same(dtype: torch.dtype, name: str) -> None:
    """As it comes, compiled, and captured in a graph that is replayed on another input."""
    numbers = numbers_of(CASES[name], torch.device("cuda"), dtype)
    layer = layer_of(numbers)
    expected = expected_of(numbers)
    assert layer.is_quantised == fp8_linear.multiplies(
        torch.device("cuda"), by_blocks=CASES[name].by_blocks
    )
    assert worst_row(layer(numbers.x), expected) < 1e-2
    torch.compiler.reset()  # of a layer with other sizes, which would count as compiled anew
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    assert worst_row(compiled(numbers.x), expected) < 1e-2
    x = torch.zeros_like(numbers.x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(x)
    x.copy_(numbers.x)
    graph.replay()
    assert worst_row(out, expected) < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_hopper_gpu_multiplies_by_rows_and_by_blocks() -> None:
    """With cuBLAS of CUDA 12.9 or later, which both ends of the range of torch have."""
    device = torch.device("cuda")
    capability = torch.cuda.get_device_capability(device)
    assert fp8_linear.multiplies(device) == (capability >= (8, 9))
    if capability[0] == 9:
        assert fp8_linear.multiplies(device, by_blocks=True)


# -- layers side by side -----------------------------------------------------------------------


def block_of(layers: dict[str, Fp8Linear]) -> nn.Module:
    block = nn.Module()
    for name, layer in layers.items():
        block.add_module(name, layer)
    return block


@torch.inference_mode()
def test_layers_of_one_input_are_one_product(multiplying_cpu: None) -> None:
    torch.manual_seed(0)
    layers = {
        name: Fp8Linear.of(nn.Linear(64, width), CPU)
        for name, width in (("q_proj", 48), ("k_proj", 16), ("v_proj", 16))
    }
    x = torch.randn(1, 5, 64)
    expected = [layer(x) for layer in layers.values()]
    block = block_of(layers)
    assert fuse_projections(block) == 1
    [(width, product)] = products_of(block)
    assert width == 64
    assert product(x).shape == (1, 5, 80)
    for name, truth in zip(layers, expected, strict=True):
        torch.testing.assert_close(getattr(block, name)(x), truth)


@pytest.mark.parametrize(("gate", "up", "fused"), [(0.5, 0.5, 1), (0.5, 0.25, 0), (0.5, None, 0)])
def test_layers_with_other_scales_for_their_input_are_not(
    gate: float, up: float | None, fused: int, multiplying_cpu: None
) -> None:
    layers = {}
    for name, scale in (("gate_proj", gate), ("up_proj", up)):
        numbers = numbers_of(Case((1,), 32, 16, input_scale=scale), CPU, torch.float32)
        layers[name] = layer_of(numbers)
    assert fuse_projections(block_of(layers)) == fused


# -- models ------------------------------------------------------------------------------------


@pytest.fixture
def model(random_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(random_model).eval()


def test_heads_embeddings_and_norms_stay_as_they_are(model: PreTrainedModel) -> None:
    names = {name.rpartition(".")[2] for name, _ in quantisable(model)}
    assert names == {*(f"{x}_proj" for x in "qkvo"), "gate_proj", "up_proj", "down_proj"}
    assert quantise_layers(model, CPU) == 2 * 7
    assert type(model.lm_head) is nn.Linear


def test_routers_and_awkward_sizes_stay_as_they_are(model: PreTrainedModel) -> None:
    layer = model.model.layers[0].mlp
    layer.add_module("gate", nn.Linear(64, 16))
    layer.add_module("shared_expert_gate", nn.Linear(64, 16))
    layer.add_module("router", nn.Sequential(nn.Linear(64, 16)))
    layer.add_module("narrow", nn.Linear(64, 10))
    names = [name for name, _ in quantisable(model)]
    assert len(names) == 2 * 7
    assert not [name for name in names if "router" in name or name.endswith(("gate", "narrow"))]


def test_the_error_of_logits_is_measured_against_the_model_itself(model: PreTrainedModel) -> None:
    tokens = list(range(60))
    with torch.inference_mode():
        truth = model(input_ids=torch.tensor([tokens])).logits[0]
    quantise_layers(model, CPU)
    error = measure_logit_error(model, tokens)
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([tokens])).logits[0]
    found, truth = (x - x.mean(1, keepdim=True) for x in (found, truth))
    assert error.tokens == 60
    assert error.relative == pytest.approx(float((found - truth).norm() / truth.norm()), rel=1e-3)
    assert 0.01 < error.relative < 0.5  # random weights are far from smooth
    assert error.other_best == pytest.approx(
        float((found.argmax(1) != truth.argmax(1)).double().mean())
    )
    forget_originals(model)
    assert all(layer.original is None for layer in quantised_layers(model))
    # of what is left: weights are what they stand for, and inputs are rounded
    assert 0.001 < measure_logit_error(model, tokens).relative < error.relative


def test_long_prompts_are_compared_at_their_beginning(model: PreTrainedModel) -> None:
    quantise_layers(model, CPU)
    assert measure_logit_error(model, list(range(250)) * 2).tokens == 256
    assert "first prompt's 256 tokens" in str(measure_logit_error(model, [1] * 256))


def test_what_is_quantised_is_eight_bits(model: PreTrainedModel, multiplying_cpu: None) -> None:
    before = sum(p.nbytes for _, layer in quantisable(model) for p in layer.parameters())
    quantise_layers(model, CPU)
    after = sum(layer.weight.nbytes for layer in quantised_layers(model))
    assert after * 4 == before
    assert Quantised(*quantise(torch.ones(2, 16), 16)).numbers.nbytes == 32
