"""Steps that the host takes one by one: rows through the model, then a token for each sample."""

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.batch import Batch, Children
from hydragen_tree.branch.drafting import Drafting, Drafts
from hydragen_tree.branch.drawing import draw
from hydragen_tree.branch.freezing import Freezing
from hydragen_tree.branch.host_drafts import HostDrafts
from hydragen_tree.branch.prefill import forward
from hydragen_tree.branch.stepper import Admitted, Ended, Ends, Progress, Waiting, parked
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.states import NO_STATE
from hydragen_tree.settings import SamplingSettings


class HostStepper:
    """One step at a time: where nothing is captured, the host has to start each launch anyway.

    Args:
        batch: the rows; empty.
        model: the adapted model.
        cache: where tails are.
        table: where segments are.
        freezing: makes segments of tails that are shared.
        settings: how to draw.
        max_rows: rows of the batch at the most.
        ends: decides when samples end.
        drafting: proposes tokens; None: a step draws one token of each sample.
    """

    is_ahead = False

    def __init__(
        self,
        batch: Batch,
        model: TreeModel,
        cache: KVCache,
        table: SegmentTable,
        freezing: Freezing,
        settings: SamplingSettings,
        max_rows: int,
        ends: Ends,
        drafting: Drafting | None = None,
    ) -> None:
        self._batch, self._model, self._cache, self._table = batch, model, cache, table
        self._freezing, self._settings = freezing, settings
        self._max_rows, self._ends = max_rows, ends
        self._drafts = None
        if drafting is not None:
            greedy = settings.temperature == 0.0
            self._drafts = HostDrafts(drafting, batch, cache, ends, greedy=greedy)
        self._fresh: dict[int, Tensor] = {}  # leaf to logits, until they are drawn from

    @property
    def max_tokens(self) -> int:
        """See `Stepper`."""
        return self._batch.max_tokens

    @property
    def n_rows(self) -> int:
        """See `Stepper`."""
        return self._batch.size

    @property
    def n_samples(self) -> int:
        """See `Stepper`."""
        return self._batch.samples.size

    @property
    def max_samples(self) -> int:
        """See `Stepper`: what finds no row when it forks is put back then."""
        return sys.maxsize

    @property
    def segments(self) -> Int32:
        """See `Stepper`."""
        return self._batch.segment

    @property
    def spare_pages(self) -> int:
        """See `Stepper`."""
        return self._cache.free_pages - self._batch.size

    def live(self) -> tuple[Int32, Int32]:
        """See `Stepper`."""
        batch = self._batch
        rows = np.arange(batch.size) if self._settings.temperature == 0.0 else batch.row_of
        return batch.leaf[rows], batch.n_drawn[rows]

    @property
    def lacks_pages(self) -> bool:
        """See `Stepper`."""
        return self._batch.pages_due(self._cache.page_tokens).size > self._cache.free_pages

    def admit(self, new: list[Admitted]) -> None:
        """See `Stepper`."""
        for admitted in new:
            branch = admitted.branch
            stop = self._ends.state(int(branch.samples[0]), branch.drawn)
            self._batch.admit(admitted, stop)
            if admitted.logits is not None:
                self._fresh[branch.leaf] = admitted.logits
        self._batch.order(self._table)

    def launch(self) -> None:
        """See `Stepper`: nothing, the host takes its steps itself."""

    def step(self) -> Progress:
        """See `Stepper`: one token of every sample, and drafts before it."""
        batch = self._batch
        if self.lacks_pages:
            return parked(self._park())
        samples, drafts = batch.samples, None
        if self._drafts is not None:
            drafts = self._drafts.propose()
        rows, n_drafts = batch.size, 0 if drafts is None else int(drafts.counts.sum())
        drawn = self._draw(self._logits(drafts), drafts)
        last, n_accepted = np.zeros(samples.size, np.int64), 0
        if self._drafts is not None and drafts is not None:
            n_accepted = self._drafts.settle(drawn, drafts)
            last = np.count_nonzero(drawn.tokens >= 0, axis=0) - 1
        children = batch.children(drawn.tokens[last, np.arange(samples.size)])
        if self._drafts is not None:
            self._drafts.follow(children)
        stops = self._ends.advance(batch.stops[children.parent], children.token)
        ended, alive = self._ended(children, stops)
        surplus = self._set_aside(children, alive)
        self._freezing.freeze(children, alive)
        batch.grow(children, alive, stops, self._cache)
        counts = n_drafts, n_accepted
        return Progress(samples, drawn, 1, rows + n_accepted, ended, surplus, counts)

    def _park(self) -> list[Waiting]:
        """Makes room for the next token of other rows: the last ones leave.

        A single row leaves too: others' segments are in its way, and go before it returns.
        """
        size = self._batch.size
        return self._batch.park(np.arange(size - max(1, size // 8), size), self._cache)

    def _ended(
        self, children: Children, stops: NDArray[np.int64]
    ) -> tuple[list[Ended], NDArray[np.bool_]]:
        """The samples that end in their last token, and the children that go on."""
        batch, ended = self._batch, []
        firsts = batch.samples[np.unique(children.of_sample, return_index=True)[1]]
        is_full = batch.n_drawn[children.parent] + 1 >= batch.max_tokens
        alive = np.ones(is_full.size, np.bool_)
        for child in np.flatnonzero(is_full | (stops < 0)).tolist():
            history = batch.history(child, children)
            if is_full[child] or self._ends.has_ended(int(firsts[child]), history):
                alive[child] = False
                leaf = int(batch.leaf[children.parent[child]])
                ended.append(Ended(leaf, batch.samples[children.of_sample == child], history))
        return ended, alive

    def _set_aside(self, children: Children, alive: NDArray[np.bool_]) -> list[Waiting]:
        """Takes children beyond the batch's rows and pages out of `alive`; they have to wait.

        Args:
            children: of the batch, about to take its place.
            alive: `[children]`, which of them go on; changed in place.
        """
        batch = self._batch
        living = np.flatnonzero(alive)
        need = batch.copies_needed(children, self._cache.page_tokens)
        over = max(living.size - self._max_rows, need - self._cache.free_pages, 0)
        over = min(over, living.size - 1)
        surplus = []
        for child in living[living.size - over :].tolist():
            samples = batch.samples[children.of_sample == child]
            leaf = int(batch.leaf[children.parent[child]])
            surplus.append(Waiting(leaf, batch.history(child, children), samples))
            alive[child] = False
        return surplus

    def _draw(self, logits: Tensor, drafts: Drafts | None) -> Drawn[NDArray[Any]]:
        """What samples draw, `[1 + drafts, samples]`; the token -1 where a row has no more drafts.

        Args:
            logits: `[rows and drafts, vocabulary]`, those of a row behind each other.
            drafts: of the rows.
        """
        batch, keys = self._batch, self._ends.keys[self._batch.samples]
        per_row = np.ones(batch.size, np.int64) if drafts is None else 1 + drafts.counts
        per_sample = per_row[batch.row_of]
        sample = np.repeat(np.arange(keys.size), per_sample)
        place = np.arange(sample.size) - (per_sample.cumsum() - per_sample)[sample]
        row = (per_row.cumsum() - per_row)[batch.row_of][sample] + place
        order = np.argsort(row, kind="stable")
        sample, place = sample[order], place[order]
        drawn = draw(
            logits,
            row[order].astype(np.int32),
            keys[sample],
            batch.n_drawn[batch.row_of][sample] + place,
            self._settings,
        )
        size = int(per_row.max()), keys.size
        parts = Drawn(np.full(size, -1, np.int64), np.zeros(size), np.zeros(size))
        for whole, part in zip(parts, drawn, strict=True):
            whole[place, sample] = part
        return parts

    def _logits(self, drafts: Drafts | None) -> Tensor:
        """Logits of all rows and drafts: kept ones for rows that have drawn nothing, else a step's.

        A row's drafts stand behind it.
        """
        batch = self._batch
        batch.take_pages(self._cache, None if drafts is None else drafts.counts)
        old, new = np.flatnonzero(batch.n_drawn > 0), np.flatnonzero(batch.n_drawn == 0)
        parts = []
        if old.size:
            parts.append(self._decode(old, drafts))
        if new.size:
            parts.append(torch.stack([self._fresh[leaf] for leaf in batch.leaf[new].tolist()]))
            self._fresh.clear()
        batch.stored()
        if len(parts) == 1:
            return parts[0]
        own = old if drafts is None else np.repeat(old, 1 + drafts.counts[old])
        order = np.argsort(np.concatenate([own, new]), kind="stable")
        return torch.cat(parts)[torch.from_numpy(order)]

    def _decode(self, rows: NDArray[np.int64], drafts: Drafts | None) -> Tensor:
        """Logits `[rows and drafts, vocabulary]` behind the last token, and drafts, of rows."""
        model, cache, table, batch = self._model, self._cache, self._table, self._batch
        if drafts is None:
            return decode(model, cache, table, batch, rows)
        counts = drafts.counts[rows]
        own = np.repeat(rows, 1 + counts)
        place = np.arange(own.size) - np.repeat((1 + counts).cumsum() - 1 - counts, 1 + counts)
        tokens = np.where(place == 0, batch.last_token[own], drafts.tokens[own, place - 1])
        return decode_tokens(
            model,
            cache,
            table,
            tokens.astype(np.int32),
            (batch.start[own] + batch.n_drawn[own] - 1 + place).astype(np.int32),
            batch.segment[own],
            batch.pages[own],
            (batch.tail[own] + place).astype(np.int32),
        )


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
        batch.state[rows],
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
    states: Int32 | None = None,
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
        states: `[rows]` places of their running states, of a model that keeps some.
    """
    size, rows = cache.page_tokens, np.arange(tokens.size)
    slots = pages[rows, tails // size].astype(np.int64) * size + tails % size
    own = Tails(pages, tails + 1, size)  # with the same pages in all arenas
    above = table.items_in_arenas(segments, np.ones_like(tokens), len(cache.arenas))
    met = [(slots, Plan(tokens.size, items, own)) for items in above]
    places = np.full(tokens.size, NO_STATE, np.int32) if states is None else states
    runs = np.ones_like(tokens), places, places
    return forward(model, cache, tokens, positions, met, rows, runs, backend)
