"""The batch-invariant mode's layers on a GPU: compiled there, else interpreted."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

from hydragen_kernels import ordered_library  # noqa: E402
from hydragen_kernels.ordered_matmul import ordered_matmul  # noqa: E402
from hydragen_tree.errors import ModelError  # noqa: E402
from hydragen_tree.model import experts, invariance  # noqa: E402
from hydragen_tree.model.adapter import TreeModel  # noqa: E402
from hydragen_tree.model.experts import IMPLEMENTATION  # noqa: E402
from hydragen_tree.model.invariance import check_invariance  # noqa: E402
from hydragen_tree.model.loading import find_model  # noqa: E402
from hydragen_tree.model.ordered_gpu import OrderedProduct, order_gpu_products  # noqa: E402
from hydragen_tree.shape import KVShape  # noqa: E402
from tests.model.shrunken import shrunken  # noqa: E402


@torch.inference_mode()
def test_plain_linear_layers_are_replaced() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(16, 24), nn.SiLU(), nn.Linear(24, 8, bias=False))
    model = nn.Sequential(inner, nn.LayerNorm(8), nn.Linear(8, 40)).to(DEVICE)
    x = torch.randn(2, 5, 16, device=DEVICE)
    expected = model(x)
    weights = {id(parameter) for parameter in model.parameters()}
    assert order_gpu_products(model) == 3
    assert {id(parameter) for parameter in model.parameters()} == weights
    assert isinstance(model[2], OrderedProduct)
    assert (model[2].in_features, model[2].out_features) == (8, 40)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert order_gpu_products(model) == 0


def test_few_numbers_of_rows_are_tried() -> None:
    sizes = {ordered_library.padded(rows) for rows in range(64, 8193)}
    assert len(sizes) < 80
    assert all(rows <= ordered_library.padded(rows) <= rows + max(64, rows // 4) for rows in sizes)
    assert all(ordered_library.padded(rows) == rows for rows in sizes)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 300])
def test_a_library_product_has_the_same_bits(rows: int) -> None:
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    torch.manual_seed(0)
    x, weight = (torch.randn(n, 96, device=DEVICE).to(dtype) for n in (rows, 32))
    for bias in (None, torch.randn(32, device=DEVICE).to(dtype)):
        found = ordered_library.linear(x, weight, bias)
        assert torch.equal(found, ordered_matmul(x, weight, bias))


KINDS_OF_NUMBERS = [torch.float32, torch.bfloat16, torch.float16]
SHAPE = KVShape(layers=2, q_heads=4, kv_heads=2, head_dim=16, itemsize=4)


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.q_heads,
        num_key_value_heads=SHAPE.kv_heads,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().to(DEVICE)


@pytest.fixture
def _interpreted_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter moves a kernel's arguments by an operation of torch's."""
    if INTERPRETED:
        known = invariance._KNOWN_ON_GPU | {"set"}
        monkeypatch.setattr(invariance, "_KNOWN_ON_GPU", known)


@pytest.mark.usefixtures("_interpreted_launches")
@torch.inference_mode()
def test_a_model_is_promised_for() -> None:
    own = small_model()
    tokens = torch.arange(20, device=DEVICE)[None]
    expected = own(input_ids=tokens).logits
    model = TreeModel(own, batch_invariant=True)
    assert nn.Linear not in {type(module) for module in model.model.modules()}
    if INTERPRETED:  # numpy's products do depend on the number of rows
        assert invariance._Probe(model, SHAPE).audit() is None
    else:
        check_invariance(model, SHAPE, "small")
    model.model.set_attn_implementation("eager")
    torch.testing.assert_close(model.model(input_ids=tokens).logits, expected, rtol=1e-4, atol=1e-4)


# windows, experts, and both
KINDS = ["gpt_oss", "qwen3_moe"]
if not INTERPRETED:
    KINDS += ["deepseek_v3", "gemma3_text", "glm4_moe", "gpt2", "mistral", "mixtral", "olmoe"]
    KINDS += ["apertus", "cohere2", "gemma2", "ministral3"]


@pytest.mark.usefixtures("_interpreted_launches")
@pytest.mark.parametrize("dtype", [torch.float32] if INTERPRETED else KINDS_OF_NUMBERS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_other_architectures_are_promised_for(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    config = shrunken(kind)
    config.save_pretrained(tmp_path)
    name = str(dtype).removeprefix("torch.")
    source = find_model(str(tmp_path), device=DEVICE, dtype=name, batch_invariant=True)
    torch.manual_seed(0)
    own = AutoModelForCausalLM.from_config(config).eval().to(DEVICE, dtype)
    tokens = torch.arange(3, 12, device=DEVICE)[None]
    expected = own(input_ids=tokens).logits.double()
    model = TreeModel(own, batch_invariant=True)
    if hasattr(config, "num_experts_per_tok"):
        assert model.model.config._experts_implementation == IMPLEMENTATION
    if INTERPRETED:
        assert invariance._Probe(model, source.shape).audit() is None
    else:
        check_invariance(model, source.shape, kind)
    model.model.set_attn_implementation("eager")
    found = model.model(input_ids=tokens).logits.double()
    assert float((found - expected).norm() / expected.norm()) < 16 * torch.finfo(dtype).eps


def test_experts_whose_tiles_differ_are_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    own = AutoModelForCausalLM.from_config(shrunken("mixtral")).float().to(DEVICE).eval()
    product = experts.expert_product

    def differing(*given: torch.Tensor, tile: object = None, **how: object) -> torch.Tensor:
        return product(*given, **how) * (1.0 if tile is None else 1.0 + 1e-6 * tile.rows)

    monkeypatch.setattr(experts, "expert_product", differing)
    assert experts.group_experts(own, in_one_order=True) == 0
    assert experts.group_experts(own) == len(own.model.layers)


@pytest.mark.usefixtures("_interpreted_launches")
def test_what_could_look_at_other_rows_is_refused_by_name() -> None:
    class Centred(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(-1, keepdim=True)

    own = small_model()
    own.model.norm = nn.Sequential(own.model.norm, Centred())
    with pytest.raises(ModelError, match=r"model.norm.1 \(Centred\) computes torch's mean"):
        check_invariance(TreeModel(own, batch_invariant=True), SHAPE, "small")
