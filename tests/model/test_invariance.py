"""The batch-invariant mode: what it promises holds, and what it cannot promise it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedConfig

from hydragen_kernels import ordered_layers
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.invariance import check_invariance
from hydragen_tree.model.loading import ModelSource, find_model, load_weights
from hydragen_tree.model.ordered_layers import RotaryTable
from hydragen_tree.model.ordered_linear import OrderedLinear, PanelEmbedding
from hydragen_tree.sample.sampler import Sampler
from tests.model.shrunken import shrunken

pytestmark = pytest.mark.skipif(
    ordered_layers.why_unavailable() is not None, reason="no C compiler"
)
PROMISED = ["gemma3_text", "gpt2", "gpt_neox", "mistral", "olmo2", "opt", "phi3", "qwen3"]
PROMISED += ["deepseek_v3", "glm4_moe", "gpt_oss", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]
PROMISED += ["apertus", "cohere2", "gemma2", "ministral3"]  # functions of torch are replaced
REFUSED = {
    "llama4_text": r"self_attn \(Llama4TextAttention\) computes torch's view_as_complex",
}


def ready(folder: str | Path, **options: Any) -> tuple[TreeModel, ModelSource]:
    source = find_model(str(folder), device="cpu", batch_invariant=True, **options)
    return TreeModel(load_weights(source), batch_invariant=True), source


def small(kind: str, folder: Path) -> tuple[PreTrainedConfig, ModelSource]:
    config = shrunken(kind)
    config.save_pretrained(folder)
    return config, find_model(str(folder), device="cpu", batch_invariant=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_promised_for(random_model: Path, dtype: str) -> None:
    model, source = ready(random_model, dtype=dtype)
    check_invariance(model, source.shape, source.name)
    kinds = {type(module) for module in model.model.modules()}
    assert nn.Linear not in kinds
    assert {OrderedLinear, RotaryTable} <= kinds


@pytest.mark.parametrize("kind", PROMISED)
def test_other_architectures(kind: str, tmp_path: Path) -> None:
    _, source = small(kind, tmp_path)
    torch.manual_seed(0)
    own = AutoModelForCausalLM.from_config(source.config).eval()
    tokens = torch.arange(3, 40)[None]
    expected = own(input_ids=tokens).logits
    model = TreeModel(own, batch_invariant=True)
    check_invariance(model, source.shape, source.name)
    model.model.set_attn_implementation("eager")
    found = model.model(input_ids=tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_look_at_other_rows_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    _, source = small(kind, tmp_path)
    model = TreeModel(AutoModelForCausalLM.from_config(source.config), batch_invariant=True)
    with pytest.raises(ModelError, match=f"^batch_invariant: {kind}: .*{REFUSED[kind]}") as refusal:
        check_invariance(model, source.shape, kind)
    assert refusal.value.exit_code == 2


class OfItsBatch(nn.Module):
    """A norm whose last bits depend on where a row stands, by what no audit can see."""

    def __init__(self, own: nn.Module, tell: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.own, self.tell = own, tell

    def forward(self, x: Tensor) -> Tensor:
        return self.tell(self.own(x))


@pytest.mark.parametrize(
    ("tell", "how"),
    [
        (lambda x: x * (1.0 + 2e-7 * (x.shape[1] == 9)), "in a batch of 9 rows"),
        (lambda x: x * (1.0 + 2e-7 * (x.shape[1] == 3)), "by prefill, not by decode"),
        (lambda x: x * (1.0 + 2e-7 * (x.shape[1] > 20)), "among other prompts"),
        (lambda x: x * (1.0 + 2e-7 * (torch.get_num_threads() == 3)), "by 3 threads"),
    ],
)
def test_what_depends_on_its_batch_is_found(
    random_model: Path, tell: Callable[[Tensor], Tensor], how: str
) -> None:
    model, source = ready(random_model)
    layer = model.model.model.layers[1]
    layer.post_attention_layernorm = OfItsBatch(layer.post_attention_layernorm, tell)
    name = r"model.layers.1.post_attention_layernorm \(OfItsBatch\)"
    with pytest.raises(ModelError, match=f"{name} gives other bits {how}"):
        check_invariance(model, source.shape, "m")


def test_a_function_of_a_library_is_found_in_the_module_that_calls_it(random_model: Path) -> None:
    model, source = ready(random_model)
    layer = model.model.model.layers[0]
    layer.input_layernorm = OfItsBatch(layer.input_layernorm, functional.silu)
    with pytest.raises(ModelError, match=r"input_layernorm \(OfItsBatch\) computes torch's silu"):
        check_invariance(model, source.shape, "m")


def test_weights_that_the_head_shares_are_held_once() -> None:
    model, _ = ready("tiny")
    embedding, head = model.model.model.embed_tokens, model.model.lm_head
    assert isinstance(embedding, PanelEmbedding)
    assert embedding.weight is head.weight


def test_angles_are_the_same_in_any_order_of_asking(random_model: Path) -> None:
    first, second = (ready(random_model)[0].model.model.rotary_emb for _ in range(2))
    x = torch.zeros(1, 1, 8)
    all_at_once = first(x, torch.arange(500)[None])
    for positions in ([3], [499, 0, 77], [130, 129]):
        found = second(x, torch.tensor([positions]))
        for ours, theirs in zip(found, all_at_once, strict=True):
            assert torch.equal(ours, theirs[:, positions])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"weights": "fp8"}, "not with linear layers in fewer bits"),
        ({"kv_dtype": "fp8"}, "its attention: reads numbers of 32 and 16 bits"),
        ({"compiled": True}, "not with compiled layers"),
        ({"attention": "torch"}, "attention torch sums in an order that its batch decides"),
    ],
)
def test_what_has_no_order_of_its_own_is_refused(
    random_model: Path, options: dict[str, str], why: str
) -> None:
    with pytest.raises(InputError, match=f"^batch_invariant: {why}"):
        Sampler.from_pretrained(
            str(random_model), **{"device": "cpu", **options}, batch_invariant=True
        )


def test_sums_of_more_than_two_ranks_have_an_order(tmp_path: Path) -> None:
    shrunken("llama", num_key_value_heads=4).save_pretrained(tmp_path)
    find_model(str(tmp_path), device="cpu", tensor_parallel=2, batch_invariant=True)
    with pytest.raises(InputError, match="batch_invariant: not with a model that more than two"):
        find_model(str(tmp_path), device="cpu", tensor_parallel=4, batch_invariant=True)


def test_without_a_compiler_it_is_refused(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered_layers, "build", lambda: "no C compiler")
    monkeypatch.setattr(
        "hydragen_kernels.ordered_attention.why_unavailable", lambda: "no C compiler"
    )
    with pytest.raises(InputError, match="batch_invariant: its attention: no C compiler"):
        Sampler.from_pretrained(str(random_model), device="cpu", batch_invariant=True)


def test_other_devices_are_refused(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydragen_tree.model.loading.find_device", torch.device)
    with pytest.raises(InputError, match=r"^batch_invariant: not with meta"):
        find_model(str(random_model), device="meta", batch_invariant=True)


def test_longrope_is_held_to_one_set_of_frequencies(tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
    }
    config = shrunken("phi3", rope_parameters=rope, max_position_embeddings=256)
    config.original_max_position_embeddings = 64
    config.save_pretrained(tmp_path)
    source = find_model(str(tmp_path), device="cpu", batch_invariant=True)
    source.check_length(64, "a")
    with pytest.raises(InputError, match=r"^batch_invariant: a: 65 tokens .* \(longrope\)"):
        source.check_length(65, "a")
    find_model(str(tmp_path), device="cpu").check_length(65, "a")
