"""Prefill: tokens that are given, not drawn, through the model into the cache.

They are the segments of prompts, and the tails of branches that come back into the batch. A pass
packs what belongs together, at most so many tokens: pieces of segments whose ancestors are there,
which see those whole and themselves causally, or pieces of tails.

A GPU takes passes behind the steps that it has been given: nothing here waits for it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.inputs import to_device
from hydragen_kernels.items import Item, item_columns, item_table
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.live_trie import LiveTrie
from hydragen_tree.branch.long_prompts import LongSegments
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.states import NO_STATE, Runs
from hydragen_tree.model.step import Memory
from hydragen_tree.trie.trie import Trie

_Piece = tuple[int, int, int]  # of a segment, its tokens start .. stop - 1
_Met = tuple[list[NDArray[np.int64]], list[Int32]]  # tokens' slots in an arena, and items there

TAIL_LEVELS = 8  # pages of tails that a full prefill pass may have; longer ones take more passes


class Prefill:
    """Computes segments and tails of one trie.

    Args:
        model: the adapted model.
        trie: prompts, after folding; those of a run, or more of them as they come.
        table: where segments lie; those to compute are placed.
        cache: where keys and values go.
        max_tokens: tokens of one pass at the most.
        key_group: keys that attention takes in together, see `Backend.key_group`. Where they are
            several, or tails hold latent vectors, those are computed as decode steps do it: pages
            are no segments.

    Attributes:
        max_tokens: as given.
        computed_tokens: tokens that went through the model, repeats counted.
        long_segments: those of prompts beyond the model's context; None: there are none.
    """

    def __init__(
        self,
        model: TreeModel,
        trie: Trie | LiveTrie,
        table: SegmentTable,
        cache: KVCache,
        max_tokens: int,
        key_group: int = 1,
    ) -> None:
        self._model, self._trie, self._table, self._cache = model, trie, table, cache
        self.max_tokens, self._key_group = max_tokens, key_group
        self.computed_tokens = 0
        self.long_segments: LongSegments | None = None

    def segments(self, segments: Sequence[int]) -> dict[int, Tensor]:
        """Computes placed segments to their end.

        Args:
            segments: their numbers; what is above them is computed, or among them.

        Returns:
            Logits `[vocabulary]` after each segment that ends a prompt.
        """
        return self.advance(segments, int(self._table.n_tokens[segments].sum()))

    def advance(self, segments: Sequence[int], tokens: int) -> dict[int, Tensor]:
        """Computes what placed segments lack, as far as so many tokens go.

        Args:
            segments: see `segments`; the first ones first.
            tokens: at the most.

        Returns:
            Logits `[vocabulary]` after each segment that ends a prompt and has come to its end.
        """
        logits = self._condense(segments)
        left = [number for number in segments if not self._is_computed(number)]
        while left and (pack := self._pack(left, min(tokens, self.max_tokens))):
            logits.update(self._compute(pack))
            tokens -= sum(stop - start for _, start, stop in pack)
            left = [number for number in left if not self._is_computed(number)]
        return logits

    def _condense(self, segments: Sequence[int]) -> dict[int, Tensor]:
        """Computes those of prompts beyond the model's context, whole; logits after each."""
        long = self.long_segments
        numbers = [] if long is None else [number for number in segments if long.has(number)]
        logits = {}
        for number in numbers:
            assert long is not None
            logits[number] = long.compute(number, self._table, self._cache)
            self.computed_tokens += long.tokens[number].size
        return logits

    def _is_computed(self, segment: int) -> bool:
        return bool(self._table.n_computed[segment] == self._table.n_tokens[segment])

    def _pack(self, segments: Sequence[int], room: int) -> list[_Piece]:
        """The pieces of one pass: none of them is above another."""
        pack: list[_Piece] = []
        for number in segments:
            if room <= 0:
                break
            parent, start = int(self._table.parent[number]), int(self._table.n_computed[number])
            if parent < 0 or self._is_computed(parent):
                stop = min(int(self._table.n_tokens[number]), start + room)
                pack.append((number, start, stop))
                room -= stop - start
        # depth-first: those below one segment meet it in one product
        return sorted(pack, key=lambda piece: int(self._table.order[piece[0]]))

    def _compute(self, pack: list[_Piece]) -> dict[int, Tensor]:
        """One pass; logits after segments that end a prompt and come to their end in it."""
        index = np.array([segment for segment, _, _ in pack], np.int32)
        counts = np.array([stop - start for _, start, stop in pack], np.int32)
        tokens, positions = [], []
        for number, start, stop in pack:
            segment = self._trie.segments[number]
            tokens.append(segment.tokens[start:stop])
            positions.append(segment.start + np.arange(start, stop))
            self._table.n_computed[number] = stop
        met = self._met(pack, index, counts)
        ends = [
            (number, int(last) - 1)
            for (number, _, _), last in zip(pack, np.cumsum(counts), strict=True)
            if self._trie.segments[number].ends_prompt and self._is_computed(number)
        ]
        above, states = self._table.parent[index], self._table.state[index]
        before = np.where(above >= 0, self._table.state[above], NO_STATE)
        begins = np.array([start == 0 for _, start, _ in pack])
        runs = counts, np.where(begins, before, states).astype(np.int32), states
        keep = [last for _, last in ends]
        out = self._forward(tokens, positions, met, keep, runs)
        for number, _, stop in pack:
            self._drop_unseen(number, stop)
        return {number: row for (number, _), row in zip(ends, out, strict=True)}

    def _met(self, pack: list[_Piece], segments: Int32, counts: Int32) -> list[_Met]:
        """Of each arena, slots of pieces' tokens, and items: what is above them, and themselves.

        Args:
            pack: the pieces.
            segments: `[pieces]` their segments.
            counts: `[pieces]` their tokens.
        """
        table = self._table
        above, firsts = self._above(table.parent[segments], counts), np.cumsum(counts) - counts
        met = []
        for items, (slots, gone) in zip(above, table.begins(segments), strict=False):
            own, at = [items], []
            columns = firsts.tolist(), slots.tolist(), gone.tolist()
            for (number, start, stop), first, slot, gap in zip(pack, *columns, strict=True):
                own.append(self._own_items(number, start, stop, first, slot, gap))
                at.append(slot - gap + np.arange(start, stop))
            met.append((at, own))
        return met

    def _above(self, segments: Int32, counts: Int32) -> list[Int32]:
        """Of each arena, items for groups of tokens that hang from segments."""
        return self._table.items_in_arenas(segments, counts, len(self._cache.arenas))

    def _own_items(
        self, number: int, start: int, stop: int, first: int, slot: int, gap: int
    ) -> Int32:
        """What a piece meets of its own segment.

        Args:
            number: of the segment.
            start: the piece's first token in it.
            stop: one past its last.
            first: its first query.
            slot: the segment's first slot.
            gap: tokens of the segment before that.
        """
        level, count = int(self._table.depth[number]), stop - start
        items = [Item(first, count, slot - gap + start, count, causal=1, level=level + 1)]
        if start:
            items.insert(0, Item(first, count, slot, start - gap, 0, level, gap))
        return item_table(items)

    def _drop_unseen(self, segment: int, stop: int) -> None:
        """Gives up keys of windowed layers that nobody sees behind the first `stop` tokens."""
        arena, table = self._cache.windowed, self._table
        if arena is None:
            return
        slot, gone = (int(x) for x in table.begins(segment)[1])
        size = self._cache.page_tokens
        unseen = max(stop - self._cache.window_tokens, 0) // size * size
        if unseen > gone:
            arena.release_run(slot, unseen - gone)
            table.n_dropped[segment] = unseen

    def tails(
        self,
        segments: Int32,
        tails: list[Int32],
        pages: Int32,
        starts: Int32,
        states: Int32,
    ) -> None:
        """Computes the tails of branches that come back into the batch.

        Args:
            segments: `[rows]` the segment each hangs from.
            tails: each row's tokens.
            pages: `[rows, max_pages]` pages taken for them.
            starts: `[rows]` position of each tail's first token.
            states: `[rows]` places of their running states, which are now those of the prompts.
        """
        if self._key_group > 1 or self._cache.latents is not None:
            self._tails_as_rows(segments, tails, pages, starts, states)
            return
        for pack in self._tail_packs([tail.size for tail in tails]):
            counts = np.array([stop - start for _, start, stop in pack], np.int32)
            hung = segments[[row for row, _, _ in pack]], counts
            items: list[Int32] = []
            tokens, positions, slots, first = [], [], [], 0
            for row, start, stop in pack:
                level = int(self._table.depth[segments[row]]) + 1
                items.append(self._tail_items(pages[row], first, start, stop, level))
                offsets = np.arange(start, stop)
                tokens.append(tails[row][start:stop])
                positions.append(starts[row] + offsets)
                slots.append(self._tail_slots(pages[row], offsets))
                first += stop - start
            own = states[[row for row, _, _ in pack]]
            # a tail's pages have the same numbers in all arenas
            met = [(slots, [above, *items]) for above in self._above(*hung)]
            self._forward(tokens, positions, met, [], (counts, own, own))

    def _tails_as_rows(
        self,
        segments: Int32,
        tails: list[Int32],
        pages: Int32,
        starts: Int32,
        states: Int32,
    ) -> None:
        """`tails`, each token a row of its own with the tail up to it: as decode steps have it."""
        sizes = np.array([tail.size for tail in tails])
        row = np.repeat(np.arange(sizes.size), sizes)
        offset = np.arange(row.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        tokens = np.concatenate(tails)
        size = self._cache.page_tokens
        slots = pages[row, offset // size].astype(np.int64) * size + offset % size
        for at in range(0, row.size, self.max_tokens):
            own = slice(at, at + self.max_tokens)
            of = row[own]
            above = self._above(segments[of], np.ones_like(segments[of]))
            lengths = (offset[own] + 1).astype(np.int32)
            sequences, counts = np.unique(of, return_counts=True)
            places = states[sequences]
            self._forward(
                [tokens[own]],
                [starts[of] + offset[own]],
                [([slots[own]], [items]) for items in above],
                [],
                (counts.astype(np.int32), places, places),
                Tails(pages[of], lengths, size),
            )

    def _tail_packs(self, sizes: list[int]) -> Iterator[list[tuple[int, int, int]]]:
        """Pieces (row, start, stop) of one pass each; they start with a page.

        Every page of a tail is a level of its own, so a pass is bounded by tokens times pages.
        """
        size = self._cache.page_tokens
        pack: list[tuple[int, int, int]] = []
        total, deepest = 0, 1
        for row, length in enumerate(sizes):
            start = 0
            while start < length:
                levels = max(deepest, self._cache.pages_for(length))
                room = self.max_tokens * TAIL_LEVELS // levels - total
                stop = min(length, start + max(size, room // size * size))
                if pack and (room < size or stop < length):
                    yield pack
                    pack, total, deepest = [], 0, 1
                    continue
                pack.append((row, start, stop))
                total, deepest, start = total + stop - start, levels, stop
        if pack:
            yield pack

    def _tail_items(self, pages: Int32, first: int, start: int, stop: int, level: int) -> Int32:
        """Items for tokens start .. stop - 1 of a tail, `start` being the first of a page.

        Earlier pages are met whole; each page is causal in itself, and whole to later tokens.
        """
        size = self._cache.page_tokens
        items = []
        for at in range(0, stop, size):
            slot, depth = int(pages[at // size]) * size, level + at // size
            if at < start:
                items.append(Item(first, stop - start, slot, size, causal=0, level=depth))
                continue
            here, inside = first + at - start, min(size, stop - at)
            items.append(Item(here, inside, slot, inside, causal=1, level=depth))
            if at + size < stop:
                later = stop - at - size
                items.append(Item(here + size, later, slot, size, causal=0, level=depth))
        return item_table(items)

    def _tail_slots(self, pages: Int32, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        size = self._cache.page_tokens
        return pages[offsets // size].astype(np.int64) * size + offsets % size

    def _forward(
        self,
        tokens: list[Int32],
        positions: list[NDArray[np.int64]],
        met: Sequence[_Met],
        keep: list[int],
        runs: tuple[Int32, Int32, Int32],
        tails: Tails | None = None,
    ) -> Tensor:
        packed = np.concatenate(tokens)
        self.computed_tokens += packed.size
        plans = [
            (np.concatenate(slots), Plan(packed.size, _by_level(items), tails))
            for slots, items in met
        ]
        kept, places = np.array(keep, np.int64), np.concatenate(positions)
        return forward(self._model, self._cache, packed, places, plans, kept, runs)


def _by_level(items: list[Int32]) -> Int32:
    """One table of several, levels ascending."""
    table = np.concatenate(items)
    return table[np.argsort(item_columns(table).level, kind="stable")]


def forward(
    model: TreeModel,
    cache: KVCache,
    tokens: Int32,
    positions: NDArray[np.int64] | Int32,
    met: Sequence[tuple[NDArray[np.int64], Plan]],
    keep: NDArray[np.int64],
    runs: tuple[Int32, Int32, Int32],
    backend: str | None = None,
) -> Tensor:
    """One pass of packed tokens, all of it described on the host; see `TreeModel.forward`.

    Args:
        model: the adapted model.
        cache: where keys, values and states are.
        tokens: `[tokens]`, those of one run behind those of another.
        positions: `[tokens]` of each in its own sequence.
        met: of each arena, slots `[tokens]`, and which queries meet which slots.
        keep: `[kept]` tokens whose logits are wanted.
        runs: of every run, its tokens, and the places of the states before and behind it.
        backend: of attention, where it is to be another than the model's.

    Returns:
        Logits `[kept, vocabulary]`.
    """

    def move(array: NDArray[np.int64] | Int32) -> Tensor:
        return to_device(array.astype(np.int64), model.device)

    return model.forward(
        move(tokens),
        move(positions),
        [Memory(move(slots), model.attend(plan, backend)) for slots, plan in met],
        move(keep),
        cache,
        Runs(*runs, model.device),
        are_tails=met[0][1].tails is not None,
    )
