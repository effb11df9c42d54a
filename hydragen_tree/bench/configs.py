"""Architectures to measure on. Weights are random: speed does not depend on what they say."""

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from hydragen_tree.bench.timing import bench_device, bench_dtype
from hydragen_tree.fold import KVShape
from hydragen_tree.model import TreeModel


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


CONFIGS: dict[str, PreTrainedConfig] = {
    "codellama-7b": _llama(4096, 11008, 32, 32, 32, 32016),
    "codellama-13b": _llama(5120, 13824, 40, 40, 40, 32016),
    "llama-3.1-8b": _llama(4096, 14336, 32, 32, 8, 128256),
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
}


def random_weights(name: str) -> PreTrainedModel:
    """A named architecture with the same random weights each time: bf16, on the GPU."""
    torch.manual_seed(0)
    with bench_device():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            CONFIGS[name], dtype=bench_dtype()
        )
    return model


def random_model(name: str, compiled: bool) -> tuple[TreeModel, KVShape]:
    """Random weights behind our attention, and the sizes of their cache."""
    config = CONFIGS[name]
    model = TreeModel(random_weights(name))
    if compiled:
        model.compile()
    heads = config.num_attention_heads
    shape = KVShape(
        config.num_hidden_layers,
        heads,
        config.num_key_value_heads,
        config.hidden_size // heads,
        itemsize=bench_dtype().itemsize,
    )
    return model, shape
