"""Freezing: a long tail that several rows will read from now on becomes a segment of the tree.

When a row forks, its children share the pages of their past, but each reads them for itself. Once
copied into one run the past is a segment: read once for all rows below it, at the price of one more
partial to merge for each of them. The trie has grown. The cost model decides, as it does for the
segments of prompts.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.branch.batch import Batch, Children
from hydragen_tree.branch.budget import FROZEN_LEVELS
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel


class Freezing:
    """Freezes tails of one batch.

    Args:
        batch: its rows.
        residency: gets the new segments.
        cache: where the tails are.
        cost: the device's constants.
        shape: the model's sizes.
        key_group: keys that attention takes in together, see `Backend.key_group`. Where they are
            several nothing is frozen: tails begin and end anywhere, and segments may not. Nor are
            tails of latent vectors: a segment's keys would take many times their memory.
    """

    def __init__(
        self,
        batch: Batch,
        residency: Residency,
        cache: KVCache,
        cost: CostModel,
        shape: KVShape,
        key_group: int = 1,
    ) -> None:
        self._batch, self._residency = batch, residency
        self._cache, self._cost, self._shape = cache, cost, shape
        self._may_freeze = key_group == 1 and cache.latents is None

    def freeze(self, children: Children, alive: NDArray[np.bool_]) -> None:
        """Makes segments of long tails below which a row forks.

        Args:
            children: of the batch, about to take its place.
            alive: `[children]`, which of them go on.
        """
        batch, cache = self._batch, self._cache
        if not self._may_freeze or children.parent.size == batch.size:
            return  # nobody forks
        living = np.bincount(children.parent[alive], minlength=batch.size)
        samples = np.bincount(batch.row_of, minlength=batch.size)
        forked = np.flatnonzero((living > 1) & (batch.tail >= cache.page_tokens))
        copies = batch.copies_needed(children, cache.page_tokens)  # `grow` will take these
        for row in forked.tolist():
            tail, readers = int(batch.tail[row]), int(samples[row])
            if not self._pays(tail, readers) or not self._has_room(row, tail, copies):
                continue
            segment = self._residency.freeze(int(batch.segment[row]), batch.pages[row], tail)
            if segment is not None:
                batch.replace_tails(np.array([row]), segment, cache)

    def _pays(self, tail: int, readers: int) -> bool:
        """Whether reading a tail once saves more than a partial for each reader costs."""
        saved = self._cost.saved_s(tail, readers, self._shape.layer_token_bytes)
        return saved > self._cost.spent_s(readers, self._shape.merge_bytes)

    def _has_room(self, row: int, tail: int, copies: int) -> bool:
        """Whether pages and levels are left for it."""
        batch, depth = self._batch, self._residency.table.depth
        leaf = int(self._residency.trie.leaf_segments[batch.leaf[row]])
        frozen = int(depth[batch.segment[row]] - depth[leaf])
        pages = self._cache.pages_for(tail)
        return frozen < FROZEN_LEVELS and self._cache.free_pages - pages >= copies
