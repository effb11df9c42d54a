"""transformers' calls of attention: what is asked for, checked, and met in the tree.

Nothing that a layer asks for is passed over: what the tree does not do is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from torch import Tensor, nn
from torch.nn import functional

from hydragen_tree.attention.backend import Attend
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.windows import Window, WindowView
from hydragen_tree.errors import ModelError
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.arena import Arena
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.latent import Expansion
from hydragen_tree.model.support import LayerHeads

# Arguments of attention that change nothing here: nothing is dropped when a model is evaluated, and
# positions, caches and outputs are not for attention itself.
_HARMLESS = {
    *("dropout", "is_causal", "position_ids", "position_embeddings", "logits_to_keep"),
    *("cache", "cache_position", "past_key_values", "use_cache", "return_dict"),
    *("output_attentions", "output_hidden_states", "output_router_logits"),
}


class Memory(NamedTuple):
    """Where an arena has the tokens going through the model, and what they see there.

    Attributes:
        slots: `[tokens]` slot of each: int64, or int32 on a GPU, where -1 stores nothing.
        attend: attention over what the tokens see, those just written included.
    """

    slots: Tensor
    attend: Attend


class Step:
    """What attention needs to know of the tokens going through the model.

    An ordinary class: torch.compile looks into frozen dataclasses, and would compile anew for each.

    Args:
        cache: where new keys and values go.
        positions: `[tokens]` int64, position of each in its own sequence.
        memories: of each arena.
        windows: which earlier tokens each layer sees; None: all.
        heads: those of each layer.
        places: where each layer that attends is in the arena.
        has_latents: the tokens are of tails, which hold latent vectors.
    """

    def __init__(
        self,
        cache: KVCache,
        positions: Tensor,
        memories: Sequence[Memory],
        windows: Sequence[Window | None],
        heads: Sequence[LayerHeads],
        places: Mapping[int, int],
        has_latents: bool = False,
    ) -> None:
        self.cache, self.memories, self.windows = cache, memories, windows
        self.places, self.has_latents = places, has_latents
        self._positions, self._heads = positions, heads
        self._views: dict[Window, WindowView] = {}
        self._missing = set(places)

    def view(self, layer: int) -> WindowView | None:
        """What the tokens see in a layer; made once for all layers of one window."""
        window = self.windows[layer]
        if window is None:
            return None
        if window not in self._views:
            self._views[window] = window.view(self._positions)
        return self._views[window]

    def layer(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> int:
        """The layer that calls, for the first time in this pass, with what the arena can hold."""
        layer = getattr(module, "layer_idx", None)
        if layer not in self._missing:
            _refuse(module, f"it is called for layer {layer} twice, or there is no such layer")
        self._missing.remove(layer)
        kv_heads, *dims = self._heads[layer]
        for name, given, dim in zip(("keys", "values"), (key, value), dims, strict=True):
            held = (1, kv_heads, query.shape[2], dim)
            if given.shape != held:
                _refuse(module, f"{name} of layer {layer}: {tuple(given.shape)} for {held}")
        return int(layer)

    def check_complete(self) -> None:
        """Refuses a pass in which a layer has not called attention."""
        if self._missing:
            layers = ", ".join(map(str, sorted(self._missing)))
            raise ModelError(f"layers {layers} have not called attention; choose another model")


def _refuse(module: nn.Module, why: str) -> NoReturn:
    raise ModelError(
        f"{type(module).__name__} asks for attention that a shared tree does not give: {why}; "
        "choose another model"
    )


@hidden_from_compiler
def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_step: Step | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query `[1, q_heads, tokens, head_dim]`."""
    if tree_step is None:
        _refuse(module, "the model passes no arguments on to it")
    if attention_mask is not None and attention_mask.numel() > 1:  # one number masks nobody
        _refuse(module, f"a mask {tuple(attention_mask.shape)} of its own")
    if not getattr(module, "is_causal", True) or not others.get("is_causal", True):
        _refuse(module, "attention to later tokens")
    for name, asked in others.items():
        if name not in _HARMLESS and asked is not None:
            _refuse(module, f"`{name}`")
    layer = tree_step.layer(module, query, key, value)
    known = tree_step.windows[layer]
    if sliding_window is not None and sliding_window != (known and known.tokens):
        _refuse(module, f"a sliding window of {sliding_window} tokens in layer {layer}")
    place, latent = tree_step.places[layer], None
    number, row = tree_step.cache.at[place]
    arena, (slots, attend) = tree_step.cache.arenas[number], tree_step.memories[number]
    tokens = slots.shape[0]  # behind these there is padding
    extra, value_dim = query.shape[2] - tokens, value.shape[-1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if tree_step.has_latents:
        latent = _latent_tails(module, query[0, :, :tokens], key[0, 0, :tokens], arena, row, slots)
    kv_heads, _, width = arena.keys.shape[1:]
    # Zeros behind keys and queries leave scores as they are.
    query, key, value = (_widened(x[:, :, :tokens], width) for x in (query, key, value))
    if key.shape[1] != kv_heads:  # a layer with fewer than others: several hold the same
        key, value = (x.repeat_interleave(kv_heads // x.shape[1], 1) for x in (key, value))
    if latent is None:
        arena.write(row, slots, key[0], value[0])
    out = attend(
        place,
        query[0].transpose(0, 1),
        arena.keys[row],
        arena.values[row],
        scale=scale,
        softcap=softcap,
        sinks=s_aux,
        view=tree_step.view(layer),
        latent=latent,
    )[..., :value_dim]
    return (functional.pad(out, (0, 0, 0, 0, 0, extra)) if extra else out)[None], None


def _latent_tails(
    module: nn.Module, query: Tensor, key: Tensor, arena: Arena, row: int, slots: Tensor
) -> LatentTails:
    """Stores the latent vectors of new tokens of tails; and what meets those of all tails."""
    assert isinstance(module.kv_b_proj, Expansion) and arena.latents is not None  # noqa: PT018
    absorbed = module.kv_b_proj.absorbed(query, key)
    arena.write_latents(row, slots, absorbed.vectors)
    return LatentTails(absorbed.queries, arena.latents[row], absorbed.up)


def _widened(x: Tensor, width: int) -> Tensor:
    """With zeros behind the numbers of a head."""
    missing = width - x.shape[-1]
    return functional.pad(x, (0, missing)) if missing else x
