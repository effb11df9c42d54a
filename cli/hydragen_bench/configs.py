"""Architectures to measure on. Weights are random: speed does not depend on what they say."""

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from hydragen_bench.timing import bench_device, bench_dtype
from hydragen_tree.errors import InputError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.expert_layers import experts_chosen
from hydragen_tree.model.latent import tail_latent_dim
from hydragen_tree.model.quantising import (
    COMPARED_TOKENS,
    LogitError,
    measure_logit_error,
    quantise_layers,
)
from hydragen_tree.model.states import with_states
from hydragen_tree.model.support import kv_shape, refuse_unsupported, with_windows
from hydragen_tree.shape import KVShape


def _llama(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=1 << 17,
        bos_token_id=None,
        eos_token_id=None,
    )


class Point(NamedTuple):
    """A batch of `hydragen bench decode`.

    Attributes:
        rows: samples of the prompt.
        prefix: tokens of the prompt.
        new_tokens: of every sample.
    """

    rows: int
    prefix: int
    new_tokens: int = 128


CONFIGS: dict[str, PreTrainedConfig] = {
    "codellama-7b": _llama(4096, 11008, 32, 32, 32, 32016),
    "codellama-13b": _llama(5120, 13824, 40, 40, 40, 32016),
    "llama-3.1-8b": _llama(4096, 14336, 32, 32, 8, 128256),
    "llama-3.1-70b": _llama(8192, 28672, 80, 64, 8, 128256),
    "smollm2-135m": _llama(576, 1536, 30, 9, 3, 49152),
    "llama-3.2-1b": _llama(2048, 8192, 16, 32, 8, 128256),
    "qwen2.5-7b": Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=1 << 17,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "qwen3-coder-30b-a3b": Qwen3MoeConfig(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        max_position_embeddings=1 << 17,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "gpt-oss-20b": GptOssConfig(
        num_hidden_layers=24,
        num_local_experts=32,
        num_experts_per_tok=4,
        layer_types=["sliding_attention", "full_attention"] * 12,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "gemma-3-12b": Gemma3TextConfig(
        hidden_size=3840,
        intermediate_size=15360,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        sliding_window=1024,
        layer_types=[*["sliding_attention"] * 5, "full_attention"] * 8,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "deepseek-v2-lite": DeepseekV2Config(
        vocab_size=102400,
        hidden_size=2048,
        intermediate_size=10944,
        moe_intermediate_size=1408,
        num_hidden_layers=27,
        num_attention_heads=16,
        num_key_value_heads=16,
        q_lora_rank=None,
        kv_lora_rank=512,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        n_group=1,  # of experts: vLLM asks for it
        topk_group=1,
        first_k_dense_replace=1,
        max_position_embeddings=1 << 17,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "qwen3-next-80b": Qwen3NextConfig(
        max_position_embeddings=1 << 17, bos_token_id=None, eos_token_id=None
    ),
}


_POINTS = (
    Point(32, 1024),
    Point(128, 4096),
    Point(512, 4096),
    Point(1024, 1024),
    Point(1024, 16384),
    Point(2048, 16384),
)
_POINTS_UNGROUPED = (  # every head has keys of its own: memory holds fewer tokens
    Point(32, 1024),
    Point(32, 16384),
    Point(256, 16384, 256),
    Point(1024, 1024, 64),
    Point(1024, 16384, 64),
)


_ROUTED_SCALE = 50.0  # of embeddings: 128 rows of Qwen3-Coder reach 126 of 128 experts, 12 without
_OF_LAYERS = ("layer_types", "mlp_layer_types")  # lists with an entry a layer


def config_of(name: str) -> PreTrainedConfig:
    """The configuration of an architecture, `NAME`, or of its first layers, `NAME@LAYERS`.

    Raises:
        InputError: there is no such architecture, or it has fewer layers.
    """
    whole, _, layers = name.partition("@")
    if whole not in CONFIGS:
        raise InputError(
            f"expected one of {', '.join(CONFIGS)}", setting="architecture", value=whole
        )
    config = deepcopy(CONFIGS[whole])
    if not layers:
        return config
    if int(layers) > config.num_hidden_layers:
        raise InputError(f"{whole} has {config.num_hidden_layers}", setting="layers", value=layers)
    config.num_hidden_layers = int(layers)
    for of_layers in _OF_LAYERS:
        if kinds := getattr(config, of_layers, None):
            setattr(config, of_layers, kinds[: int(layers)])
    return config


def points_of(name: str) -> tuple[Point, ...]:
    """The batches an architecture is measured with, unless others are asked for."""
    config = config_of(name)
    ungrouped = config.num_key_value_heads == config.num_attention_heads
    return _POINTS_UNGROUPED if ungrouped else _POINTS


def random_weights(name: str) -> PreTrainedModel:
    """An architecture with the same random weights each time: bf16, on the GPU.

    Raises:
        ModelError: the installed transformers has layers in it that the tree cannot run.
    """
    config = config_of(name)
    refuse_unsupported(name, config, config)
    torch.manual_seed(0)
    with bench_device():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=bench_dtype())
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(embedding_scale(config))
    return model


def embedding_scale(config: PreTrainedConfig) -> float:
    """How many times as large as other random weights embeddings are.

    Where there are experts they are larger than what random layers add, which is much the same for
    all rows behind one prompt: routers would send all rows to the same few experts. By their tokens
    they go to all, as with routers that were trained for it.
    """
    return _ROUTED_SCALE if experts_chosen(config) else 1.0


def quantise_weights(model: PreTrainedModel) -> LogitError:
    """Takes random weights to 8 bits, and says what that does to logits."""
    quantise_layers(model, model.device)
    vocabulary = int(model.config.vocab_size)
    tokens = torch.randint(vocabulary, (COMPARED_TOKENS,), generator=torch.Generator())
    return measure_logit_error(model, tokens.tolist())


def random_model(
    name: str,
    weights: PreTrainedModel | None = None,
    *,
    has_latent_tails: bool = False,
    batch_invariant: bool = False,
) -> tuple[TreeModel, KVShape]:
    """Random weights behind our attention, or these, and the sizes of their cache.

    Args:
        name: of the architecture.
        weights: its weights; None: random ones.
        has_latent_tails: tails hold latent vectors, if there are any.
        batch_invariant: as of `TreeModel`.
    """
    weights = random_weights(name) if weights is None else weights
    config = config_of(name)
    width = tail_latent_dim(config) if has_latent_tails else 0
    model = TreeModel(weights, has_latent_tails=width > 0, batch_invariant=batch_invariant)
    shape = replace(kv_shape(name, config, bench_dtype()), latent_dim=width)
    shape = with_states(shape, model.state_kinds)
    return model, shape if batch_invariant else with_windows(shape, config)
