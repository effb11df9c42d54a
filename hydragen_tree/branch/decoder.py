"""Decode steps without host work: CUDA graphs over fixed buffers, several steps at a time.

One step sends the last token of every row through the model, adds its key and value to the row's
tail, draws the next token of every sample, and makes of the rows those that follow: rows fork,
samples end, pages are taken from a queue, all on the device. Everything it reads lies in buffers of
fixed place. So a step is captured once for each number of rows, rounded up, and replayed for any
tree; rows beyond the real ones do nothing and own nothing.

What was drawn collects in a ring on the device and leaves it a chunk at a time, together with what
the batch has become, while the next chunk runs.

Without CUDA the same steps run uncaptured, under Triton's interpreter: so they are tested.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import BatchState, Ring, StepInputs
from hydragen_kernels.choose import choose
from hydragen_kernels.copy import copy_pages
from hydragen_kernels.draft_queries import Queries, draws
from hydragen_kernels.drafts import MOST_ROWS, ROW_QUERIES, Proposals
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.fork import fork_step
from hydragen_kernels.settle import learn, settle
from hydragen_kernels.step import begin_step, end_step
from hydragen_tree.attention.fused import DeviceTails
from hydragen_tree.attention.heads import Heads
from hydragen_tree.branch.budget import most_queries, padded_rows
from hydragen_tree.branch.chunk import CHUNK_STEPS, Chunk
from hydragen_tree.branch.device_batch import DeviceBatch
from hydragen_tree.branch.device_drafts import DeviceDrafts
from hydragen_tree.branch.device_states import DeviceStates
from hydragen_tree.branch.graphs import Choice, Graph, Graphs
from hydragen_tree.branch.recording import Recorder
from hydragen_tree.branch.step_plans import StepPlans
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.step import Memory
from hydragen_tree.settings import SamplingSettings

IN_FLIGHT = 2  # chunks on the device at a time: one running, one behind it
_RING_STEPS = CHUNK_STEPS + 1  # with the one that draws from prompts' logits


class Decoder:
    """Fixed buffers of a batch, and the graphs that step it.

    Args:
        model: the adapted model.
        cache: the arena; its pages hold the tails.
        heads: the model's attention.
        settings: how to draw.
        stops: `[states, vocabulary]` int16 or int32, what each token does to each state of the stop
            strings; negative: it ends its sample.
        max_rows: rows, and samples, of the batch at the most.
        max_levels: segments on a row's path at the most, frozen tails included.
        has_drafts: steps may take drafts along, and a table learns what has followed what.

    Attributes:
        batch: the batch on the device.
        drafts: that table; None: there is none.
        samples: room for them.
    """

    def __init__(
        self,
        model: TreeModel,
        cache: KVCache,
        heads: Heads,
        settings: SamplingSettings,
        stops: NDArray[np.int16] | Int32,
        max_rows: int,
        max_levels: int,
        *,
        has_drafts: bool = False,
    ) -> None:
        self.model, self.cache, self.heads, self.settings = model, cache, heads, settings
        device, self.room = heads.device, padded_rows(max_rows)
        self.samples = max_rows
        max_pages = cache.pages_for(settings.max_tokens) + 1
        states = DeviceStates(cache.states, max_rows) if cache.states.is_kept else None
        self.batch = DeviceBatch(self.room, max_rows, max_pages, cache.n_pages, device, states)
        self._stops = torch.from_numpy(stops).to(device)
        self._ring = Ring(
            torch.zeros(_RING_STEPS, max_rows, dtype=torch.int32, device=device),
            torch.zeros(2, _RING_STEPS, max_rows, device=device),
        )
        self.drafts = DeviceDrafts(max_rows, _RING_STEPS, device) if has_drafts else None
        self._queries = most_queries(max_rows, has_drafts)  # room for them
        self._width = 1  # of the plan
        # ranks of rows may have more drafts each than all of them together
        planned = ROW_QUERIES * min(self.room, MOST_ROWS) if has_drafts else 0
        sizes = self._queries, max(self._queries, planned), max_levels
        self._plans = StepPlans(heads, *sizes, len(cache.arenas))
        self._graphs = Graphs(self._capture, self._splits)
        self._recorder = Recorder(device) if device.type == "cuda" else None

    def plan(self, items: Sequence[Int32], edges: Int32, rows: int, width: int = 1) -> int:
        """Replaces what is attended to.

        Args:
            items: as `SegmentTable.items_in_arenas` has them, of the rows each group may have.
            edges: `[ranks + 1]` where groups begin among these rows, and the last one's end.
            rows: rows that there may be.
            width: queries for each row that there may be.

        Returns:
            Rows that steps may now be for at the most.
        """
        n, self._width = int(edges[-1]), width
        most = padded_rows(max(n, rows))
        if not self._plans.load(items, edges, most, width):
            self._graphs.clear()  # they know the old tables' place
            if self._recorder is not None:
                self._recorder.begin_anew()
        return most

    def choose(self, rows: int, longest: int, forks: bool, width: int = 1) -> Choice:
        """The graph to take for so many rows; `plan` has to be for as many as it has, as wide.

        Args:
            rows: that there may be.
            longest: tokens that any tail may have after the chunk.
            forks: rows may carry several samples.
            width: queries for each row.
        """
        # by measured times, which are each rank's own
        return self.model.ranks.agree(lambda: self._graphs.choose(rows, longest, forks, width))

    @torch.inference_mode()
    def launch(
        self, choice: Choice, steps: int, fresh: Tensor | None = None
    ) -> Callable[[], Chunk]:
        """Starts up to `CHUNK_STEPS` steps; returns what waits for what they have drawn.

        At most `IN_FLIGHT` chunks may be on the way.

        Args:
            choice: the graph; with more rows than it is for, nothing moves.
            steps: how many.
            fresh: `[prompts, vocabulary]` logits from which rows draw their first tokens before.

        Raises:
            ValueError: more steps than a chunk has, or less than none.
        """
        if not 0 <= steps <= CHUNK_STEPS:
            raise ValueError(f"steps: expected 0 to {CHUNK_STEPS}, got {steps}")
        control = self.batch.control
        control.begun.zero_()
        control.stuck.zero_()
        width = choice.graph.width
        if self.drafts is not None:
            self.drafts.expect(steps, width)
        if fresh is not None:
            self._open(fresh)
        started = None
        if steps:
            step = self._graphs.get(choice.graph)
            started = self._now()
            self._place(choice.graph)
            for _ in range(steps):
                step()
        note = partial(self._graphs.took, choice, steps)
        return self._receive(steps + (fresh is not None), choice.graph.width, started, note)

    @torch.inference_mode()
    def logits(self, rows: int) -> Tensor:
        """One step that draws nothing: logits `[rows, vocabulary]`, for checks."""
        self.batch.control.stuck.zero_()
        longest = int(self.batch.state.named.lengths.max()) + 1
        graph = self._graphs.tight(rows, longest, forks=False, width=self._width)
        self._place(graph)
        _, proposals, logits = self._forward(graph, keeps=False)
        if graph.width == 1 or proposals is None:
            return logits[:rows]
        return logits[proposals.firsts[:rows].long()]

    def prepare(self, rows: int, longest: int, forks: bool = False) -> None:
        """Captures ahead what steps of so many rows take until tails hold so many tokens."""
        for graph in {self._graphs.tight(rows, length, forks) for length in range(1, longest + 1)}:
            self._graphs.get(graph)

    # -- the step ----------------------------------------------------------------------------

    def _splits(self, rows: int, longest: int) -> int:
        """Programs that share a tail: a power of two, so that there are few graphs."""
        return 1 << (self.heads.splits(rows, longest).bit_length() - 1)

    @torch.inference_mode()
    def _capture(self, made_for: Graph) -> Callable[[], object]:
        """The captured step."""
        if self._recorder is None:
            return torch.inference_mode()(lambda: self._body(made_for))
        self._place(made_for)
        # The run that compiles kernels must change nothing: as if there were too many rows.
        control, saved = self.batch.state.control, self.batch.state.control.clone()
        self.batch.control.rows.fill_(1 << 40)
        self._body(made_for)
        control.copy_(saved)
        return self._recorder.record(lambda: self._body(made_for))

    def _body(self, graph: Graph) -> None:
        """One step; what a graph captures."""
        batch, states = self.batch.state.first(graph.rows), self.batch.states
        inputs, proposals, logits = self._forward(graph, keeps=True)
        drawn, lengths = self._draw(batch, inputs, proposals, logits, graph.width)
        if graph.forks:
            moves = inputs.slots >= 0
            self._fork(batch, moves, lengths, drawn, computed=moves)
            self._place(graph)
        else:
            max_tokens = self.settings.max_tokens
            end_step(batch, inputs.slots, drawn, self._stops, max_tokens, self._ring)
            if states is not None:
                states.moved(inputs.slots)

    def _forward(self, graph: Graph, *, keeps: bool) -> tuple[StepInputs, Proposals | None, Tensor]:
        """The model's part of a step: where tokens went, drafts, logits `[queries, vocabulary]`.

        Args:
            graph: what the step is for.
            keeps: rows keep the running states that it makes.
        """
        batch, size = self.batch.state.first(graph.rows), self.cache.page_tokens
        if self.drafts is None:
            inputs, proposals = begin_step(batch, size), None
            asked = Queries.without_drafts(batch, inputs)
        else:
            limits = size, self.settings.max_tokens
            inputs, proposals, asked = self.drafts.begin(batch, graph.width, *limits)
            if graph.width > 1:
                firsts = proposals.firsts[self.batch.groups.starts.clamp(max=graph.rows)]
                self._plans.place(firsts, graph.rows * graph.width)
        tails, n = DeviceTails(asked.pages, asked.lengths, size, graph.splits), len(asked.slots)
        slots, runs = asked.slots, None
        if self.batch.states is not None:
            runs, slots = self.batch.states.step(slots, keeps)
        memories = [Memory(slots, attend) for attend in self._plans.attends(n, tails)]
        logits = self.model.forward(
            asked.tokens, asked.positions, memories, None, self.cache, runs, are_tails=True
        )
        return inputs, proposals, logits

    def _draw(
        self,
        batch: BatchState,
        inputs: StepInputs,
        proposals: Proposals | None,
        logits: Tensor,
        width: int,
    ) -> tuple[Drawn[Tensor], Tensor]:
        """The step's last token of each sample, and how long tails are before it is in them."""
        if width == 1:
            of_sample = inputs.counters[batch.sample_rows.clamp(0, len(inputs.counters) - 1)]
            drawn = self._choose(logits, batch.sample_rows, batch.keys, of_sample)
            if proposals is not None and self.drafts is not None:
                learn(batch, inputs, proposals, drawn, self.drafts.state)
            return drawn, inputs.lengths
        assert proposals is not None and self.drafts is not None  # noqa: PT018
        drawn = self._choose(logits, *draws(batch, proposals))
        rest = self._stops, self.drafts.state, self.drafts.ring
        return settle(batch, inputs, proposals, drawn, *rest)

    def _open(self, fresh: Tensor) -> None:
        """Draws first tokens from prompts' logits; rows that have drawn stay as they are."""
        batch = self.batch.state
        rows = batch.sample_rows.clamp(min=0)
        source = torch.where(batch.sample_rows >= 0, batch.named.fresh[rows], -1).int()
        drawn = self._choose(fresh, source, batch.keys, torch.zeros_like(source))
        self.batch.control.begun.add_(1)
        moves = batch.named.fresh >= 0
        nobody = torch.zeros_like(moves)
        self._fork(batch, moves, batch.named.lengths, drawn, computed=nobody)

    def _place(self, graph: Graph) -> None:
        """Moves the plan to where the first rows are now; a step with drafts does so itself."""
        if graph.width == 1:
            self._plans.place(self.batch.groups.starts, graph.rows)

    def _choose(
        self, logits: Tensor, rows: Tensor, keys: Tensor, counters: Tensor
    ) -> Drawn[Tensor]:
        settings, states = self.settings, self.batch.states
        drawn = choose(
            logits,
            rows,
            keys,
            counters,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
        return drawn if states is None else states.recall(self.batch.state.sample_rows, drawn)

    def _fork(
        self,
        batch: BatchState,
        moves: Tensor,
        lengths: Tensor,
        drawn: Drawn[Tensor],
        *,
        computed: Tensor,
    ) -> None:
        """Replaces rows by their children; `computed` of them went through the model just now."""
        cache = self.cache
        copies, origins = fork_step(
            batch,
            moves,
            lengths,
            drawn,
            self._stops,
            self.settings.max_tokens,
            cache.page_tokens,
            self.batch.groups,
            self._ring,
        )
        for arena in cache.arenas:
            copy_pages(*arena.of_tails, *copies, cache.page_tokens)
        if self.batch.states is not None:
            self.batch.states.fork(origins, computed)

    # -- buffers -----------------------------------------------------------------------------

    def _now(self) -> torch.cuda.Event | None:
        """When the device will have come to what follows."""
        if self._recorder is None:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _receive(
        self,
        steps: int,
        width: int,
        started: torch.cuda.Event | None,
        note: Callable[[float], None],
    ) -> Callable[[], Chunk]:
        """Fetches the ring and the batch; the returned call waits until they are there.

        Args:
            steps: lines of the ring.
            width: of the steps.
            started: before the first captured step; None: there was none.
            note: told the seconds since then.
        """
        state, most = self.batch.state, ROW_QUERIES if width > 1 else 1
        is_pinned = self._recorder is not None
        parts = [
            self._ring.tokens[:steps],
            self._ring.logprobs[:, :steps],
            state.sample_rows,
            state.rows,
            state.pages,
            state.control,
        ]
        if self.drafts is not None:
            parts += self.drafts.fetched(steps, width)
        here = [
            torch.empty(x.shape, dtype=x.dtype, pin_memory=is_pinned).copy_(x, non_blocking=True)
            for x in parts
        ]
        done = self._now()

        def wait() -> Chunk:
            if done is not None:
                done.synchronize()
                if started is not None:
                    note(started.elapsed_time(done) / 1000.0)
            return Chunk.of([x.numpy() for x in here], most)

        return wait
