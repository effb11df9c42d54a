"""A prompt beyond the model's context as a short cache: HOMER (arXiv 2404.10308), not exact.

The prompt's first and last tokens, its affixes, go with every chunk of what lies between; a chunk
with its affixes is half of the context at the most. Chunks pass the first layers each by itself.
Then neighbours are merged: of each only those tokens stay that the chunk's last token attends to
most, what is left stands side by side between the affixes, whose states are averaged, and the
merged chunk passes the next layers. So it goes up a binary tree, until the last chunk passes the
last layers. What is dropped above is dropped from the keys and values of all layers below, too.

    chunk 1    ────┐
                   ├─ half of each ─────┐
    chunk 2    ────┘                    ├─ half of each ──────▶  keys and values of one chunk
    chunk 3    ────┐                    │
                   ├─ half of each ─────┘
    chunk 4    ────┘
              layers a       layers b             layers c

Tokens keep the positions that they had in their chunk, and the last affix has those behind a full
chunk, so that no position is beyond the context and what is drawn follows the cache. The tree is
walked depth first: there is one chunk a level in memory, a number that grows with the logarithm of
the prompt's length. In the end the last affix passes all layers once more, over what is left of the
rest: its states as means of chunks, of which few have what matters, would not say what comes next.

Which tokens matter: the attention of the last token in the last layer before the merge, the most of
all heads. It is greater the nearer a token is, whatever the token says; the paper takes off an
average over other texts, which is not done here.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.backend import Attend
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.windows import WindowView
from hydragen_tree.errors import ModelError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.chunk_sizes import ChunkSizes
from hydragen_tree.model.step import Memory
from hydragen_tree.shape import KVShape

# Of the layers come before the first merge, if there are enough for all merges. In the paper it is
# 3 / 8; there SmolLM2's last token does not see yet which tokens matter (NOTES.md).
_WARM_SHARE = 2 / 3
_NEIGHBOURS = 7  # tokens that stay together: each counts as much as the best of so many
_PAGE = 16
_PROBES = 8  # tokens
_TOLERANCE = 0.02


class Condensed(NamedTuple):
    """What comes out.

    Attributes:
        keys: `[layers, kv_heads, chunk, head_dim]`.
        values: the same.
        logits: `[vocabulary]` after the last token.
        kept: `[chunk]` int64, the prompt's tokens that are left, by their places in it.
    """

    keys: Tensor
    values: Tensor
    logits: Tensor
    kept: Tensor


class _Chunk(NamedTuple):
    """A chunk between two layers.

    Attributes:
        states: `[tokens, width]` what the next layer reads.
        positions: `[tokens]` int64.
        places: `[tokens]` int64, in the prompt.
        keys: `[layers so far, kv_heads, tokens, head_dim]`.
        values: the same.
        worth: `[tokens]` float32, by the last token's attention in the last layer so far.
    """

    states: Tensor
    positions: Tensor
    places: Tensor
    keys: Tensor
    values: Tensor
    worth: Tensor


class Condenser:
    """Condenses prompts of one model.

    Args:
        model: the adapted model, all of whose layers see all earlier tokens.
        shape: its sizes.
        sizes: how prompts are cut.

    Attributes:
        peak_bytes: the most that keys, values and states of chunks have taken at a time.

    Raises:
        ModelError: the model's layers cannot be run one by one.
    """

    def __init__(self, model: TreeModel, shape: KVShape, sizes: ChunkSizes) -> None:
        self._model, self._shape, self._sizes = model, shape, sizes
        self.peak_bytes = 0
        self._held: list[_Chunk] = []
        self._refuse_other_passes()

    @torch.inference_mode()
    def condense(self, prompt: Int32 | Sequence[int]) -> Condensed:
        """Makes a prompt as short as a chunk.

        Args:
            prompt: `[tokens]`, more than a chunk has, and at most `ChunkSizes.most`.
        """
        tokens = torch.from_numpy(np.array(prompt, np.int64)).to(self._model.device)
        sizes = self._sizes
        middle = tokens.numel() - sizes.prefix - sizes.suffix
        levels, layers = sizes.levels(tokens.numel()), self._shape.layers
        warm = min(round(_WARM_SHARE * layers), layers - levels) if levels else layers
        # a node of level j passes the layers up to ends[j], its children those before
        ends = [warm + (layers - warm) * level // max(levels, 1) for level in range(levels + 1)]
        chunk = self._build(tokens, middle, ends, levels, 0)
        return self._read_end(chunk, tokens[-sizes.suffix :])

    @torch.inference_mode()
    def _refuse_other_passes(self) -> None:
        """Makes sure that layers run one by one are what the model does: some scale in between."""
        tokens = torch.arange(_PROBES, device=self._model.device)
        states = self._model.embed(tokens)
        none = states.new_empty(0, self._shape.kv_heads, _PROBES, self._shape.head_dim)
        chunk = _Chunk(states, tokens, tokens, none, none, none)
        found = self._model.head(self._run(chunk, 0, self._shape.layers).states).float()
        plan = Plan(_PROBES, item_table([Item(0, _PROBES, 0, _PROBES, causal=1, level=0)]))
        cache = self._cache(chunk, self._shape.layers)
        memories = [Memory(tokens, self._model.attend(plan))]
        expected = self._model.forward(tokens, tokens, memories, None, cache).float()
        if not (found - expected).norm() <= _TOLERANCE * expected.norm():
            kind = type(self._model.model).__name__
            raise ModelError(f"{kind} does more than its layers one by one; choose another model")

    def _read_end(self, chunk: _Chunk, end: Tensor) -> Condensed:
        """Takes the prompt's end through all layers once more, over what is left of the rest."""
        rest, count = chunk.positions.numel() - end.numel(), end.numel()
        cache = self._cache(chunk, self._shape.layers)
        items = [
            Item(0, count, 0, rest, causal=0, level=0),
            Item(0, count, rest, count, causal=1, level=1),
        ]
        slots = torch.arange(rest, rest + count, device=end.device)
        states = self._model.run_layers(
            range(self._shape.layers),
            self._model.embed(end),
            chunk.positions[rest:],
            [Memory(slots, self._model.attend(Plan(count, item_table(items))))],
            cache,
        )
        keys, values = (x[:, :, : rest + count] for x in (cache.keys, cache.values))
        return Condensed(keys, values, self._model.head(states[-1:])[0], chunk.places)

    def _cache(self, chunk: _Chunk, layers: int) -> KVCache:
        """An arena for a chunk's tokens, with its keys and values so far in the first slots."""
        n_tokens, dtype = chunk.positions.numel(), chunk.states.dtype
        shape = replace(self._shape, layers=layers)
        cache = KVCache(shape, -(-n_tokens // _PAGE), _PAGE, dtype, self._model.device)
        cache.keys[: len(chunk.keys), :, :n_tokens] = chunk.keys
        cache.values[: len(chunk.values), :, :n_tokens] = chunk.values
        return cache

    def _build(
        self, tokens: Tensor, middle: int, ends: list[int], level: int, number: int
    ) -> _Chunk:
        """The chunk of a node of the tree: number `number` of its level."""
        size = self._sizes.middle
        if level == 0:
            return self._leaf(tokens, number * size, min(size, middle - number * size), ends[0])
        span = size << (level - 1)  # tokens below each child
        left_start, right_start = 2 * number * span, (2 * number + 1) * span
        if right_start >= middle:
            left = self._build(tokens, middle, ends, level - 1, 2 * number)
            return self._run(left, ends[level - 1], ends[level])
        of_right = min(size // 2, middle - right_start)
        of_left = min(size - of_right, middle - left_start, size)
        left = self._build(tokens, middle, ends, level - 1, 2 * number)
        left = self._pruned(left, of_left)
        self._held.append(left)
        right = self._build(tokens, middle, ends, level - 1, 2 * number + 1)
        right = self._pruned(right, of_right)
        self._held.pop()
        return self._run(self._merged(left, right), ends[level - 1], ends[level])

    def _leaf(self, tokens: Tensor, start: int, count: int, layers: int) -> _Chunk:
        """A chunk of the prompt's own tokens, through the first layers."""
        sizes, device = self._sizes, tokens.device
        first = torch.arange(sizes.prefix + count, device=device)
        last = torch.arange(sizes.suffix, device=device)
        begin = first[: sizes.prefix], sizes.prefix + start + first[:count]
        places = torch.cat((*begin, tokens.numel() - sizes.suffix + last))
        positions = torch.cat((first, sizes.prefix + sizes.middle + last))
        shape = 0, self._shape.kv_heads, places.numel(), self._shape.head_dim
        states = self._model.embed(tokens[places])
        none = states.new_empty(shape)
        chunk = _Chunk(states, positions, places, none, none, none.new_empty(0))
        return self._run(chunk, 0, layers)

    def _run(self, chunk: _Chunk, start: int, stop: int) -> _Chunk:
        """Takes a chunk through layers start .. stop - 1."""
        if start == stop:
            return chunk
        n_tokens, cache = chunk.positions.numel(), self._cache(chunk, stop)
        slots = torch.arange(n_tokens, device=chunk.positions.device)
        plan = Plan(n_tokens, item_table([Item(0, n_tokens, 0, n_tokens, causal=1, level=0)]))
        attend = _Watched(self._model.attend(plan), stop - 1, n_tokens)
        states = self._model.run_layers(
            range(start, stop), chunk.states, chunk.positions, [Memory(slots, attend)], cache
        )
        keys, values = (x[:, :, :n_tokens] for x in (cache.keys, cache.values))
        done = chunk._replace(states=states, keys=keys, values=values, worth=attend.worth)
        held = sum(map(_bytes, (*self._held, done)))
        self.peak_bytes = max(self.peak_bytes, held)
        return done

    def _pruned(self, chunk: _Chunk, count: int) -> _Chunk:
        """The `count` tokens between the affixes that are worth most, in their order."""
        first, last = self._sizes.prefix, chunk.positions.numel() - self._sizes.suffix
        worth = _together(chunk.worth[first:last])
        best = worth.topk(min(count, last - first)).indices.sort().values + first
        ends = torch.arange(chunk.positions.numel(), device=best.device)
        return _take(chunk, torch.cat((ends[:first], best, ends[last:])))

    def _merged(self, left: _Chunk, right: _Chunk) -> _Chunk:
        """Two chunks side by side, between affixes that are the means of theirs."""
        prefix, suffix = self._sizes.prefix, self._sizes.suffix

        def join(ours: Tensor, theirs: Tensor, dim: int) -> Tensor:
            parts = []
            for whole in (ours, theirs):
                middle = whole.shape[dim] - prefix - suffix
                parts.append(whole.split((prefix, middle, suffix), dim))
            (first, inner, last), (other_first, other_inner, other_last) = parts
            if ours.is_floating_point():
                first, last = (first + other_first) / 2, (last + other_last) / 2
            return torch.cat((first, inner, other_inner, last), dim)

        return _Chunk(
            join(left.states, right.states, 0),
            join(left.positions, right.positions, 0),
            join(left.places, right.places, 0),
            join(left.keys, right.keys, 2),
            join(left.values, right.values, 2),
            left.worth.new_empty(0),
        )


class _Watched:
    """Attention that keeps what the last token gives to each other in one layer.

    Args:
        attend: computes it.
        layer: the layer.
        n_tokens: of the chunk, in the first slots.

    Attributes:
        worth: `[tokens]` float32, the most of all heads.
    """

    def __init__(self, attend: Attend, layer: int, n_tokens: int) -> None:
        self._attend, self._layer, self._n_tokens = attend, layer, n_tokens
        self.worth = torch.empty(0)

    def __call__(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        view: WindowView | None = None,
        latent: LatentTails | None = None,
    ) -> Tensor:
        """See `Attend`; a chunk has no tails."""
        if layer == self._layer:
            seen = keys[:, : self._n_tokens].float()
            last = queries[-1].float().view(seen.shape[0], -1, seen.shape[2])
            scores = torch.einsum("kgd,ktd->kgt", last, seen) * scale
            self.worth = scores.softmax(2).flatten(0, 1).amax(0)
        return self._attend(
            layer, queries, keys, values, scale=scale, softcap=softcap, sinks=sinks, view=view
        )


def _together(worth: Tensor) -> Tensor:
    """Each number as great as the greatest of its neighbours: spans stay whole."""
    return functional.max_pool1d(worth[None], _NEIGHBOURS, 1, _NEIGHBOURS // 2)[0]


def _take(chunk: _Chunk, tokens: Tensor) -> _Chunk:
    states, positions, places = (x[tokens] for x in chunk[:3])
    keys, values = (x[:, :, tokens] for x in (chunk.keys, chunk.values))
    return _Chunk(states, positions, places, keys, values, chunk.worth[tokens])


def _bytes(chunk: _Chunk) -> int:
    return sum(part.nbytes for part in chunk)
