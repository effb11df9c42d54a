"""Tiny configurations of any architecture that transformers knows.

The default configuration is shrunk, of all its parts, by the names that sizes have. Lists with an
entry a layer keep one layer of every kind, so that a model stays as mixed as it is.
"""

from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY = 97
_SIZES = {
    8: "rotary_dim v_head_dim mamba_n_heads mamba_num_heads linear_num_value_heads",
    24: "sliding_window local_attention keep_window_size attention_chunk_size",
    64: "hidden_size n_embd d_model word_embed_proj_dim embedding_size mamba_d_ssm",
    96: "intermediate_size ffn_dim ffn_hidden_size dff n_inner moe_intermediate_size "
    "dense_intermediate_size shared_expert_intermediate_size shared_intermediate_size "
    "intermediate_size_mlp",
    4: "num_attention_heads n_head n_heads num_experts num_local_experts n_routed_experts "
    "moe_num_experts linear_num_key_heads linear_num_heads",
    1: "n_group num_expert_group topk_group first_k_dense_replace n_groups",
    2: "num_key_value_heads num_experts_per_tok num_experts_per_token moe_k moe_topk",
    16: "head_dim qk_rope_head_dim qk_nope_head_dim kv_channels mamba_d_head mamba_head_dim "
    "query_pre_attn_scalar linear_key_head_dim linear_value_head_dim linear_head_dim "
    "mamba_d_state ssm_state_size",
    32: "qk_head_dim",
    256: "max_position_embeddings n_positions n_ctx max_seq_len",
    VOCABULARY: "vocab_size vocab_size_per_layer_input audio_vocab_size",
}
_BY_NAME = {name: size for size, names in _SIZES.items() for name in names.split()}
# Sizes without which a model cannot be built, whatever its default configuration says.
_NEEDED = {"head_dim", "num_key_value_heads", "n_routed_experts", "num_experts_per_tok"}
# What `to_dict` gives and some parts of configurations do not take.
_NOT_TAKEN_BACK = {"_name_or_path", "output_attentions"}
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

_MUSIC = {"text_encoder": {"model_type": "t5"}, "audio_encoder": {"model_type": "encodec"}}
# What default configurations lack: without it, transformers itself refuses them or cannot build.
_LACKING: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 2, 2],
            }
        }
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "dots1": {"n_shared_experts": 1},
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
    "musicgen": {**_MUSIC, "decoder": {"model_type": "musicgen_decoder"}},
    "musicgen_melody": {**_MUSIC, "decoder": {"model_type": "musicgen_melody_decoder"}},
    "lfm2_moe": {"layer_types": ["full_attention"] * 32},
}
# Layers that share the keys and values of earlier ones need one of their kind before them.
_SHARING = {
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    }
}


def default(kind: str) -> PreTrainedConfig:
    """The configuration that a model type has when nothing is stated, or as little as it needs."""
    return CONFIG_MAPPING[kind](**deepcopy(_LACKING.get(kind, {})))


def shrunken(kind: str, **changes: object) -> PreTrainedConfig:
    """The default configuration of a model type with small sizes, and what else is to change."""
    whole = default(kind)
    return type(whole).from_dict(_shrink(whole.to_dict()) | _SHARING.get(kind, {}) | changes)


def _layers(
    config: dict[str, Any], small: dict[str, Any], kept: list[int]
) -> dict[str, dict[str, int]]:
    """What layers have of their own, as much smaller as the rest."""
    own = {int(layer): sizes for layer, sizes in config["per_layer_config"].items()}
    return {
        str(place): {
            name: size * small[name] // config[name] for name, size in own.get(layer, {}).items()
        }
        for place, layer in enumerate(kept)
    }


def _shrink(config: dict[str, Any]) -> dict[str, Any]:
    small = {name: value for name, value in config.items() if name not in _NOT_TAKEN_BACK}
    for name, value in small.items():
        if isinstance(value, dict) and name != "id2label":
            small[name] = _shrink(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name in _BY_NAME:
            small[name] = min(value, _BY_NAME[name])
        elif value is None and name in _NEEDED:
            small[name] = _BY_NAME[name]
        elif isinstance(value, int) and name.endswith("_token_id"):
            small[name] = 0
    if "num_key_value_heads" in small and small.get("kv_lora_rank"):  # all heads have their own
        small["num_key_value_heads"] = small["num_attention_heads"]
    for name in _DEPTHS:
        if isinstance(depth := config.get(name), int):
            a_layer = [k for k, v in config.items() if isinstance(v, list) and len(v) == depth]
            kept = {0, 1}
            for key in a_layer:
                values = [str(value) for value in config[key]]
                kept |= {values.index(value) for value in values}
            small |= {key: [config[key][layer] for layer in sorted(kept)] for key in a_layer}
            if config.get("per_layer_config"):
                small["per_layer_config"] = _layers(config, small, sorted(kept))
            small[name] = len(kept)
    return small
