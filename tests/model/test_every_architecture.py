"""Every causal architecture that transformers knows: equal to dense, or refused by name.

What is refused is refused from the configuration alone; what is not has to give the logits of the
same model with its own attention, over a small ragged tree and a few decode steps.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.errors import ModelError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource, find_model
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.trie import Trie
from tests.model.shrunken import VOCABULARY, default, shrunken

STEPS = 3
# Models with parts that other packages build.
NEEDS = {"gemma3n": "timm"}
# So that nothing of what people use is refused by mistake.
USED = {
    *("cohere2", "exaone4", "gemma", "gemma2", "gemma3", "gemma3_text", "glm4", "glm4_moe"),
    *("gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "granite", "llama", "ministral3", "mistral"),
    *("mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("seed_oss", "smollm3", "starcoder2"),
}


def found(config: PreTrainedConfig, folder: Path) -> ModelSource | None:
    """What is known of a model before its weights; None if its kind was refused."""
    config.save_pretrained(folder)
    try:
        return find_model(str(folder), device="cpu")
    except ModelError as error:
        if "choose another model" not in str(error):
            raise
        return None


def build(config: PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # default values are too flat to notice mistakes
            parameter += torch.randn_like(parameter) * (0.15 if parameter.ndim > 1 else 0.05)
    return model


@pytest.mark.filterwarnings("ignore")  # transformers' own, about configurations it makes itself
@pytest.mark.parametrize("kind", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_equal_to_dense_or_refused(kind: str, tmp_path: Path) -> None:
    config = default(kind)
    source = found(config, tmp_path)
    if source is not None:
        config = shrunken(kind)
        source = found(config, tmp_path)
    if source is None:
        assert kind not in USED
        return
    if kind in NEEDS and find_spec(NEEDS[kind]) is None:
        pytest.skip(f"needs {NEEDS[kind]}")
    check_equal(config, source)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["granitemoehybrid", "llama4_text", "minimax"])
def test_a_kind_that_can_be_mixed_is_taken_where_all_layers_are_attention(
    kind: str, tmp_path: Path
) -> None:
    """As Granite 4 micro is: what counts is the layers that are there."""
    config = shrunken(kind, layer_types=["full_attention"] * 2, num_hidden_layers=2)
    source = found(config, tmp_path)
    assert source is not None
    check_equal(config, source)


def check_equal(config: PreTrainedConfig, source: ModelSource) -> None:
    """Holds the logits of a random model over a tree equal to those of its own attention."""
    model = build(config)
    rng = np.random.default_rng(1)
    root = rng.integers(3, VOCABULARY, 9)
    own = (5, 0, 7, 5 if source.window_tokens else 30)  # no longer than a window allows
    prompts = [np.append(root, rng.integers(3, VOCABULARY, size)) for size in own]
    prompts.append(rng.integers(3, VOCABULARY, 6))
    trie = Trie.build(prompts)
    rows = np.argsort(trie.prompt_leaves)  # in the order of leaves
    lengths = np.array([len(prompts[row]) for row in rows])
    drawn = rng.integers(3, VOCABULARY, (STEPS, len(rows))).astype(np.int32)

    truth = []
    for column, row in enumerate(rows):
        text = torch.from_numpy(np.append(prompts[row], drawn[:, column]))[None]
        with torch.inference_mode():
            truth.append(model(input_ids=text, use_cache=False).logits[0, -STEPS - 1 :])
    dense = torch.stack(truth, dim=1)  # [steps + 1, rows, vocabulary]
    assert dense.isfinite().all()
    assert dense.std() > 0

    cache = KVCache(source.shape, 64, 4, source.dtype, source.device)
    adapted, tree = TreeModel(model), Residency(trie, cache)
    segments = [segment.index for segment in trie]
    assert tree.place(segments)
    leaves = Prefill(adapted, trie, tree.table, cache, 16).segments(segments)
    hung = trie.leaf_segments[trie.prompt_leaves[rows]]
    ours = [torch.stack([leaves[segment] for segment in hung.tolist()])]
    pages = cache.take(len(rows)).reshape(-1, 1)
    for step, tokens in enumerate(drawn):
        tails = np.full(len(rows), step, np.int32)
        at = lengths + step
        ours.append(decode_tokens(adapted, cache, tree.table, tokens, at, hung, pages, tails))
    torch.testing.assert_close(
        torch.stack(ours), dense, rtol=0, atol=2e-5 * float(dense.abs().max())
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("bert", "later tokens"),
        ("diffllama", "layer 0 twice"),
        ("doge", r"a mask \(1, 4, 8, 8\) of its own"),
        ("jetmoe", r"keys of layer 0: \(1, 4, 8, 16\) for \(1, 2, 8, 16\)"),
        ("mimo_v2_flash", r"values of layer 0: \(1, 2, 8, 8\)"),
        ("mistral", "a sliding window of 16 tokens"),
        ("nemotron", "no arguments"),
    ],
)
def test_attention_that_a_tree_does_not_give_is_refused(kind: str, why: str) -> None:
    """Also of a model whose configuration does not tell: here nobody asked `find_model`."""
    model = build(shrunken(kind))
    adapted = TreeModel(model)
    model.config.sliding_window = 16  # shorter than what was looked at
    heads = getattr(model.config, "num_key_value_heads", 4)
    cache = KVCache(KVShape(2, 4, heads, 16, 4), 2, 4, torch.float32, torch.device("cpu"))
    tokens = torch.arange(8)
    with pytest.raises(ModelError, match=why):
        adapted.forward(tokens, tokens, tokens, None, cache, attend)


def attend(*_: Any, **__: Any) -> torch.Tensor:
    """What attention gives does not matter where it must be refused."""
    return torch.zeros(8, 4, 16)
