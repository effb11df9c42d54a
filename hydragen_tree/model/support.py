"""Which models the tree can run, by their configuration alone: before any weight is loaded.

The tree takes the place of attention, so a model has to call it once a layer, over all earlier
tokens or the last of them and nothing else, with as many query heads in every layer. Layers that
keep a running state instead have to take it from a cache of transformers' kind. Whatever else a
model does is its own.
"""

import inspect
import sys
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig

from hydragen_tree.attention.windows import Window
from hydragen_tree.errors import ModelError
from hydragen_tree.model.recurrence import ASKS_FOR_STATE
from hydragen_tree.shape import KVShape

MAX_HEAD_DIM = 512  # beyond 256 in plain torch alone

_SLIDING, _CHUNKED = "sliding_attention", "chunked_attention"
_ATTENTION = {"full_attention", "attention", _SLIDING, _CHUNKED}
# What a layer's kind is called where it keeps a running state in place of keys and values, or, if
# it is hybrid, beside them.
_HYBRID = {"hybrid", "hybrid_sliding"}
_STATES = {"linear_attention", "mamba", "mamba2", "recurrent", "conv"} | _HYBRID
_NEITHER = {"mlp", "moe"}
# Hybrid layers of other kinds share their attention, or have it read what a convolution makes.
_HYBRID_KINDS = {"falcon_h1"}
# Their configuration may name no kinds of layers.
_WITHOUT_ATTENTION = {"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"}
# Sizes of attention that have to be the same in all layers.
_IN_ALL_LAYERS = ("num_attention_heads", "kv_lora_rank")
_SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "vocab_size",
)
# Numbers of tokens, or of blocks of them, that an indexer chooses for every query.
_CHOSEN = ("index_topk", "index_topk_blocks")
# Their experts' code asks how many tokens each has, and transformers lets no other take its place.
_ROUTED_BY_HOST = {"dbrx", "longcat_flash"}
# What no configuration says.
_UNLIKE = {
    "bert-generation": "reads in both directions (an encoder)",
    "diffllama": "calls attention twice a layer (differential attention)",
    "doge": "weights its keys by a mask of its own (dynamic mask attention)",
    "dory": "passes its layers several times a token",
    "gemma4_assistant": "drafts for another model, whose keys it reads",
    "gemma4_unified_assistant": "drafts for another model, whose keys it reads",
    "hrm_text": "passes its layers several times a token",
    "jamba": "begins anew where several tokens follow a state",
    "jetmoe": "has other heads for every token (mixture of attention heads)",
    "mimo_v2_flash": "has other numbers of heads in its windowed layers",
    "moshi": "is made for speech, by a decoder of its own",
    "nemotron": "passes no arguments on to attention",
}


def refuse_unsupported(model: str, config: PreTrainedConfig, whole: PreTrainedConfig) -> None:
    """Refuses a kind of model that the tree cannot run, by what it is.

    Args:
        model: as the user gave it.
        config: of the text model.
        whole: of all of it; the same where there is no more than text.

    Raises:
        ModelError: of a kind that is not supported.
    """
    if why := unsupported(config, whole):
        raise ModelError(f"{why}; choose another model", setting="model", value=model)


def unsupported(config: PreTrainedConfig, whole: PreTrainedConfig) -> str | None:
    """Why the tree cannot run a kind of model, as a clause; None if it can.

    Args:
        config: of the text model.
        whole: of all of it; the same where there is no more than text.
    """
    kind = whole.model_type
    why = f"{kind} {_UNLIKE[kind]}" if kind in _UNLIKE else _unsupported(config)
    if why is None and _class(AutoModelForCausalLM, whole) is None:
        why = f"{whole.model_type} is not a causal language model, though a part of it may be"
    return why


def why_uncaptured(config: PreTrainedConfig) -> str | None:
    """Why a GPU cannot capture a model's steps, so that the host takes each, as a clause.

    Args:
        config: of the text model; supported.

    Returns:
        None where steps are captured.
    """
    if config.model_type in _ROUTED_BY_HOST:
        return f"{config.model_type} asks the host how many tokens each expert has"
    return None


