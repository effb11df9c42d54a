"""Decode steps without host work: CUDA graphs over fixed buffers, several steps at a time.

One step sends the last token of every row through the model, adds its key and value to the row's
tail, draws the next token and moves the row on. All it reads lies in buffers of fixed place: the
rows' state, their pages, and the tiles of the plan. So a step is captured once for each number of
rows, rounded up, and replayed for any tree; rows beyond the real ones do nothing and own nothing.

Drawn tokens collect in a ring on the device and leave it a chunk at a time, on a stream of their
own, while the next chunk runs.

Without CUDA the same steps run uncaptured, under Triton's interpreter: so they are tested.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.choose import choose
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.items import item_table
from hydragen_kernels.segment import SegmentTiles
from hydragen_kernels.step import RowState, begin_step, end_step
from hydragen_tree.attention.fused import DeviceTails, FusedPlan
from hydragen_tree.attention.heads import Heads
from hydragen_tree.branch.budget import SPARE_SLOTS, padded_rows
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.settings import SamplingSettings

CHUNK_STEPS = 8
IN_FLIGHT = 2  # chunks on the device at a time: one running, one behind it
_RING_STEPS = CHUNK_STEPS * (IN_FLIGHT + 1)
_STATE_FIELDS = len(RowState._fields)
_SPLIT_BYTES = 64 << 20  # more such slots where rows are few: as many as these bytes hold


class Decoder:
    """Fixed buffers of a batch, and the graphs that step it.

    Args:
        model: the adapted model.
        cache: the arena; its pages hold the tails.
        heads: the model's attention.
        settings: how to draw.
        max_rows: rows of the batch at the most.
        max_pages: pages of a tail at the most.
        max_levels: segments on a row's path at the most.
    """

    def __init__(
        self,
        model: TreeModel,
        cache: KVCache,
        heads: Heads,
        settings: SamplingSettings,
        max_rows: int,
        max_pages: int,
        max_levels: int,
    ) -> None:
        self.model, self.cache, self.heads, self.settings = model, cache, heads, settings
        device, room = heads.device, padded_rows(max_rows)
        self._state = torch.zeros(_STATE_FIELDS, room, dtype=torch.int64, device=device)
        self._pages = torch.zeros(room, max_pages, dtype=torch.int32, device=device)
        self._row_numbers = torch.arange(room, dtype=torch.int32, device=device)
        self._ring_tokens = torch.zeros(_RING_STEPS, room, dtype=torch.int32, device=device)
        self._ring_logprobs = torch.zeros(2, _RING_STEPS, room, device=device)
        self._begun = torch.zeros(1, dtype=torch.int64, device=device)  # steps of the ring
        self._next_chunk = 0
        nothing = heads.schedule(item_table(), room, None)
        self._tables = SegmentTiles(nothing, device, capacity=1 << 14)
        partials = max((max_levels + SPARE_SLOTS) * room * heads.partial_bytes, _SPLIT_BYTES)
        self._partials = torch.empty(partials // 4, dtype=torch.float32, device=device)
        self._items = item_table()
        self._longest = 0
        self._logits: Tensor | None = None  # of the steps that draw nothing; made by the first
        self._graphs: dict[tuple[int, int, bool], Callable[[], object]] = {}
        self._captured = device.type == "cuda"
        if self._captured:
            self._pool = torch.cuda.graph_pool_handle()
            self._transfers = torch.cuda.Stream(device)
        self.rows = 0

    @property
    def padded(self) -> int:
        """Rows of the graph in use."""
        return padded_rows(self.rows)

    def load(
        self,
        tokens: Int32,
        positions: Int32,
        lengths: Int32,
        limits: Int32,
        drawn: Int32,
        keys: NDArray[np.int64],
        pages: Int32,
        items: Int32,
    ) -> None:
        """Replaces the batch.

        Args:
            tokens: `[rows]` the last token drawn.
            positions: `[rows]` its position.
            lengths: `[rows]` tokens of the tail in the cache, without this one.
            limits: `[rows]` the length at which the row stops.
            drawn: `[rows]` tokens drawn so far.
            keys: `[rows]` stream keys of the rows' random numbers.
            pages: `[rows, max_pages]`, -1 past a row's pages.
            items: the plan, as `SegmentTable.path_items` gives it for these rows.
        """
        self._resize(tokens.size, items)
        state = np.zeros((_STATE_FIELDS, self.padded), np.int64)
        # in the order of `RowState`
        state[:, : self.rows] = np.stack([tokens, positions, lengths, limits, drawn, keys])
        self._send(state, self._state[:, : self.padded])
        self.load_pages(pages)
        self._longest = int(lengths.max(initial=0))

    def load_pages(self, pages: Int32) -> None:
        """Replaces the rows' pages; a row that needs one it lacks, below 0, stands still."""
        self._send(pages, self._pages[: self.rows])

    def keep(self, rows: NDArray[np.int64], pages: Int32, items: Int32) -> None:
        """Keeps these rows of the batch, in this order, as far as the device has taken them."""
        index = torch.from_numpy(rows).to(self._state.device, non_blocking=True)
        kept = self._state.index_select(1, index)
        self._resize(rows.size, items)
        self._state[:, : self.padded].zero_()
        self._state[:, : self.rows].copy_(kept)
        self.load_pages(pages)

    def logits(self) -> Tensor:
        """One step that draws nothing: logits `[rows, vocabulary]`, overwritten by the next."""
        self._step(draws=False)()
        assert self._logits is not None
        return self._logits[: self.rows]

    def prepare(self, longest: int) -> None:
        """Captures ahead what steps of the present rows take until tails hold so many tokens."""
        for splits in sorted({self._splits(length) for length in range(1, longest + 1)}):
            self._graph(splits, draws=True)

    def launch(self, steps: int) -> Callable[[], Drawn[NDArray[Any]]]:
        """Starts up to `CHUNK_STEPS` steps; returns what waits for their tokens.

        At most `IN_FLIGHT` chunks may be on the way.

        Raises:
            ValueError: more steps than a chunk has, or none.
        """
        if not 0 < steps <= CHUNK_STEPS:
            raise ValueError(f"steps: expected 1 to {CHUNK_STEPS}, got {steps}")
        first = self._next_chunk * CHUNK_STEPS
        self._next_chunk = (self._next_chunk + 1) % (IN_FLIGHT + 1)
        self._longest += steps
        step = self._step(draws=True)
        self._begun.fill_(first)
        for _ in range(steps):
            step()
        ring = slice(first, first + steps), slice(0, self.rows)
        return self._receive(self._ring_tokens[ring], self._ring_logprobs[:, *ring])

    # -- the step ----------------------------------------------------------------------------

    def _step(self, draws: bool) -> Callable[[], object]:
        """The graph for the present number of rows; captured on first use."""
        return self._graph(self._splits(self._longest + 1), draws)

    def _splits(self, longest: int) -> int:
        """Programs that share a tail: a power of two, so that there are few graphs."""
        splits = self.heads.splits(self.padded, longest)
        return 1 << (splits.bit_length() - 1)

    def _graph(self, splits: int, draws: bool) -> Callable[[], object]:
        key = self.padded, splits, draws
        if key not in self._graphs:
            self._graphs[key] = self._capture(*key)
        return self._graphs[key]

    @torch.inference_mode()
    def _capture(self, rows: int, splits: int, draws: bool) -> Callable[[], object]:
        if not self._captured:
            return torch.inference_mode()(lambda: self._body(rows, splits, draws))
        saved = self._state.clone()
        # The run that compiles kernels must change nothing, and its draw go where nothing is on its
        # way to the host: of the ring's chunks the next is free.
        self._state.zero_()
        self._begun.fill_(self._next_chunk * CHUNK_STEPS)
        self._body(rows, splits, draws)
        self._state.copy_(saved)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=_capture_stream(self.heads.device)):
            self._body(rows, splits, draws)
        return graph.replay

    def _body(self, rows: int, splits: int, draws: bool) -> None:
        """One step of `rows` rows; what a graph captures."""
        state, pages = RowState(*self._state[:, :rows]), self._pages[:rows]
        size = self.cache.page_tokens
        slots, lengths, counters = begin_step(state, pages, size, self._begun)
        partials = self._partial_views(rows)
        plan = FusedPlan(self._tables, partials, DeviceTails(pages, lengths, size, splits))
        logits = self.model.forward(
            state.tokens, state.positions, slots, None, self.cache, plan.attend
        )
        if draws:
            settings = self.settings
            drawn = choose(
                logits,
                self._row_numbers[:rows],
                state.keys,
                counters,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                min_p=settings.min_p,
            )
            end_step(state, slots, drawn, self._begun, self._ring_tokens, self._ring_logprobs)
        else:
            if self._logits is None:
                self._logits = logits.new_empty(self._state.shape[1], logits.shape[1])
            self._logits[:rows].copy_(logits)

    # -- buffers -----------------------------------------------------------------------------

    def _partial_slots(self, rows: int) -> int:
        return self._partials.numel() * 4 // (rows * self.heads.partial_bytes)

    def _partial_views(self, rows: int) -> tuple[Tensor, Tensor]:
        """The partials' buffer, cut for `rows` rows; the same place whatever the plan."""
        heads, slots = self.heads, self._partial_slots(rows)
        size = slots * rows * heads.q_heads
        out = self._partials[: size * heads.head_dim].view(slots, rows, -1, heads.head_dim)
        lse = self._partials[size * heads.head_dim :][:size].view(slots, rows, -1)
        return out, lse

    def _resize(self, rows: int, items: Int32) -> None:
        """Makes the tables those of `items`, unless they are already."""
        if rows == self.rows and np.array_equal(items, self._items):
            return
        self.rows, self._items = rows, items
        schedule = self.heads.schedule(items, rows, self._partial_slots(self.padded))
        if len(schedule.tiles) > len(self._tables.tiles):
            self._graphs.clear()  # they know the old tables' place
            if self._captured:  # a pool that no graph uses any more cannot be used again
                self._pool = torch.cuda.graph_pool_handle()
            capacity = 2 * len(schedule.tiles)
            self._tables = SegmentTiles(schedule, self.heads.device, capacity, self._state.shape[1])
        else:
            self._tables.load(schedule)

    def _send(self, array: NDArray[np.int64] | Int32, target: Tensor) -> None:
        """Copies an array to the device behind what runs there."""
        source = torch.from_numpy(np.ascontiguousarray(array, dtype=_numpy_type(target)))
        if self._captured:
            source = source.pin_memory()
        target.copy_(source, non_blocking=True)

    def _receive(self, tokens: Tensor, logprobs: Tensor) -> Callable[[], Drawn[NDArray[Any]]]:
        """Fetches a part of the ring; the returned call waits until it is there."""
        if not self._captured:
            here = tokens.clone(), logprobs.clone()
            return lambda: Drawn(here[0].numpy(), *here[1].numpy())
        drawn = torch.cuda.current_stream().record_event()
        with torch.cuda.stream(self._transfers):
            self._transfers.wait_event(drawn)
            arrived = [
                torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
                for x in (tokens, logprobs)
            ]
            done = self._transfers.record_event()

        def wait() -> Drawn[NDArray[Any]]:
            done.synchronize()
            return Drawn(arrived[0].numpy(), *arrived[1].numpy())

        return wait


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """A device's stream for captures; torch's own is of the device a process first captured on."""
    return torch.cuda.Stream(device)


def _numpy_type(tensor: Tensor) -> type[np.generic]:
    return np.int64 if tensor.dtype == torch.int64 else np.int32
