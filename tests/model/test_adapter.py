"""Small random models of many architectures: every leaf and 16 decode steps equal dense logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model import projections
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights
from hydragen_tree.model.projections import (
    fuse_projections,
    has_packed_products,
    pack_projections,
    padding,
)
from hydragen_tree.trie.trie import Trie

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, tuple[str, dict]] = {
    "llama": ("llama", {}),
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-mha": ("llama", {"num_key_value_heads": 4}),
    "llama-mqa": ("llama", {"num_key_value_heads": 1}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0}),
    "phi3": ("phi3", {}),
    "starcoder2": ("starcoder2", {}),
    "gpt-oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 128,
            "rope_parameters": YARN_ROPE,
        },
    ),
}
# products a layer when projections are fused, as on a GPU; the other models run as they are
FUSED = {"llama-mha": 2, "qwen2": 2, "gemma2": 2, "gpt-oss": 1}


def build(directory: Path, kind: str, **changes: object) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **changes})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # default initialisation is too flat to notice mistakes
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(directory)
    return directory


def test_layers_and_what_stands_beside_them_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only noted down here; the tests of a GPU compile."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = load_weights(find_model(str(build(tmp_path, "llama"))))
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(self))
    TreeModel(model).compile()
    names = [name for name, module in model.named_modules() if module in compiled]
    layers = [f"model.layers.{index}" for index in range(3)]
    assert names == [*layers, "model.norm", "model.rotary_emb"]


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_dense_transformers(name: str, tmp_path: Path) -> None:
    kind, changes = MODELS[name]
    source = find_model(str(build(tmp_path, kind, **changes)))
    rng = np.random.default_rng(1)
    root = rng.integers(3, 97, 23)
    prompts = [
        np.concatenate([root, rng.integers(3, 97, 7), rng.integers(3, 97, 5)]),
        root,
        np.concatenate([root, rng.integers(3, 97, 19)]),
        rng.integers(3, 97, 11),
    ]
    trie = Trie.build(prompts)
    cache = KVCache(source.shape, 40, 8, source.dtype, source.device)
    model = load_weights(source)
    if name in FUSED:
        assert fuse_projections(model) == FUSED[name] * source.shape.layers
    adapted, tree = TreeModel(model), Residency(trie, cache)
    segments = [segment.index for segment in trie]
    assert tree.place(segments)
    leaf_logits = Prefill(adapted, trie, tree.table, cache, 16).segments(segments)

    dense = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    rows = np.argsort(trie.prompt_leaves)  # rows in the order of leaves
    texts = [prompts[row].tolist() for row in rows]
    hung = trie.leaf_segments[trie.prompt_leaves[rows]]
    ours = torch.stack([leaf_logits[segment] for segment in hung.tolist()])
    pages = cache.take(4 * 2).reshape(4, 2)
    tails = np.zeros(4, np.int32)
    for _ in range(17):  # the leaves, then 16 decode steps
        with torch.inference_mode():
            truth = torch.stack([dense(torch.tensor([text])).logits[0, -1] for text in texts])
        torch.testing.assert_close(ours, truth, rtol=2e-5, atol=2e-5 * float(truth.abs().max()))
        tokens = rng.integers(3, 97, 4).astype(np.int32)
        positions = np.array([len(text) for text in texts])
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text.append(token)
        if tails[0] < 16:
            ours = decode_tokens(adapted, cache, tree.table, tokens, positions, hung, pages, tails)
            tails += 1


def test_fused_projections_are_right_in_any_order() -> None:
    torch.manual_seed(0)
    block = torch.nn.Module()
    for name in ("gate_proj", "up_proj"):
        block.add_module(name, torch.nn.Linear(8, 6))
    x, y = torch.randn(2, 3, 8)
    truth = [(block.gate_proj(z), block.up_proj(z)) for z in (x, y)]
    assert fuse_projections(block) == 1
    with torch.inference_mode():
        up, other, gate, again = (
            block.up_proj(x),
            block.up_proj(y),
            block.gate_proj(x),
            block.gate_proj(y),
        )
    torch.testing.assert_close((gate, up), truth[0])
    torch.testing.assert_close((again, other), truth[1])


@pytest.mark.skipif(not has_packed_products(), reason="torch without oneDNN, or another processor")
def test_packed_projections_are_the_same_products() -> None:
    torch.manual_seed(0)
    block = torch.nn.Module()
    for name, bias in (("up_proj", False), ("down_proj", True), ("head", False)):
        block.add_module(name, torch.nn.Linear(24, 40, bias=bias))
    block.add_module("narrow", torch.nn.Linear(24, 40, dtype=torch.bfloat16))
    block.add_module("embedding", torch.nn.Embedding(40, 24))
    block.head.weight = block.embedding.weight
    x = torch.randn(1, 33, 24)
    with torch.inference_mode():
        truth = (block.up_proj(x), block.down_proj(x))
        assert pack_projections(block) == 2
        torch.testing.assert_close((block.up_proj(x), block.down_proj(x)), truth)
    assert type(block.head) is type(block.narrow) is torch.nn.Linear
    assert sum(parameter.nbytes for parameter in block.parameters()) > 4 * 3 * 24 * 40


@pytest.mark.skipif(not has_packed_products(), reason="torch without oneDNN, or another processor")
def test_a_head_tied_to_embeddings_has_a_packed_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> LlamaForCausalLM:
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40}
        config = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
        config.tie_word_embeddings = True
        return LlamaForCausalLM(config).eval()

    model, x = made(), torch.randn(8, 24)
    embedded = model.get_input_embeddings().weight.clone()
    with torch.inference_mode():
        truth = model.get_output_embeddings()(x)
        assert pack_projections(model) == 8  # seven of the layer
        assert type(model.get_output_embeddings()) is not torch.nn.Linear
        torch.testing.assert_close(model.get_output_embeddings()(x), truth)
    assert torch.equal(model.get_input_embeddings().weight, embedded)
    monkeypatch.setattr(projections, "_MOST_COPIED_BYTES", 4 * 50 * 24 - 1)
    assert pack_projections(large := made()) == 7
    assert type(large.get_output_embeddings()) is torch.nn.Linear


def test_padding_gives_few_numbers_of_rows() -> None:
    padded = {rows + padding(rows) for rows in range(1, 129)}
    assert padded == {1, 8, 16, 24, 32, 64, 96, 128}


def refused(directory: Path, config: dict[str, object]) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        find_model(str(directory))
    return str(error.value)


def test_what_cannot_work_is_refused_without_weights(tmp_path: Path) -> None:
    assert "attention interface" in refused(tmp_path / "a", {"model_type": "bloom"})
    assert "mamba is attention-free" in refused(tmp_path / "b", {"model_type": "mamba"})
    t5 = refused(tmp_path / "c", {"model_type": "t5", "is_encoder_decoder": True})
    assert "t5 is an encoder-decoder, not a causal language model" in t5
    hybrid = {"model_type": "minimax", "num_hidden_layers": 8}
    linear = "a hybrid: 4 of its 8 layers are linear_attention"
    assert linear in refused(tmp_path / "g", hybrid)
    assert "indexed_attention" in refused(tmp_path / "d", {"model_type": "deepseek_v32"})
    wide = {"model_type": "llama", "head_dim": 1024}
    assert "at most 512" in refused(tmp_path / "e", wide)
    with pytest.raises(ModelError, match="no such directory"):
        find_model(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="device cuda:99"):
        find_model(str(build(tmp_path / "f", "llama")), device="cuda:99")
    with pytest.raises(InputError, match="dtype int4"):
        find_model(str(tmp_path / "f"), dtype="int4")
    source = find_model(str(tmp_path / "f"))
    with pytest.raises(ModelError, match=r"tokenizer cannot be loaded: .*sentencepiece"):
        load_tokenizer(source)
    config = tmp_path / "f" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": ', '"hidden_size": "x", "_": '))
    with pytest.raises(ModelError, match=r"config.json: .*'hidden_size' expected int"):
        find_model(str(tmp_path / "f"))


def test_rotary_frequencies_and_contexts_limit_the_length(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    source = find_model(str(build(tmp_path, "llama", rope_parameters=rope)))
    source.check_length(64, "p")
    with pytest.raises(ModelError, match="beyond 64 tokens"):
        source.check_length(65, "p")
    with pytest.raises(InputError, match="holds 256"):
        source.check_length(257, "p")


def test_broken_weights_are_named(tmp_path: Path) -> None:
    build(tmp_path, "llama")
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load_weights(find_model(str(tmp_path)))
