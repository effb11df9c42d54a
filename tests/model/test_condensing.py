"""Prompts beyond the context: what is left of them, what it is made of, and who is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.plan import Plan
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.chunk_sizes import ChunkSizes
from hydragen_tree.model.condensing import Condenser
from hydragen_tree.model.loading import ModelSource, find_model, load_weights
from hydragen_tree.model.step import Memory

SIZES = ChunkSizes(chunk=40, prefix=3, suffix=5)


def build(folder: Path, kind: str = "llama", **changes: object) -> ModelSource:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    rest = {"vocab_size": 99, "max_position_embeddings": 80, "bos_token_id": None}
    config = AutoConfig.for_model(
        kind, **{**sizes, **heads, **rest, "eos_token_id": None, "pad_token_id": 0, **changes}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return find_model(str(folder), device="cpu", long_prompt="homer")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(source: ModelSource) -> TreeModel:
    return TreeModel(load_weights(source))


def tokens(count: int, seed: int = 0) -> Int32:
    return np.random.default_rng(seed).integers(1, 99, count).astype(np.int32)


def plain(model: TreeModel, source: ModelSource, ids: Int32) -> tuple[KVCache, torch.Tensor]:
    """All of it, as any prompt is computed."""
    n = len(ids)
    cache = KVCache(source.shape, -(-n // 16), 16, torch.float32, torch.device("cpu"))
    plan = Plan(n, item_table([Item(0, n, 0, n, causal=1, level=0)]))
    at = torch.arange(n)
    memories = [Memory(at, model.attend(plan))]
    return cache, model.forward(torch.from_numpy(ids.astype(np.int64)), at, memories, None, cache)[
        -1
    ]


def test_one_chunk_is_the_prompt_itself(model: TreeModel, source: ModelSource) -> None:
    ids = tokens(SIZES.chunk)
    found = Condenser(model, source.shape, SIZES).condense(ids)
    cache, logits = plain(model, source, ids)
    assert found.kept.tolist() == list(range(SIZES.chunk))
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.keys, cache.keys[:, :, : SIZES.chunk], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [41, 72, 73, 100, 137, 200, 300])
def test_what_is_left_is_a_chunk(model: TreeModel, source: ModelSource, count: int) -> None:
    ids = tokens(count)
    found = Condenser(model, source.shape, SIZES).condense(ids)
    kept = found.kept.tolist()
    assert len(kept) == SIZES.chunk == found.keys.shape[2]
    assert kept == sorted(set(kept))
    assert kept[:3] == [0, 1, 2]
    assert kept[-5:] == list(range(count - 5, count))
    assert bool(found.logits.isfinite().all())
    again = Condenser(model, source.shape, SIZES).condense(ids)
    assert torch.equal(found.keys, again.keys)
    assert torch.equal(found.logits, again.logits)


def test_first_layers_see_a_chunk_and_its_affixes(model: TreeModel, source: ModelSource) -> None:
    """Below the first merge, keys and values are those of each chunk by itself."""
    ids = tokens(3 + 2 * SIZES.middle + 5)
    found = Condenser(model, source.shape, SIZES).condense(ids)
    for number in range(2):
        start = 3 + number * SIZES.middle
        inner = range(start, start + SIZES.middle)
        cache, _ = plain(model, source, np.concatenate([ids[:3], ids[inner], ids[-5:]]))
        at = [i for i, place in enumerate(found.kept.tolist()) if place in inner]
        places = found.kept[at] - start + 3
        assert len(at) == SIZES.middle // 2
        for layer in range(5):  # two thirds of 8 layers
            for ours, theirs in ((found.keys, cache.keys), (found.values, cache.values)):
                torch.testing.assert_close(
                    ours[layer][:, at], theirs[layer][:, places], rtol=1e-4, atol=1e-4
                )


def test_what_the_end_looks_at_stays(model: TreeModel, source: ModelSource) -> None:
    """Tokens that the last one attends to most are kept in the first merge."""
    ids = tokens(3 + 2 * SIZES.middle + 5, seed=4)
    found = Condenser(model, source.shape, SIZES).condense(ids)
    weights: list[torch.Tensor] = []
    exact = AutoModelForCausalLM.from_pretrained(
        source.path, dtype=torch.float32, attn_implementation="eager"
    )
    for number in range(2):
        start = 3 + number * SIZES.middle
        inner = ids[start : start + SIZES.middle]
        row = np.concatenate([ids[:3], inner, ids[-5:]]).astype(np.int64)
        out = exact(torch.from_numpy(row)[None], output_attentions=True)
        weights.append(out.attentions[4][0, :, -1, 3:-5].amax(0))
        best = int(weights[-1].argmax()) + start
        assert best in found.kept.tolist()


def test_memory_grows_with_the_logarithm(model: TreeModel, source: ModelSource) -> None:
    peaks = []
    for chunks in (2, 4, 8, 16, 32):
        condenser = Condenser(model, source.shape, SIZES)
        condenser.condense(tokens(8 + chunks * SIZES.middle))
        peaks.append(condenser.peak_bytes)
    steps = np.diff(peaks)
    whole = SIZES.chunk * source.shape.token_bytes
    assert steps.max() < whole  # less than a chunk for twice the prompt
    assert peaks[-1] < 5 * whole < 32 * whole


def test_models_that_do_more_are_refused(tmp_path: Path) -> None:
    granite = build(tmp_path / "granite", "granite", embedding_multiplier=3.0)
    with pytest.raises(ModelError, match="does more than its layers one by one"):
        Condenser(TreeModel(load_weights(granite)), granite.shape, SIZES)
    with pytest.raises(ModelError, match="all see all earlier tokens"):
        build(tmp_path / "gemma2", "gemma2", head_dim=8)
    with pytest.raises(ModelError, match="nothing is cut below 64"):
        build(tmp_path / "short", max_position_embeddings=63)
    with pytest.raises(InputError, match="not with batch_invariant"):
        find_model("tiny", device="cpu", long_prompt="homer", batch_invariant=True)
    with pytest.raises(InputError, match="expected refuse or homer"):
        find_model("tiny", device="cpu", long_prompt="cut")
