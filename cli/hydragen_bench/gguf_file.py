"""Models as GGUF files, which is what llama.cpp reads."""

import importlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from hydragen_tree.errors import InputError
from hydragen_tree.model.loading import ModelSource, load_tokenizer, load_weights

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_NORMAL, _CONTROL = 1, 3  # kinds of tokens


def gguf_of(source: ModelSource, folder: Path, kind: str) -> Path:
    """The GGUF file of a model: its own if it is one, else one that is written.

    Args:
        source: the model.
        folder: for a file that is written.
        kind: of its matrices: `BF16`, `F32` or `Q8_0`.

    Raises:
        InputError: the package gguf is not there, or the model is no plain Llama.
    """
    if source.gguf is not None:
        return Path(source.path) / source.gguf
    try:
        gguf = importlib.import_module("gguf")
    except ImportError:
        raise InputError(
            "llama.cpp reads GGUF files, which the package gguf writes; pip install gguf",
            setting="against",
            value="llama.cpp",
        ) from None
    if source.config.model_type != "llama":
        raise InputError(
            f"llama.cpp reads GGUF files; ones of the architecture {source.config.model_type} are "
            "not written here, so name a --model that is one",
            setting="model",
            value=source.name,
        )
    if why := _not_written(source):
        raise InputError(
            f"a GGUF file of it is not written here, as it has {why}; name a --model that is one",
            setting="model",
            value=source.name,
        )
    path = folder / f"{kind}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    _add_configuration(writer, source)
    _add_tokens(writer, source)
    _add_tensors(gguf, writer, load_weights(source), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _not_written(source: ModelSource) -> str | None:
    """What of a Llama llama.cpp would not find in the file, and compute another model without."""
    config, form = source.config, source.config.rope_parameters["rope_type"]
    if form != "default":
        return f"rotary positions of the form {form}"
    if config.attention_bias or config.mlp_bias:
        return "biases"
    if source.shape.head_dim * config.num_attention_heads != config.hidden_size:
        return "heads that together are wider than a layer, or narrower"
    return None


def _add_configuration(writer: Any, source: ModelSource) -> None:
    config = source.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(source.shape.head_dim)
    writer.add_vocab_size(config.vocab_size)


def _add_tokens(writer: Any, source: ModelSource) -> None:
    tokenizer = load_tokenizer(source)
    size = source.config.vocab_size
    known = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    special = set(tokenizer.all_special_ids)
    tokens = [name or f"[{i}]" for i, name in enumerate(known)]
    tokens += [f"[{i}]" for i in range(len(tokens), size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if i in special else _NORMAL for i in range(size)])
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
    pairs = [" ".join(pair) for pair in rules]
    writer.add_token_merges(pairs or [" ".join(tokens[:2])])  # llama.cpp wants one at least
    if source.eos_ids:
        writer.add_eos_token_id(min(source.eos_ids))


def _add_tensors(gguf: Any, writer: Any, model: PreTrainedModel, kind: str) -> None:
    heads = model.config.num_attention_heads, model.config.num_key_value_heads
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        values = tensor.float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _interleaved(values, heads["k_proj" in name])
        stored = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        packed = gguf.quants.quantize(values.numpy(), stored)
        writer.add_tensor(_name(name), packed, raw_dtype=stored)


def _name(name: str) -> str:
    """As llama.cpp calls a tensor."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    part, ending = rest.rsplit(".", 1)
    return f"blk.{layer}.{_NAMES[part]}.{ending}"


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows as llama.cpp rotates them: neighbours, not the two halves of a head."""
    halves = weight.unflatten(0, (heads, 2, -1))
    neighbours: Tensor = halves.transpose(1, 2).reshape(weight.shape)
    return neighbours