def keeps_states(config: PreTrainedConfig) -> bool:
    """Whether a model has layers with running states."""
    return not _STATES.isdisjoint(_kinds(config) or ())


def attention_layers(config: PreTrainedConfig) -> tuple[int, ...]:
    """Numbers of the layers that attend: those that have keys and values."""
    kinds = _kinds(config) or ["attention"] * config.num_hidden_layers
    return tuple(at for at, kind in enumerate(kinds) if kind in _ATTENTION | _HYBRID)


def _kinds(config: PreTrainedConfig) -> list[str] | None:
    """What each layer is; None where a configuration does not say, and all attend."""
    return getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)


def kv_shape(model: str, config: PreTrainedConfig, dtype: torch.dtype) -> KVShape:
    """Sizes of keys and values of a supported model.

    Args:
        model: as the user gave it.
        config: of the text model.
        dtype: of keys and values.

    Raises:
        ModelError: heads too large, or numbers that make no sense.
    """
    heads = config.num_attention_heads
    for layer in _a_layer(config):
        _check_numbers(model, layer)
    layers = layer_heads(config)
    kv_heads = max(layer.kv_heads for layer in layers)
    head_dim = max(max(layer.key_dim, layer.value_dim) for layer in layers)
    for own, whole in ((kv_heads, heads), *((layer.kv_heads, kv_heads) for layer in layers)):
        if whole % own:
            raise ModelError(
                f"config.json: num_key_value_heads: {own}, expected a divisor of {whole}, the "
                + ("num_attention_heads" if whole == heads else "most that a layer has"),
                setting="model",
                value=model,
            )
    if head_dim > MAX_HEAD_DIM:
        raise ModelError(
            f"heads of {head_dim} numbers; at most {MAX_HEAD_DIM}", setting="model", value=model
        )
    return KVShape(len(attention_layers(config)), heads, kv_heads, head_dim, dtype.itemsize)


class LayerHeads(NamedTuple):
    """What a layer gives attention; the arena holds the most and the largest of all layers.

    Attributes:
        kv_heads: key-value heads.
        key_dim: numbers of a key.
        value_dim: numbers of a value.
    """

    kv_heads: int
    key_dim: int
    value_dim: int


def layer_heads(config: PreTrainedConfig) -> tuple[LayerHeads, ...]:
    """The heads of every layer."""
    found = tuple(map(_heads, _a_layer(config)))
    return found * config.num_hidden_layers if len(found) == 1 else found


