"""Steps that the host takes one by one: rows through the model, then a token for each sample."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.batch import Batch
from hydragen_tree.branch.drawing import draw
from hydragen_tree.branch.prefill import forward
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.settings import SamplingSettings


class Stepper(Protocol):
    """Draws the next token of every sample of a batch."""

    @property
    def is_ahead(self) -> bool:
        """Whether tokens are drawn already that the batch has not taken in.

        While it is, rows may only leave the batch: none is admitted, and none is parked.
        """
        ...

    @property
    def took_ahead(self) -> bool:
        """Whether the last step had been taken by a device, ahead of the host."""
        ...

    def step(self, go_on: bool) -> Drawn[NDArray[Any]]:
        """The next token of every sample of the batch, whose rows have pages for it.

        Args:
            go_on: more steps will follow, so that some may be taken ahead; if not, only what has
                been begun is brought to its end. False only where `is_ahead`.
        """
        ...

    def settle(self) -> None:
        """Throws away what was drawn ahead: the batch has no rows left."""
        ...


class HostStepper:
    """One step at a time: where nothing is captured, the host has to start each launch anyway.

    Args:
        batch: the rows.
        model: the adapted model.
        cache: where tails are.
        table: where segments are.
        fresh: leaf to logits of the token after its prompt; emptied once they are drawn from.
        keys: `[samples of the run]` uint64 stream keys.
        settings: how to draw.
    """

    def __init__(
        self,
        batch: Batch,
        model: TreeModel,
        cache: KVCache,
        table: SegmentTable,
        fresh: dict[int, Tensor],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
    ) -> None:
        self._batch, self._model, self._cache, self._table = batch, model, cache, table
        self._fresh, self._keys, self._settings = fresh, keys, settings

    @property
    def is_ahead(self) -> bool:
        """Never."""
        return False

    @property
    def took_ahead(self) -> bool:
        """Never."""
        return False

    def step(self, go_on: bool) -> Drawn[NDArray[Any]]:
        """See `Stepper.step`."""
        batch = self._batch
        logits = self._logits()
        positions = batch.n_drawn[batch.row_of].astype(np.int64)
        keys = self._keys[batch.samples]
        return draw(logits, batch.row_of, keys, positions, self._settings)

    def settle(self) -> None:
        """Nothing was drawn ahead."""

    def _logits(self) -> Tensor:
        """Logits of all rows: kept ones for those that have drawn nothing, else one step."""
        batch = self._batch
        batch.take_pages(self._cache)
        old, new = np.flatnonzero(batch.n_drawn > 0), np.flatnonzero(batch.n_drawn == 0)
        parts = []
        if old.size:
            parts.append(self._decode(old))
        if new.size:
            parts.append(torch.stack([self._fresh[leaf] for leaf in batch.leaf[new].tolist()]))
            self._fresh.clear()
        batch.stored()
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate([old, new])))]

    def _decode(self, rows: NDArray[np.int64]) -> Tensor:
        """Logits `[rows, vocabulary]` after the last token of these rows."""
        return decode(self._model, self._cache, self._table, self._batch, rows)


def decode(
    model: TreeModel,
    cache: KVCache,
    table: SegmentTable,
    batch: Batch,
    rows: NDArray[np.int64],
    backend: str | None = None,
) -> Tensor:
    """The last token of some rows of a batch through the model; their keys go into the tails.

    Args:
        model: the adapted model.
        cache: where tails are.
        table: where segments are.
        batch: has drawn a token of each of these rows, and has a page for it.
        rows: their numbers, ascending.
        backend: of attention, where it is to be another than the model's.

    Returns:
        Logits `[rows, vocabulary]`.
    """
    position = batch.start[rows] + batch.n_drawn[rows] - 1
    return decode_tokens(
        model,
        cache,
        table,
        batch.drawn[rows, batch.n_drawn[rows] - 1],
        position,
        batch.segment[rows],
        batch.pages[rows],
        batch.tail[rows],
        backend,
    )


def decode_tokens(
    model: TreeModel,
    cache: KVCache,
    table: SegmentTable,
    tokens: Int32,
    positions: Int32,
    segments: Int32,
    pages: Int32,
    tails: Int32,
    backend: str | None = None,
) -> Tensor:
    """`decode` for rows that no batch holds.

    Args:
        model: the adapted model.
        cache: where tails are.
        table: where segments are.
        tokens: `[rows]` the last token drawn.
        positions: `[rows]` its position.
        segments: `[rows]` the segment each row hangs from, rows depth-first.
        pages: `[rows, max_pages]` with a page for this token.
        tails: `[rows]` tokens in the tail before this one.
        backend: of attention, where it is to be another than the model's.
    """
    size, rows = cache.page_tokens, np.arange(tokens.size)
    slots = pages[rows, tails // size].astype(np.int64) * size + tails % size
    items = table.path_items(segments, np.ones_like(tokens))
    plan = Plan(tokens.size, items, Tails(pages, tails + 1, size))
    return forward(model, cache, tokens, positions, slots, rows, plan, backend)
