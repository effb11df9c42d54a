"""Checkpoints stored in 8 bits, as two families of tools write them, against float64."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hydragen_kernels.inputs import FP8
from hydragen_tree.errors import ModelError
from hydragen_tree.model import fp8_linear
from hydragen_tree.model.explain import explain
from hydragen_tree.model.fp8_linear import BLOCK, Fp8Linear, quantise
from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.model.quantising import measure_logit_error, quantised_layers
from hydragen_tree.trie.costs import CPU

SIZES = {
    "vocab_size": 97,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
}
TOKENS = torch.arange(40)[None]


def compressed(weights: str, inputs: str, **others: Any) -> dict[str, Any]:
    """What llm-compressor writes into a configuration."""
    kind = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**kind, "strategy": weights, "dynamic": False, **others},
        "input_activations": {**kind, "strategy": inputs, "dynamic": inputs == "token"},
    }
    rest = {"format": "float-quantized", "ignore": ["lm_head"], "quantization_status": "compressed"}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **rest}


def fine_grained(block: list[int] | None, scheme: str = "dynamic", **others: Any) -> dict[str, Any]:
    """What Qwen and DeepSeek write."""
    kind = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": scheme}
    return {**kind, "weight_block_size": block, **others}


CHANNELS = compressed("channel", "token")
FORMATS = {
    "by channel": CHANNELS,
    "as a whole, inputs fixed": compressed("tensor", "tensor"),
    "by blocks": fine_grained([BLOCK, BLOCK]),
    "by blocks, compressed": compressed("block", "token", block_structure=[BLOCK, BLOCK]),
    "as a whole, inputs fixed, fine-grained": fine_grained(None, "static"),
}
BY_BLOCKS = {name for name in FORMATS if "blocks" in name}


def store(weight: Tensor, how: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Numbers of 8 bits and their scales, of the shapes that a tool writes."""
    group = how.get("config_groups", {}).get("group_0", {}).get("weights", {})
    if how.get("weight_block_size") or group.get("strategy") == "block":
        rows, width = weight.shape
        blocks = weight.view(rows // BLOCK, BLOCK, width // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3)) / 448
        numbers = (blocks / scale[:, None, :, None]).clamp(-448, 448).to(FP8).view(rows, width)
        return numbers, scale
    if group.get("strategy") == "channel":
        numbers, scale = quantise(weight, weight.shape[1])
        return numbers, scale.to(torch.bfloat16)  # as llm-compressor has them
    scale = weight.abs().amax() / 448
    shape = (1,) if "config_groups" in how else ()
    return (weight / scale).clamp(-448, 448).to(FP8), scale.reshape(shape)


def spread(scale: Tensor, weight: Tensor) -> Tensor:
    """A scale for each number."""
    if scale.ndim == 2 and scale.shape[1] * BLOCK == weight.shape[1]:
        return scale.double().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return scale.double().reshape(-1, 1).expand_as(weight)


def write(folder: Path, how: dict[str, Any], kind: str = "llama", **sizes: int) -> PreTrainedModel:
    """Writes a checkpoint in 8 bits; returns what it stands for, in float64."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{"intermediate_size": 384, **SIZES, **sizes})
    plain = AutoModelForCausalLM.from_config(config)
    plain.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(file)
    truth = dict(tensors)
    is_fixed = how.get("activation_scheme") == "static" or any(
        group["input_activations"]["strategy"] == "tensor"
        for group in how.get("config_groups", {}).values()
    )
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight, scale = store(tensors[name], how)
        truth[name] = weight.double() * spread(scale, weight)
        tensors[name] = weight
        layer = name.removesuffix(".weight")
        is_fine = how["quant_method"] == "fp8"
        tensors[f"{layer}.{'weight_scale_inv' if is_fine else 'weight_scale'}"] = scale
        if is_fixed:
            fixed = torch.tensor(0.02) if is_fine else torch.tensor([0.02])
            tensors[f"{layer}.{'activation_scale' if is_fine else 'input_scale'}"] = fixed
    save_file({k: x.contiguous() for k, x in tensors.items()}, file, metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "quantization_config": how}))
    save_file(
        {k: x.contiguous() for k, x in truth.items()}, folder / "truth", metadata={"format": "pt"}
    )
    model: PreTrainedModel = type(plain).from_pretrained(
        None, config=config, state_dict=load_file(folder / "truth"), dtype=torch.float64
    )
    (folder / "truth").unlink()
    return model.eval()


def worst_row(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    difference = (found.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1)).max())


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(input_ids=TOKENS).logits[0]
    return found


def rounding(fixed: float | None, group: int | None) -> Callable[..., tuple[Tensor]]:
    """What a layer's input is taken to."""

    def hook(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        rows = inputs[0].flatten(0, -2)
        if fixed is not None:
            seen = (rows.float() / fixed).clamp(-448, 448).to(FP8).double() * fixed
        else:
            seen = quantise(rows, group or rows.shape[1]).widened(torch.float64)
        return (seen.view_as(inputs[0]),)

    return hook


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_runs_as_it_is_stored(name: str, tmp_path: Path) -> None:
    truth = write(tmp_path, FORMATS[name])
    source = find_model(str(tmp_path), device="cpu")
    assert source.is_quantised
    assert source.stored.by_blocks is (name in BY_BLOCKS)
    model = load_weights(source)
    layers = {n: x for n, x in model.named_modules() if isinstance(x, Fp8Linear)}
    assert len(layers) == 2 * 7
    fixed = torch.tensor(0.02) if "fixed" in name else None
    with ExitStack() as hooks:
        for layer_name, layer in layers.items():
            exact = truth.get_submodule(layer_name)
            assert worst_row(layer.weight, exact.weight) < 1e-6
            assert layer.input_scale == fixed
            group = BLOCK if name in BY_BLOCKS else None
            hook = rounding(None if fixed is None else float(fixed), group)
            hooks.enter_context(exact.register_forward_pre_hook(hook))
            x = torch.randn(9, layer.in_features)
            assert worst_row(layer(x), exact(x.double())) < 1e-5
        # a number that is rounded to its other neighbour is a sixteenth off
        assert worst_row(logits(model), logits(truth)) < 0.02
    assert measure_logit_error(model, TOKENS[0].tolist()).relative < 0.1
    assert type(model.lm_head) is nn.Linear


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - BY_BLOCKS))
def test_where_8_bits_are_multiplied_they_stay(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8_linear, "multiplies", lambda _, by_blocks=False: True)
    truth = write(tmp_path, FORMATS[name])
    model = load_weights(find_model(str(tmp_path), device="cpu", dtype="bfloat16"))
    layers = quantised_layers(model)
    assert len(layers) == 14
    assert all(layer.weight.dtype == FP8 for layer in layers)
    layer, exact = model.model.layers[1].mlp.down_proj, truth.model.layers[1].mlp.down_proj
    x = torch.randn(5, layer.in_features).to(torch.bfloat16)
    seen = layer._quantise(x).widened(torch.float64)
    assert worst_row(layer(x), exact(seen)) < 1e-2


