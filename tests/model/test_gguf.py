"""Models in GGUF files: loaded through transformers, or refused with the remedy."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from hydragen_tree.errors import ModelError
from hydragen_tree.model.fingerprint import fingerprint
from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights
from hydragen_tree.model.tiny import MODEL_DIR

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "model.layers": "blk",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
}


def named(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys as llama.cpp turns them: pairs beside each other."""
    return weight.unflatten(0, (heads, 2, -1)).swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, config: LlamaConfig, tensors: dict[str, Tensor]) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    model = json.loads((MODEL_DIR / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].__getitem__))
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))  # the first one is special
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(config.eos_token_id)
    for name, tensor in tensors.items():
        if "q_proj" in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        if "k_proj" in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        writer.add_tensor(named(name), np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    made_of = find_model("tiny", device="cpu")
    tensors = {
        name: tensor
        for name, tensor in load_weights(made_of).state_dict().items()
        if name != "lm_head.weight"  # tied
    }
    file = tmp_path / "tiny.f32.gguf"
    write(file, made_of.config, tensors)
    source = find_model(str(file), device="cpu")
    assert source.shape == made_of.shape
    assert source.eos_ids == made_of.eos_ids
    assert source.context_tokens == made_of.context_tokens
    state = load_weights(source).state_dict()
    for name, tensor in tensors.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
    text = "def f(x):\n    return [x, 1]\n"
    ids = load_tokenizer(made_of)(text)["input_ids"]
    assert load_tokenizer(source)(text)["input_ids"] == ids
    before = fingerprint(source)["sha256"]
    shutil.copy(file, tmp_path / "other.gguf")  # of another model in the same folder
    assert fingerprint(source)["sha256"] == before
    with file.open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\0\0\1\0")
    assert fingerprint(source)["sha256"] != before


def test_without_its_packages_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "hydragen_tree.model.locating.find_spec",
        lambda name: None if name in ("gguf", "accelerate") else find(name),
    )
    with pytest.raises(
        ModelError, match=r"gguf and accelerate; pip install 'hydragen-tree\[gguf]'"
    ):
        find_model(str(file))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\1" * 40, b"no such file" * 9]
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.gguf: its GGUF file cannot be read"):
        find_model(str(file))
