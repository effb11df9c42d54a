"""Freezing on a device: full pages that rows share become a segment of the tree, between chunks.

Rows that have parted name the same pages for the past that they have in common, and each reads them
for itself. The host sees so in the tables that a chunk leaves behind. It has the pages copied into
one run, which is a segment then, and tells the device that whoever names the last of these pages
hangs from it: that holds wherever rows have got to since, as a full page is named by those alone
that come from the rows the host has seen.

Chunks that were launched before tell of rows as they were. They are read as if the segment had been
there already.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.budget import DEVICE_FROZEN_LEVELS
from hydragen_tree.branch.chunk import Chunk
from hydragen_tree.branch.device_batch import DeviceBatch, Frozen, hung_below
from hydragen_tree.branch.groups import RowGroups
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel

_PLAN_S = 40e-3  # of a device's time, for copies, a new plan and rows in a new order: see NOTES.md
_READ_SHARE = 0.4  # of what rows that share pages would read, those beside each other from L2
_REST_SHARE = 0.5  # of the tokens that rows may still draw, those that they will


@dataclass(frozen=True, eq=False, slots=True)
class _Shared:
    """Beginnings of tails that several rows share, `[found]` each.

    Attributes:
        first: the first row of each.
        rows: so many, behind each other.
        pages: full ones that they share.
    """

    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    pages: NDArray[np.int64]


class DeviceFreezing:
    """Freezes tails of one batch on a device.

    Args:
        batch: on the device.
        residency: gets the new segments.
        cache: where the tails are.
        cost: the device's constants.
        shape: the model's sizes.
        max_tokens: of a tail.
        key_group: keys that attention takes in together, see `Backend.key_group`: a segment begins
            at a multiple of so many, with what the one above ends with.
    """

    def __init__(
        self,
        batch: DeviceBatch,
        residency: Residency,
        cache: KVCache,
        cost: CostModel,
        shape: KVShape,
        max_tokens: int,
        key_group: int = 1,
    ) -> None:
        self._batch, self._residency, self._cache = batch, residency, cache
        self._cost, self._shape = cost, shape
        self._max_tokens, self._key_group = max_tokens, key_group
        self._frozen: list[tuple[int, Frozen]] = []  # with the first chunk that knows of it

    def follow(self, chunk: Chunk, number: int, launched: int, groups: RowGroups) -> Chunk:
        """Freezes what rows share after a chunk, if it pays.

        Args:
            chunk: it has ended.
            number: of it.
            launched: chunks launched so far.
            groups: of the rows; get those of new segments.

        Returns:
            The chunk as if all that has been frozen had been there.
        """
        self._frozen = [one for one in self._frozen if one[0] > number]
        for _, frozen in self._frozen:
            chunk = self._below(chunk, frozen)
        new = self._freeze(chunk, number, groups)
        if new is None:
            return chunk
        self._batch.freeze(new, self._cache.page_tokens)
        self._frozen.append((launched, new))
        return self._below(chunk, new)

    def _below(self, chunk: Chunk, frozen: Frozen) -> Chunk:
        tables = torch.from_numpy(chunk.fields), torch.from_numpy(chunk.pages)
        fields, pages = hung_below(*tables, frozen, self._cache.page_tokens)
        return replace(chunk, fields=fields.numpy(), pages=pages.numpy())

    def _freeze(self, chunk: Chunk, number: int, groups: RowGroups) -> Frozen | None:
        """Makes segments of what pays most; None if nothing does."""
        alive = np.flatnonzero(chunk.row("stops") >= 0)
        lengths, pages = chunk.row("lengths")[alive], chunk.pages[alive]
        shared = _shared(pages, lengths // self._cache.page_tokens)
        starts = chunk.row("positions")[alive] - lengths
        left = self._max_tokens - chunk.row("drawn")[alive]
        made: list[tuple[int, int, int]] = []
        for which in self._worthwhile(shared, left):
            row, count = int(shared.first[which]), int(shared.pages[which])
            above = int(groups.segments_of(chunk.row("groups")[alive[[row]]])[0])
            lead = int(starts[row]) % self._key_group
            tokens = count * self._cache.page_tokens
            if not self._has_room(above, lead + tokens, alive.size):
                continue
            segment = self._residency.freeze(above, pages[row], tokens, lead)
            if segment is not None:
                group = groups.open(segment, number)
                made.append((int(pages[row, count - 1]), count, group))
        return Frozen.of(made) if made else None

    def _worthwhile(self, shared: _Shared, left: NDArray[np.int64]) -> list[int]:
        """Of rows that share their first page the beginning that saves most, if it pays at all.

        Args:
            shared: all there are.
            left: `[rows]` tokens that each may draw.
        """
        if not shared.first.size:
            return []
        rows, tokens = shared.rows.astype(np.float64), shared.pages * self._cache.page_tokens
        shape, cost = self._shape, self._cost
        saved = cost.saved_s(tokens.astype(np.float64), rows, shape.layer_token_bytes)
        saved = _READ_SHARE * saved - cost.spent_s(rows, shape.merge_bytes)
        saved *= shape.layers - len(shape.windowed)  # others hardly see it
        saved *= _REST_SHARE * left[shared.first]
        ones = np.sort(shared.first[shared.pages == 1])
        cluster = np.searchsorted(ones, shared.first, side="right")
        order = np.lexsort((-saved, cluster))
        best = order[np.unique(cluster[order], return_index=True)[1]]
        return [int(one) for one in best if saved[one] > _PLAN_S]

    def _has_room(self, above: int, tokens: int, rows: int) -> bool:
        """Whether levels are left for a segment, and pages: one more for each row stays free."""
        table, levels = self._residency.table, 0
        while table.is_tail[above]:
            levels, above = levels + 1, int(table.parent[above])
        free = self._cache.free_pages - self._cache.pages_for(tokens)
        return levels < DEVICE_FROZEN_LEVELS and free >= rows


def _shared(pages: Int32, full: NDArray[np.int64]) -> _Shared:
    """What rows share of their tails.

    Args:
        pages: `[rows, max_pages]`, rows depth-first.
        full: `[rows]` pages of each that are full.
    """
    found = []
    for column in range(int(full.max(initial=0))):
        own = np.where(column < full, pages[:, column], -1)
        alike = np.r_[False, (own[1:] == own[:-1]) & (own[1:] >= 0), False]
        edges = np.flatnonzero(np.diff(alike.astype(np.int8))).reshape(-1, 2)
        if not edges.size:
            break
        first, last = edges.T
        found.append(np.stack([first, last - first + 1, np.full(first.size, column + 1)]))
    return _Shared(*np.concatenate([np.empty((3, 0), np.int64), *found], axis=1))
