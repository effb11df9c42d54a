"""Every causal architecture that transformers knows: equal to dense, or refused by name.

What is refused is refused from the configuration alone; what is not has to give the logits of the
same model with its own attention, over a ragged tree, forks and decode steps, beyond every window.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

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
from hydragen_tree.model.architectures import architecture
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource, find_model
from hydragen_tree.model.states import StatePlaces, States
from hydragen_tree.model.step import Memory
from hydragen_tree.model.support import keeps_states, layer_windows
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.trie import Trie
from tests.model.shrunken import VOCABULARY, default, shrunken

STEPS = 16  # of decoding; rows fork after half of them
FORK = STEPS // 2
PAGE = 4
# Models with parts that other packages build.
NEEDS = {"gemma3n": "timm"}
# So that nothing of what people use is refused by mistake.
USED = {
    *("cohere2", "deepseek_v2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3"),
    *("gemma3_text", "gemma4", "gemma4_text", "glm4", "glm4_moe", "glm4_moe_lite"),
    *("gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "granite", "llama", "ministral3", "mistral"),
    *("mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("falcon_h1", "lfm2", "nemotron_h", "qwen3_5", "qwen3_5_moe", "qwen3_next"),
    *("seed_oss", "smollm3", "starcoder2"),
}


# Of these, those with layers that see the last tokens only.
WINDOWED = {
    *("cohere2", "exaone4", "gemma2", "gemma3", "gemma3_text", "gemma4", "gpt_oss", "llama4_text"),
    *("mistral", "olmo3"),
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
    told = architecture(kind)  # what `hydragen models` says of it
    if source is None:
        assert told.why_not
    elif told.why_not != f"{kind} has no default configuration to go by":
        assert told.why_not is None
        assert set(told.windows) == set(filter(None, layer_windows(source.config)))
    if source is not None:
        config = shrunken(kind)
        source = found(config, tmp_path)
    if source is None:
        assert kind not in USED
        return
    assert any(layer_windows(source.config)) or kind not in WINDOWED
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bamba", "granitemoehybrid", "lfm2", "lfm2_moe"])
def test_a_kind_without_attention_by_default_keeps_states_and_keys(
    kind: str, tmp_path: Path
) -> None:
    other = "conv" if kind.startswith("lfm2") else "linear_attention"
    changes: dict[str, object] = {"layer_types": [other, "full_attention", other]}
    if kind == "bamba":
        changes = {"attn_layer_indices": [1]}
    config = shrunken(kind, num_hidden_layers=3, **changes)
    source = found(config, tmp_path)
    assert source is not None
    assert keeps_states(source.config)
    assert source.shape.layers == 1
    check_equal(config, source)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_does_not_go_on_from_its_state_is_refused() -> None:
    model = build(shrunken("jamba", attn_layer_period=2, attn_layer_offset=1))
    with pytest.raises(ModelError, match="JambaMambaMixer does not go on from the state"):
        TreeModel(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["mixtral", "phi3", "qwen2", "starcoder2"])
def test_a_kind_that_can_have_a_window_keeps_to_it(kind: str, tmp_path: Path) -> None:
    config = shrunken(kind, sliding_window=24, use_sliding_window=True, layer_types=None)
    config.layer_types = ["full_attention", "sliding_attention"] if kind == "qwen2" else None
    source = found(config, tmp_path)
    assert source is not None
    assert any(layer_windows(source.config))
    check_equal(config, source)


@pytest.mark.filterwarnings("ignore")
def test_layers_may_differ_in_their_heads_and_share_keys(tmp_path: Path) -> None:
    """As Gemma 4's: wider heads, and fewer of them, in some layers; others make no keys."""
    wide = {"head_dim": 32, "num_key_value_heads": 1}
    config = shrunken(
        "gemma4_text",
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        per_layer_config={"1": wide, "3": wide},
        attention_k_eq_v=True,
    )
    source = found(config, tmp_path)
    assert source is not None
    windows = source.shape.windowed, source.shape.window_tokens  # as the device has them
    assert source.shape == KVShape(4, 4, 2, 32, 4, windowed=windows[0], window_tokens=windows[1])
    assert windows[0] <= {0, 2}
    check_equal(config, source)


class Prompts(NamedTuple):
    """Ragged prompts with a common beginning, and what is drawn behind them.

    Attributes:
        tokens: of each prompt, in the order of rows.
        trie: of the prompts.
        hung: `[rows]` the segment that ends each.
        drawn: `[rows, 2, STEPS]`, of each row the tokens of two samples, which part after half of
            the steps.
    """

    tokens: list[np.ndarray]
    trie: Trie
    hung: np.ndarray
    drawn: np.ndarray


