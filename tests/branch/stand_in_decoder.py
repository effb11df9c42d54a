"""A decoder that steps the real batch by the plain torch reference, and checks what it reads.

Its tokens are a function of a sample and its place. What it has instead of keys and values says
whose they are, so that a page that is lost, or somebody else's, is seen where it is read. Running
states say what they have taken in.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hydragen_kernels import reference_drafts, reference_step
from hydragen_kernels.batch_state import BatchState, Ring, RowState
from hydragen_kernels.drafts import ROW_QUERIES
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.fork import fork_step
from hydragen_kernels.items import item_rows
from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.chunk import Chunk
from hydragen_tree.branch.decoder import IN_FLIGHT
from hydragen_tree.branch.device_batch import DeviceBatch
from hydragen_tree.branch.device_drafts import DeviceDrafts
from hydragen_tree.branch.device_states import DeviceStates
from hydragen_tree.branch.device_stepper import DeviceStepper
from hydragen_tree.branch.graphs import Choice, Graphs
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from tests.branch.stand_in_memory import PAGE, PROMPT, Memory, state_after
from tests.branch.stand_in_texts import Texts

RING_STEPS = 9


def row_queries(width: int) -> int:
    """Of a row at the most, in steps of so many for each."""
    return ROW_QUERIES if width > 1 else 1


class Ahead:
    """A decoder that steps when it is told to, and says so when it is waited for."""

    def __init__(
        self,
        texts: Texts,
        memory: Memory,
        cache: KVCache,
        residency: Residency,
        max_rows: int,
        max_tokens: int,
        *,
        has_drafts: bool = False,
    ) -> None:
        self.texts, self.memory, self.cache, self.residency = texts, memory, cache, residency
        self.drafts = None
        if has_drafts:
            self.drafts = DeviceDrafts(max_rows, RING_STEPS, torch.device("cpu"))
        self.accepted = 0
        self.samples, self.room, self.max_tokens = max_rows, padded_rows(max_rows), max_tokens
        max_pages = cache.pages_for(max_tokens) + 1
        device = torch.device("cpu")
        self.states = DeviceStates(cache.states, max_rows) if cache.states.is_kept else None
        self.batch = DeviceBatch(self.room, max_rows, max_pages, cache.n_pages, device, self.states)
        self.ring = Ring(
            torch.zeros(RING_STEPS, max_rows, dtype=torch.int32),
            torch.zeros(2, RING_STEPS, max_rows),
        )
        self.table = torch.from_numpy(texts.table)
        self.leaf_of: Callable[[int], int] = int  # of a sample
        self.segment_of: Callable[[int], int] = int  # of a group
        self.graphs = Graphs(lambda graph: lambda: graph, lambda rows, longest: 1)
        self.flying = 0

    def plan(
        self, items: Sequence[np.ndarray], edges: np.ndarray, rows: int, width: int = 1
    ) -> int:
        self.width = width
        self.items, self.edges = item_rows(items[0]), edges.tolist()
        self.planned = max(padded_rows(self.edges[-1]), rows)
        return self.planned

    def choose(self, rows: int, longest: int, forks: bool, width: int = 1) -> Choice:
        self.longest = longest
        return self.graphs.choose(rows, longest, forks, width)

    def launch(
        self, choice: Choice, steps: int, fresh: torch.Tensor | None = None
    ) -> Callable[[], Chunk]:
        assert self.flying < IN_FLIGHT
        self.graphs.get(choice.graph)
        rows, _, forks, width = choice.graph
        assert rows <= self.planned, "more rows than there are partials for"
        assert width == self.width, "the plan is for another width"
        if self.drafts is not None:
            self.drafts.expect(steps, width)
        self.flying += 1
        control = self.batch.control
        control.begun.zero_()
        control.stuck.zero_()
        if fresh is not None:
            self.open(fresh)
        for _ in range(steps):
            self.step(self.batch.state.first(rows), forks, self.longest, width)
        count, state = steps + (fresh is not None), self.batch.state
        ring = self.ring.tokens[:count], self.ring.logprobs[:, :count]
        parts = [*ring, state.sample_rows, state.rows, state.pages, state.control]
        if self.drafts is not None:
            parts += self.drafts.fetched(count, width)
            self.accepted = int(self.drafts.state.counts[2])
        chunk = Chunk.of([part.clone().numpy() for part in parts], row_queries(width))

        def wait() -> Chunk:
            self.flying -= 1
            return chunk

        return wait

    def drawn(self, places: torch.Tensor, width: int = 1) -> Drawn[torch.Tensor]:
        """The tokens of all samples at these places of theirs, and those behind."""
        numbers = self.texts.sample_of(self.batch.state.keys)
        at = (places.numpy()[:, None] + np.arange(width)).clip(0, self.max_tokens - 1)
        is_sample = self.batch.state.sample_rows.numpy() >= 0
        tokens = self.texts.tokens[np.where(is_sample, numbers, 0)[:, None], at].reshape(-1)
        return Drawn(torch.from_numpy(tokens), torch.zeros(at.size), torch.zeros(at.size))

    def open(self, fresh: torch.Tensor) -> None:
        batch = self.batch.state
        for slot, row in enumerate(batch.sample_rows.tolist()):
            index = int(batch.named.fresh[row])
            if row >= 0 and index >= 0:
                leaf = self.leaf_of(int(self.texts.sample_of(batch.keys)[slot]))
                segment = self.memory.trie.leaf_segments[leaf]
                assert fresh[index, 0] == segment, "drawn from another prompt's logits"
        self.batch.control.begun.add_(1)
        moves = batch.named.fresh >= 0
        drawn = self.recalled(self.drawn(torch.zeros(self.samples).long()))
        self.fork(batch, moves, batch.named.lengths, drawn, torch.zeros_like(moves))
        assert not self.batch.control.stuck.item(), "first tokens are lost"

    def step(self, batch: BatchState, forks: bool, longest: int, width: int) -> None:
        old, behind, proposals = batch.named.lengths.clone(), None, None
        if self.drafts is not None:
            proposals = reference_drafts.propose(
                batch, self.drafts.state, width * batch.rows.shape[1], self.max_tokens, PAGE
            )
            behind = proposals.counts if width > 1 else None
        inputs = reference_step.begin_step(batch, PAGE, behind)
        slots, lengths, counters = inputs
        moves = slots >= 0
        if moves.any():
            for row in moves.nonzero()[:, 0].tolist():
                tokens = [int(batch.named.tokens[row])]
                if proposals is not None and behind is not None:
                    tokens += proposals.tokens[row, : int(behind[row])].tolist()
                for place, token in enumerate(tokens, int(old[row])):
                    drawn = int(batch.named.drawn[row]) - 1 + place - int(old[row])
                    self.memory.write(batch.pages[row].tolist(), place, token, drawn)
                    assert place < longest
            fits = self.check(batch, lengths, longest)
            self.compute_states(batch, slots)
            assert fits or forks, "a group has more rows than its plan, and nobody would notice"
        places = counters[batch.sample_rows.clamp(0, len(slots) - 1)]
        drawn = self.recalled(self.drawn(places, row_queries(width)))
        if proposals is not None and self.drafts is not None:
            given = batch, inputs, proposals, drawn
            if width == 1:
                reference_drafts.learn(*given, self.drafts.state)
            else:
                rest = self.table, self.drafts.state, self.drafts.ring
                drawn, lengths = reference_drafts.settle(*given, *rest)
        if forks:
            self.fork(batch, moves, lengths, drawn, moves)
        else:
            table = self.table, self.max_tokens, self.ring
            reference_step.end_step(batch, slots, drawn, *table)
            if self.states is not None:
                self.states.moved(slots)

    def compute_states(self, batch: BatchState, slots: torch.Tensor) -> None:
        """Rows take in their last token; those that are ahead have done so."""
        if self.states is None:
            return
        buffer, trie = self.cache.states.buffer, self.memory.trie
        numbers = self.texts.sample_of(batch.keys)
        runs, keys = self.states.step(slots, keeps=True)
        _, source, target = runs.groups[0]
        assert source is not None
        nowhere = len(buffer) - 1
        before = buffer[source]
        for slot, row in enumerate(batch.sample_rows.tolist()):
            if row < 0:
                continue
            sample, n = int(numbers[slot]), int(batch.named.drawn[row])
            segment = int(trie.leaf_segments[self.leaf_of(sample)])
            tokens, is_ahead = self.texts.tokens[sample, :n].tolist(), bool(keys[row] < 0)
            found, after = before[row].tolist(), state_after(segment, tokens)
            assert found == (after if is_ahead else state_after(segment, tokens[:-1]))
            assert is_ahead == (int(target[row]) == nowhere)
            buffer[target[row]] = torch.tensor(after)
        is_live = torch.zeros(len(slots), dtype=torch.bool)
        is_live[batch.sample_rows[batch.sample_rows >= 0].long()] = True
        assert (target[~is_live] == nowhere).all()

    def recalled(self, drawn: Drawn[torch.Tensor]) -> Drawn[torch.Tensor]:
        """What samples draw; logits of rows that are ahead say nothing."""
        if self.states is None:
            return drawn
        rows = self.batch.state.sample_rows
        is_ahead = (rows >= 0) & self.states._is_ahead[rows.clamp(min=0)]
        wrong = torch.where(is_ahead, (drawn.tokens + 1) % self.table.shape[1], drawn.tokens)
        return self.states.recall(rows, drawn._replace(tokens=wrong))

    def fork(
        self,
        batch: BatchState,
        moves: torch.Tensor,
        lengths: torch.Tensor,
        drawn: Drawn[torch.Tensor],
        computed: torch.Tensor,
    ) -> None:
        rest = self.table, self.max_tokens, PAGE, self.batch.groups, self.ring
        copies, origins = fork_step(batch, moves, lengths, drawn, *rest)
        if self.states is not None:
            self.states.fork(origins, computed)
        pairs = zip(copies.source.tolist(), copies.target.tolist(), strict=True)
        for source, target in list(pairs)[: copies.number.item()]:
            self.memory.copy(source, target)

    def check(self, batch: BatchState, lengths: torch.Tensor, longest: int) -> bool:
        """Every row meets its own past; returns whether groups have room for their rows."""
        state, starts = self.batch.state, self.batch.groups.starts
        assert int(lengths.max()) <= longest
        counts = starts.diff()[: len(self.edges) - 1].tolist()
        room = np.diff(self.edges).tolist()
        fits = all(count <= most for count, most in zip(counts, room, strict=True))
        trie = self.memory.trie
        numbers = self.texts.sample_of(state.keys)
        for slot, row in enumerate(state.sample_rows.tolist()):
            if row < 0:
                continue
            sample, n = int(numbers[slot]), int(batch.named.drawn[row])
            named = RowState(*batch.rows[:, row].tolist())
            assert named.stops >= 0, "a sample's row is dead"
            assert named.fresh < 0, "a row steps before it has drawn its first token"
            leaf = self.leaf_of(sample)
            assert named.positions == trie.end(int(trie.leaf_segments[leaf])) + n - 1
            start, path = trie.end(int(trie.leaf_segments[leaf])), self.path(named.groups)
            past = [self.memory.slots[one] for one in path]
            past += self.memory.read(batch.pages[row].tolist(), int(lengths[row]))
            places = [*range(PROMPT, PROMPT + start), *range(n)]
            tokens = [*trie.leaf_tokens(leaf).tolist(), *self.texts.tokens[sample, :n].tolist()]
            assert past == list(zip(places, tokens, strict=True)), "another's past"
            if (
                not fits
            ):  # nothing is drawn where a group has outgrown its room: `fork_step` sees to it
                continue
            rank = int(torch.bucketize(torch.tensor(row), starts[1:], right=True))
            place = self.edges[rank] + row - int(starts[rank])
            met = [
                slot
                for item in self.items
                if item.query_start <= place < item.query_stop
                for slot in range(item.slot_start, item.slot_stop)
            ]
            assert sorted(met) == sorted(path), "a row meets other segments than its own"
        return fits

    def path(self, group: int) -> list[int]:
        """Slots of all that is above a group's rows, in order."""
        table, path, cut = self.residency.table, [], 0
        segment = self.segment_of(group)
        while segment >= 0:
            first, size = int(table.slot[segment]), int(table.n_tokens[segment])
            assert table.n_computed[segment] == size, "not computed yet"
            path = [*range(first, first + size - cut), *path]
            segment, cut = int(table.parent[segment]), int(table.lead[segment])
        return path


def pages_balance(stepper: DeviceStepper, cache: KVCache, residency: Residency) -> None:
    """Each page in use is a segment's, or waits in the queue, or may be in a table; once."""
    users, queue, table = np.zeros(cache.n_pages, int), stepper._pages, residency.table
    for segment in np.flatnonzero(table.slot[: table.size] >= 0).tolist():
        first = int(table.slot[segment])
        users[first // PAGE : cache.pages_for(first + int(table.n_tokens[segment]))] += 1
    waiting = queue._order[np.arange(queue._taken, queue._given) % queue._order.size]
    np.add.at(users, waiting, 1)
    users += queue._in_tables
    for _, pages in queue._admitted:
        np.add.at(users, pages, 1)
    assert users.tolist() == cache.arenas[0].users.tolist(), "pages lost, or shared by mistake"
    if cache.states.is_kept:
        held = [one.state for one, _ in stepper._new] + table.state[: table.size].tolist()
        used = np.flatnonzero(cache.states._is_used).tolist()
        assert sorted(place for place in held if place >= 0) == used, "states lost, or shared"
