"""Prompts beyond the model's context: what stands for them in the trie, and their segments.

A prompt that is condensed is one root segment: its keys depend on all of it, so that nobody shares
part of it. In the trie numbers that are no tokens stand for what will be left, as many as a chunk
has, and other ones for each prompt.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.live_trie import LiveTrie
from hydragen_tree.errors import InputError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.chunk_sizes import HOMER, ChunkSizes
from hydragen_tree.model.condensing import Condenser
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.trie.trie import Trie


def is_long(source: ModelSource, n_tokens: int, max_tokens: int) -> bool:
    """Whether a prompt is condensed before `max_tokens` more are drawn."""
    return source.long_prompt == HOMER and n_tokens + max_tokens > source.context_tokens


def check_prompts(source: ModelSource, prompts: Iterable[Prompt], max_tokens: int) -> None:
    """Refuses prompts that the model can hold neither as they are nor condensed.

    Args:
        source: the model.
        prompts: of a run.
        max_tokens: drawn behind each.

    Raises:
        InputError: see `ModelSource.check_length`, which asks for the same of others.
    """
    for prompt in prompts:
        what = f"{prompt.task_id}, variant {prompt.variant}"
        _check_prompt(source, len(prompt.token_ids), max_tokens, what)


def _check_prompt(source: ModelSource, n_tokens: int, max_tokens: int, what: str) -> None:
    if not is_long(source, n_tokens, max_tokens):
        source.check_length(n_tokens + max_tokens, what)
        return
    sizes = ChunkSizes.of(source.context_tokens)
    source.check_length(sizes.chunk + max_tokens, f"{what}, condensed")
    most = sizes.most(source.shape.layers)
    if n_tokens > most:
        raise InputError(f"{what}: {n_tokens} tokens, but at most {most} can be condensed")


def stand_ins(
    source: ModelSource,
    prompts: Iterable[Prompt],
    max_tokens: int,
    numbers: dict[bytes, int] | None = None,
) -> list[Int32]:
    """The prompts as the trie has them: those that are condensed as numbers below zero.

    Args:
        source: the model.
        prompts: of a run.
        max_tokens: drawn behind each.
        numbers: of the condensed prompts that the trie has, by their tokens; filled. None: it has
            none.
    """
    chunk = ChunkSizes.of(source.context_tokens).chunk
    numbers = {} if numbers is None else numbers
    found = []
    for prompt in prompts:
        tokens = prompt.token_ids
        if is_long(source, len(tokens), max_tokens):
            number = numbers.setdefault(np.asarray(tokens).tobytes(), len(numbers))
            tokens = -1 - np.arange(number * chunk, (number + 1) * chunk, dtype=np.int32)
        found.append(tokens)
    return found


class LongSegments:
    """Computes the segments that stand for condensed prompts.

    Args:
        source: the model.
        model: the adapted model.
        trie: as built of the stand-ins.
        prompts: those of the trie.

    Attributes:
        tokens: by segment, the whole prompt.
    """

    def __init__(
        self, source: ModelSource, model: TreeModel, trie: Trie, prompts: Iterable[Prompt]
    ) -> None:
        self._source, self._model = source, model
        self._condenser: Condenser | None = None
        self.tokens: dict[int, Int32] = {}
        self.add(trie, trie.leaf_segments[trie.prompt_leaves].tolist(), prompts)

    def add(self, trie: Trie | LiveTrie, ends: Iterable[int], prompts: Iterable[Prompt]) -> None:
        """Takes note of prompts in a trie of stand-ins; `ends` are the segments they end in."""
        self._trie = trie
        for end, prompt in zip(ends, prompts, strict=True):
            if trie.segments[end].tokens[0] < 0:
                self.tokens[end] = prompt.token_ids

    def has(self, segment: int) -> bool:
        """Whether a segment of the trie stands for a condensed prompt."""
        return segment in self.tokens and int(self._trie.segments[segment].tokens[0]) < 0

    def compute(self, segment: int, table: SegmentTable, cache: KVCache) -> Tensor:
        """Fills a placed segment.

        Args:
            segment: one of `tokens`.
            table: where segments lie; it is told.
            cache: where keys and values go.

        Returns:
            Logits `[vocabulary]` after it.
        """
        if self._condenser is None:
            sizes = ChunkSizes.of(self._source.context_tokens)
            self._condenser = Condenser(self._model, self._source.shape, sizes)
        found = self._condenser.condense(self.tokens[segment])
        count, first = found.kept.numel(), int(table.slot[segment])
        slots = torch.arange(first, first + count, device=found.keys.device)
        for layer, (keys, values) in enumerate(zip(found.keys, found.values, strict=True)):
            cache.arenas[0].write(layer, slots, keys, values)
        table.n_computed[segment] = count
        return found.logits
