"""Experts as grouped products give what transformers' own give."""

import os

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.shrunken import VOCABULARY, shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.layer_forms import Activation  # noqa: E402
from hydragen_tree.model import experts  # noqa: E402
from hydragen_tree.model.experts import _ACTIVATION, group_experts  # noqa: E402

SILU, GELU = ({"activation": kind} for kind in (Activation.SILU, Activation.GELU_TANH))
# models by what computes the activation of their layers of experts: nothing (their own code does),
# or the kernel with these arguments; none at all where they have no experts
KINDS: dict[str, list[dict[str, object] | None]] = {
    "deepseek_v2": [SILU],
    "deepseek_v3": [SILU],
    "ernie4_5_moe": [SILU],
    "gemma4_text": [GELU],
    "glm4_moe": [SILU],
    "gpt_oss": [{"alpha": 1.702, "limit": 7.0}],
    "granitemoe": [SILU],
    "llama": [],
    "minimax_m2": [SILU],
    "mixtral": [SILU],
    "nemotron_h": [None],
    "qwen3_moe": [SILU],
}
CHANGES: dict[str, dict[str, object]] = {
    "gemma4_text": {
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    }
}


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = shrunken(kind, **CHANGES.get(kind, {}))
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager").to(DEVICE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.float().eval()


@pytest.mark.filterwarnings("ignore")  # transformers' own, about configurations it makes itself
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_grouped_model_is_the_same(kind: str) -> None:
    model = model_of(kind)
    tokens = torch.randint(VOCABULARY, (1, 9), device=DEVICE)
    expected = model(tokens).logits.double()
    count = group_experts(model)
    found = model(tokens).logits.double()
    layers = [one for one in model.modules() if hasattr(one, _ACTIVATION)]
    assert count == len(layers)
    forms = [getattr(layer, _ACTIVATION) for layer in layers]
    found_forms = [None if form is None else form.keywords for form in forms]
    assert all(form in KINDS[kind] for form in found_forms)
    assert bool(layers) == bool(KINDS[kind])
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.max()) < 1e-5


@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_a_gate_that_clamps_is_left_to_the_layer() -> None:
    model = model_of("mixtral")
    layers = [one for one in model.modules() if hasattr(one, "_apply_gate")]

    def clamping(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate.clamp(max=7.0)) * up

    for layer in layers:
        layer._apply_gate = clamping
    assert group_experts(model) == len(layers)
    assert {getattr(layer, _ACTIVATION) for layer in layers} == {None}


@torch.inference_mode()
def test_products_that_give_something_else_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a kernel forgot the biases that the weights have."""
    model = AutoModelForCausalLM.from_config(shrunken("gpt_oss")).float().to(DEVICE).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("proj_bias"):
            parameter.normal_()
    own = model.config._experts_implementation
    product = experts.expert_product
    monkeypatch.setattr(
        experts,
        "expert_product",
        lambda x, w, _, routing, **how: product(x, w, None, routing, **how),
    )
    assert group_experts(model) == 0
    assert model.config._experts_implementation == own
    monkeypatch.undo()
    assert group_experts(model) == len(model.model.layers)