def ragged(longest: int) -> Prompts:
    """The longest prompt has so many tokens."""
    rng = np.random.default_rng(1)
    root = rng.integers(3, VOCABULARY, longest // 3)
    own = (5, 0, 7, longest - root.size)
    prompts = [np.append(root, rng.integers(3, VOCABULARY, size)) for size in own]
    prompts.append(rng.integers(3, VOCABULARY, 6))
    trie = Trie.build(prompts)
    rows = np.argsort(trie.prompt_leaves)  # in the order of leaves
    drawn = rng.integers(3, VOCABULARY, (len(rows), 2, STEPS)).astype(np.int32)
    drawn[:, 1, :FORK] = drawn[:, 0, :FORK]
    return Prompts(
        [prompts[row] for row in rows], trie, trie.leaf_segments[trie.prompt_leaves[rows]], drawn
    )


def dense_logits(model: torch.nn.Module, prompts: Prompts) -> torch.Tensor:
    """`[steps + 1, rows, 2, vocabulary]` by the model's own attention.

    Sequences are made equally long, as some models' rotary frequencies go by the last position.
    """
    truth, longest = [], max(map(len, prompts.tokens)) + STEPS
    for prompt, samples in zip(prompts.tokens, prompts.drawn, strict=True):
        for drawn in samples:
            behind = np.full(longest - len(prompt) - STEPS, 3)
            text = torch.from_numpy(np.concatenate([prompt, drawn, behind]))[None]
            with torch.inference_mode():
                logits = model(input_ids=text, use_cache=False).logits[0]
            truth.append(logits[len(prompt) - 1 :][: STEPS + 1])
    stacked = torch.stack(truth, dim=1).unflatten(1, (-1, 2))
    assert stacked.isfinite().all()
    assert stacked.std() > 0
    return stacked


def own_error(model: torch.nn.Module, prompts: Prompts, dense: torch.Tensor) -> float:
    """How far the model's own decoding with a cache is from dense, in the largest logits.

    Layers with running states decode by other sums than they prefill by, and the random weights of
    some make much of it.
    """
    worst, past = 0.0, None
    text = np.append(prompts.tokens[0], prompts.drawn[0, 0])[None]
    pieces = np.split(text, np.arange(len(prompts.tokens[0]), text.shape[1]), axis=1)
    with torch.inference_mode():
        for piece, truth in zip(pieces, dense[:, 0, 0], strict=True):
            tokens = torch.from_numpy(piece)
            output = model(input_ids=tokens, cache=past, use_cache=True)
            worst = max(worst, float((output.logits[0, -1] - truth).abs().max()))
            past = output.cache
    return worst / float(dense.abs().max())


def check_equal(config: PreTrainedConfig, source: ModelSource) -> None:
    """Holds the logits of a random model over a tree equal to those of its own attention.

    Prompts reach beyond every window. Rows fork on the way, which freezes their tails; those of
    latent vectors stay tails, whose pages both children read.
    """
    model = build(config)
    # 24 is the tokens of windows and chunks; fixed: rotary frequencies would change beyond
    prompts = ragged(min(75, (source.fixed_tokens or 256) - STEPS))
    dense = dense_logits(model, prompts)
    error = own_error(model, prompts, dense) if keeps_states(source.config) else 0.0
    has_latents = source.shape.latent_dim > 0
    adapted = TreeModel(model, has_latent_tails=has_latents)
    segments = [segment.index for segment in prompts.trie]
    places = StatePlaces(len(segments), 3 * len(prompts.tokens))
    states = States(adapted.state_kinds, places, source.device)
    runs = 64 if has_latents else None
    sizes = 256, PAGE, source.dtype, source.device
    cache = KVCache(source.shape, *sizes, states=states, run_pages=runs)
    tree = Residency(prompts.trie, cache)
    adapted.prepare(max(map(len, prompts.tokens)) + STEPS)
    assert tree.place(segments)
    leaves = Prefill(adapted, prompts.trie, tree.table, cache, 32).segments(segments)
    first = torch.stack([leaves[segment] for segment in prompts.hung.tolist()])
    ours = [torch.stack([first, first], dim=1)]
    lengths = np.array([len(tokens) for tokens in prompts.tokens])

    def decode(
        drawn: np.ndarray,
        hung: np.ndarray,
        start: np.ndarray,
        places: np.ndarray,
        past: np.ndarray | None = None,
    ) -> np.ndarray:
        """Steps for `[rows, steps]` tokens behind segments; returns the tails' pages.

        Those of `past` are before them.
        """
        pages = cache.take(drawn.shape[0] * STEPS // PAGE).reshape(drawn.shape[0], -1)
        before = 0 if past is None else past.shape[1] * PAGE
        pages = pages if past is None else np.concatenate([past, pages], axis=1)
        for step, tokens in enumerate(drawn.T):
            tails = np.full(tokens.size, before + step, np.int32)
            logits = decode_tokens(
                *(adapted, cache, tree.table, tokens.copy(), start + step, hung, pages, tails),
                states=places,
            )
            ours.append(logits.unflatten(0, (len(prompts.tokens), -1)).expand(-1, 2, -1))
        return pages

    rows = states.take_rows(len(prompts.tokens))
    states.copy(tree.table.state[prompts.hung], rows)
    pages = decode(prompts.drawn[:, 0, :FORK], prompts.hung, lengths, rows)
    below, past = np.repeat(prompts.hung, 2), np.repeat(pages[:, : FORK // PAGE], 2, axis=0)
    if not has_latents:
        frozen = [
            tree.freeze(int(segment), own, FORK)
            for segment, own in zip(prompts.hung, pages, strict=True)
        ]
        below = np.repeat(np.array(frozen, np.int32), 2)
    forked = states.take_rows(below.size)
    states.copy(rows.repeat(2), forked)
    later = prompts.drawn[:, :, FORK:].reshape(-1, STEPS - FORK)
    start = lengths.repeat(2) + FORK
    decode(later, below, start, forked, past if has_latents else None)
    tolerance = max(4e-5, 8 * error) * float(dense.abs().max())
    torch.testing.assert_close(torch.stack(ours), dense, rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("bert", "later tokens"),
        ("diffllama", "layer 0 twice"),
        ("doge", r"a mask \(1, 4, 8, 8\) of its own"),
        ("jetmoe", r"keys of layer 0: \(1, 4, 8, 16\) for \(1, 2, 8, 16\)"),
        ("mimo_v2_flash", r"keys of layer 1: \(1, 4, 8, 16\) for \(1, 2, 8, 16\)"),
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
        adapted.forward(tokens, tokens, [Memory(tokens, attend)], None, cache)


def attend(*_: Any, **__: Any) -> torch.Tensor:
    """What attention gives does not matter where it must be refused."""
    return torch.zeros(8, 4, 16)