def test_experts_and_cut_blocks_are_widened_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
    truth = write(tmp_path, FORMATS["by blocks"], "qwen3_moe", **sizes)
    model = load_weights(find_model(str(tmp_path), device="cpu"))
    assert len(quantised_layers(model)) == 2 * 4  # of attention
    assert (
        "24 layers are widened from 8 bits: model.layers.0.mlp.experts.0.down_proj" in caplog.text
    )
    exact = truth.model.layers[0].mlp.experts.gate_up_proj
    assert worst_row(model.model.layers[0].mlp.experts.gate_up_proj, exact) < 1e-6


def test_a_checkpoint_that_lacks_a_scale_is_named(tmp_path: Path) -> None:
    write(tmp_path, CHANNELS)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight_scale"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight_scale"):
        load_weights(find_model(str(tmp_path), device="cpu"))


def test_what_is_in_8_bits_without_a_layer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, CHANNELS)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.experts.gate_up_proj"] = torch.ones(2, 3, 4).to(FP8)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no layer's weights.*: model\.layers\.0\.mlp\.experts"):
        load_weights(find_model(str(tmp_path), device="cpu"))


def test_a_checkpoint_of_other_sizes_is_named(tmp_path: Path) -> None:
    write(tmp_path, CHANNELS)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 400}))
    with pytest.raises(ModelError, match=r"do not fit config\.json"):
        load_weights(find_model(str(tmp_path), device="cpu"))


INTEGERS = compressed("channel", "token", type="int", num_bits=4)
WEIGHTS_ONLY = compressed("channel", "token")
WEIGHTS_ONLY["config_groups"]["group_0"]["input_activations"] = None


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (INTEGERS, "weights in int4"),
        (WEIGHTS_ONLY, "inputs in the model's dtype"),
        (compressed("group", "token"), "weights scaled by group"),
        (compressed("block", "token", block_structure=[64, 64]), r"weights scaled by .*\[64, 64\]"),
        (compressed("channel", "token", symmetric=False), "weights that have a zero point"),
        (CHANNELS | {"transform_config": {"config_groups": {"R1": {}}}}, "transform_config"),
        (CHANNELS | {"config_groups": {"group_0": "broken"}}, "weights in the model's dtype"),
        ({"quant_method": "compressed-tensors"}, "no groups of layers"),
        (fine_grained([32, 32]), r"weights scaled by blocks of \[32, 32\]"),
        (fine_grained([128, 128], scale_fmt="ue8m0"), "scales of the format ue8m0"),
    ],
)
def test_other_kinds_are_left_to_libraries_that_are_named(
    how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    method = how["quant_method"]
    library = "accelerate" if method == "fp8" else "compressed-tensors"
    if find_spec(library.replace("-", "_")) is not None:
        pytest.skip(f"{library} is here")
    AutoConfig.for_model("llama", **SIZES).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, "quantization_config": how}))
    with pytest.raises(ModelError, match=f"{method} with {message}, .*pip install {library}"):
        find_model(str(tmp_path), device="cpu")


def test_a_plan_says_what_becomes_of_them(tmp_path: Path) -> None:
    write(tmp_path, FORMATS["by blocks"])
    facts = dict(explain(find_model(str(tmp_path), device="cpu"), "auto", CPU))
    assert "linear layers in float8_e4m3fn" in facts["device"]
    assert "multiplies no 8 bits scaled by blocks, so they are widened" in facts["weights"]