def _a_layer(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """A configuration of every layer's own; one where all are alike."""
    try:
        _heads(config)
    except RuntimeError:  # transformers' answer where layers differ
        return [config.per_layer_config[layer] for layer in range(config.num_hidden_layers)]
    return [config]


def _heads(config: PreTrainedConfig) -> LayerHeads:
    heads = config.num_attention_heads
    multi_query = 1 if getattr(config, "multi_query", False) else heads  # GPT-BigCode's name for it
    kv_heads = getattr(config, "num_key_value_heads", None) or multi_query
    key_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if getattr(config, "kv_lora_rank", None):  # MLA: made out of a smaller vector for every head
        kv_heads, key_dim = heads, config.qk_nope_head_dim + config.qk_rope_head_dim
    return LayerHeads(kv_heads, key_dim, getattr(config, "v_head_dim", None) or key_dim)


def _check_numbers(model: str, config: PreTrainedConfig) -> None:
    """Sizes that are no sizes would end in errors that name neither file nor key."""
    for name in _SIZES:
        number = getattr(config, name, None)
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ModelError(
                f"config.json: {name}: {number}, expected an integer >= 1",
                setting="model",
                value=model,
            )


def layer_windows(config: PreTrainedConfig) -> tuple[Window | None, ...]:
    """Which earlier tokens each layer sees; None: all of them."""
    sliding = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    if getattr(config, "use_sliding_window", True) is False:
        sliding = None
    of_kind = {
        _SLIDING: Window(int(sliding)) if sliding else None,
        _CHUNKED: Window(int(chunk), is_chunked=True) if chunk else None,
    }
    unnamed = [_SLIDING] * config.num_hidden_layers  # as Mistral's, where there is a window
    return tuple(of_kind.get(kind) for kind in getattr(config, "layer_types", None) or unnamed)


def with_windows(shape: KVShape, config: PreTrainedConfig) -> KVShape:
    """The sizes of a model whose layers keep no tokens of a prompt that no row sees any more."""
    windows, layers = layer_windows(config), enumerate(attention_layers(config))
    seen = {place: window.tokens for place, layer in layers if (window := windows[layer])}
    return replace(shape, windowed=frozenset(seen), window_tokens=max(seen.values(), default=0))


def _unsupported(config: PreTrainedConfig) -> str | None:
    """Why the tree cannot run a model; None if it can."""
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind} is an encoder-decoder, not a causal language model"
    causal = _class(AutoModelForCausalLM, config)
    if causal is None:
        return f"{kind} is not a causal language model"
    both_ways = getattr(config, "use_bidirectional_attention", False) is True
    if both_ways or _class(AutoModelForMaskedLM, config) is not None:
        return f"{kind} reads in both directions (an encoder)"
    if kind in _WITHOUT_ATTENTION:
        return f"{kind} is attention-free: there are no keys and values to share"
    return (
        _other_layers(kind, config, causal)
        or _other_keys(kind, config)
        or (
            None
            if _lets_attention_be_replaced(causal, config)
            else f"{kind} does not use transformers' attention interface"
        )
    )


def _lets_attention_be_replaced(causal: type, config: PreTrainedConfig) -> bool:
    """Whether attention goes through transformers' interface; hybrids have no flag that says so."""
    if getattr(causal, "_supports_attention_backend", False):
        return True
    return keeps_states(config) and "ALL_ATTENTION_FUNCTIONS.get_interface(" in _code(causal)


def _code(kind: type) -> str:
    """The module that a model's class is in."""
    return inspect.getsource(sys.modules[kind.__module__])


def _class(auto: Any, config: PreTrainedConfig) -> type | None:
    """The class that transformers has for a configuration and a purpose."""
    found = auto._model_mapping.get(type(config), None)
    first: type | None = found[0] if isinstance(found, tuple) else found
    return first


def _other_layers(kind: str, config: PreTrainedConfig, causal: type) -> str | None:
    """Layers that are not attention over all earlier tokens, and keep no state that is known."""
    counts = Counter(_kinds(config) or [])
    others = [name for name in counts if name not in _ATTENTION]
    if not others:
        return None
    n_others = sum(counts[name] for name in others)
    which = f"{n_others} of its {counts.total()} layers are {', '.join(sorted(others))}"
    if not _STATES.intersection(others):
        return f"{kind} has layers that are not attention over all earlier tokens: {which}"
    if counts.keys() <= _STATES - _HYBRID | _NEITHER:
        return f"{kind} is attention-free: {which}; there are no keys and values to share"
    known = _STATES - _HYBRID | _NEITHER | (_HYBRID if kind in _HYBRID_KINDS else set())
    if known.issuperset(others) and ASKS_FOR_STATE in _code(causal):
        return None
    return f"{kind} is a hybrid: {which}; its states are kept in a way that is not known here"


def _other_keys(kind: str, config: PreTrainedConfig) -> str | None:
    """Keys and values that do not fit into one arena, or of which only some are seen."""
    for name in _IN_ALL_LAYERS:
        try:
            getattr(config, name, None)
        except RuntimeError:  # transformers' answer where layers differ
            return f"the layers of {kind} differ in {name}"
    if getattr(config, "num_attention_heads", None) is None:
        return f"{kind} states no number of attention heads"
    if any(getattr(config, name, None) for name in _CHOSEN):
        return f"{kind} chooses among earlier tokens (sparse attention)"
    return None
