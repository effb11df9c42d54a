"""Prefill and decode: the tree's tokens through the model, into the cache.

The engine owns what is on the device: the weights, the cache, and the table that says where each
segment's keys and values are. It knows rows and segments, nothing of samples or text.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_tree.attention.plan import Int, Item, Plan, Tails
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.errors import CapacityError, Setting
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.trie.trie import Trie

TAIL_LEVELS = 8  # pages of tails that a full prefill pass may have; longer ones take more passes


class Engine:
    """Runs segments, tails and rows of one trie.

    Args:
        model: the adapted model.
        trie: prompts, after folding.
        cache: an arena big enough for any one path and its tail.
        prefill_tokens: tokens of one prefill pass at the most.
    """

    def __init__(self, model: TreeModel, trie: Trie, cache: KVCache, prefill_tokens: int) -> None:
        self.model = model
        self.trie = trie
        self.cache = cache
        self.prefill_tokens = prefill_tokens
        self.table = SegmentTable(
            np.array([s.parent for s in trie], np.int32),
            np.array([s.depth for s in trie], np.int32),
            np.array([s.tokens.size for s in trie], np.int32),
        )
        self.prefilled_tokens = 0

    def missing(self, leaf: int) -> list[int]:
        """Segments on a leaf's path that are not in the cache, from the root."""
        path = [segment.index for segment in self.trie.path(int(self.trie.leaf_segments[leaf]))]
        return [index for index in path if self.table.slot[index] < 0]

    def place(self, segments: list[int]) -> bool:
        """Reserves slots for segments; False, and nothing reserved, if they do not fit."""
        placed: list[int] = []
        for index in segments:
            slot = self.cache.take_run(int(self.table.n_tokens[index]))
            if slot is None:
                for done in placed:
                    self.evict(done)
                return False
            self.table.slot[index] = slot
            placed.append(index)
        return True

    def evict(self, segment: int) -> None:
        """Gives up a segment's slots."""
        self.cache.release_run(int(self.table.slot[segment]), int(self.table.n_tokens[segment]))
        self.table.slot[segment] = -1

    def evict_unused(self, segments: Int) -> None:
        """Gives up every resident segment that is not on the path of one of these."""
        resident = self.table.slot[: self.table.size] >= 0
        for index in np.flatnonzero(resident & ~self.table.live(segments)).tolist():
            self.evict(index)

    def prefill(self, segments: list[int]) -> dict[int, Tensor]:
        """Computes placed segments, level by level.

        Args:
            segments: numbers of the segments; parents are resident or among them.

        Returns:
            Logits `[vocabulary]` after each segment that ends a prompt.
        """
        logits: dict[int, Tensor] = {}
        for pack in self._packs(segments):
            index = np.array([segment for segment, _, _ in pack], np.int32)
            counts = np.array([stop - start for _, start, stop in pack], np.int32)
            items = [self.table.path_items(self.table.parent[index], counts)]
            first, tokens, positions, slots = 0, [], [], []
            for (number, start, stop), count in zip(pack, counts.tolist(), strict=True):
                segment, slot = self.trie.segments[number], int(self.table.slot[number])
                own = [Item(first, count, slot, start, 0, segment.depth)] if start else []
                own.append(Item(first, count, slot + start, count, 1, segment.depth + 1))
                items.append(np.array(own, np.int32))
                tokens.append(segment.tokens[start:stop])
                positions.append(segment.start + np.arange(start, stop))
                slots.append(slot + np.arange(start, stop))
                first += count
            ends = [
                (number, int(last) - 1)
                for (number, _, stop), last in zip(pack, np.cumsum(counts), strict=True)
                if self.trie.segments[number].ends_prompt and stop == self.table.n_tokens[number]
            ]
            out = self._forward(tokens, positions, slots, [last for _, last in ends], items)
            logits.update({number: row for (number, _), row in zip(ends, out, strict=True)})
        return logits

    def _packs(self, segments: list[int]) -> Iterator[list[tuple[int, int, int]]]:
        """Pieces (segment, start, stop) of one level each, at most `prefill_tokens` together."""
        depths = self.table.depth[segments]
        for depth in np.unique(depths):
            pack: list[tuple[int, int, int]] = []
            room = self.prefill_tokens
            for number in sorted(np.array(segments)[depths == depth].tolist()):
                start, size = 0, int(self.table.n_tokens[number])
                while start < size:
                    stop = min(size, start + room)
                    pack.append((number, start, stop))
                    room -= stop - start
                    start = stop
                    if room == 0:
                        yield pack
                        pack, room = [], self.prefill_tokens
            if pack:
                yield pack

    def prefill_tails(self, segments: Int, tails: list[Int], pages: Int, starts: Int) -> None:
        """Computes the tails of branches that come back into the batch.

        Args:
            segments: `[rows]` the segment each hangs from.
            tails: each row's tokens.
            pages: `[rows, max_pages]` pages taken for them.
            starts: `[rows]` position of each tail's first token.
        """
        for pack in self._tail_packs([tail.size for tail in tails]):
            counts = np.array([stop - start for _, start, stop in pack], np.int32)
            items = [self.table.path_items(segments[[row for row, _, _ in pack]], counts)]
            tokens, positions, slots, first = [], [], [], 0
            for row, start, stop in pack:
                level = int(self.table.depth[segments[row]]) + 1
                items.append(self._tail_items(pages[row], first, start, stop, level))
                offsets = np.arange(start, stop)
                tokens.append(tails[row][start:stop])
                positions.append(starts[row] + offsets)
                slots.append(self._tail_slots(pages[row], offsets))
                first += stop - start
            self._forward(tokens, positions, slots, [], items)

    def _tail_packs(self, sizes: list[int]) -> Iterator[list[tuple[int, int, int]]]:
        """Pieces (row, start, stop) of one pass each; they start with a page.

        Every page of a tail is a level of its own, so a pass is bounded by tokens times pages.
        """
        size = self.cache.page_tokens
        pack: list[tuple[int, int, int]] = []
        total, deepest = 0, 1
        for row, length in enumerate(sizes):
            start = 0
            while start < length:
                levels = max(deepest, self.cache.pages_for(length))
                room = self.prefill_tokens * TAIL_LEVELS // levels - total
                stop = min(length, start + max(size, room // size * size))
                if pack and (room < size or stop < length):
                    yield pack
                    pack, total, deepest = [], 0, 1
                    continue
                pack.append((row, start, stop))
                total, deepest, start = total + stop - start, levels, stop
        if pack:
            yield pack

    def _tail_items(self, pages: Int, first: int, start: int, stop: int, level: int) -> Int:
        """Items for tokens start .. stop - 1 of a tail, `start` being the first of a page.

        Earlier pages are met whole; each page is causal in itself, and whole to later tokens.
        """
        size = self.cache.page_tokens
        items = []
        for at in range(0, stop, size):
            slot, depth = int(pages[at // size]) * size, level + at // size
            if at < start:
                items.append(Item(first, stop - start, slot, size, 0, depth))
                continue
            here, inside = first + at - start, min(size, stop - at)
            items.append(Item(here, inside, slot, inside, 1, depth))
            if at + size < stop:
                items.append(Item(here + size, stop - at - size, slot, size, 0, depth))
        return np.array(items, np.int32).reshape(-1, 6)

    def _tail_slots(self, pages: Int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        size = self.cache.page_tokens
        return pages[offsets // size].astype(np.int64) * size + offsets % size

    def decode(self, tokens: Int, positions: Int, segments: Int, pages: Int, tails: Int) -> Tensor:
        """One token of every row through the model.

        Args:
            tokens: `[rows]` the last token drawn.
            positions: `[rows]` its position.
            segments: `[rows]` the segment each row hangs from, rows depth-first.
            pages: `[rows, max_pages]` with a page for this token.
            tails: `[rows]` tokens in the tail before this one.

        Returns:
            Logits `[rows, vocabulary]`.
        """
        size, rows = self.cache.page_tokens, np.arange(tokens.size)
        slots = pages[rows, tails // size].astype(np.int64) * size + tails % size
        items = self.table.path_items(segments, np.ones_like(tokens))
        plan = Plan(tokens.size, items, Tails(pages, tails + 1, size))
        return self._run(tokens, positions, slots, rows, plan)

    def _forward(
        self,
        tokens: list[Int],
        positions: list[NDArray[np.int64]],
        slots: list[NDArray[np.int64]],
        keep: list[int],
        items: list[Int],
    ) -> Tensor:
        table = np.concatenate(items)
        table = table[np.argsort(table[:, -1], kind="stable")]
        packed = np.concatenate(tokens)
        self.prefilled_tokens += packed.size
        kept = np.array(keep, np.int64)
        plan = Plan(packed.size, table)
        return self._run(packed, np.concatenate(positions), np.concatenate(slots), kept, plan)

    def _run(
        self,
        tokens: Int,
        positions: NDArray[np.int64] | Int,
        slots: NDArray[np.int64],
        keep: NDArray[np.int64],
        plan: Plan,
    ) -> Tensor:
        def move(array: NDArray[np.int64] | Int) -> Tensor:
            return torch.from_numpy(array.astype(np.int64)).to(self.model.device)

        return self.model.forward(
            move(tokens),
            move(positions),
            move(slots),
            move(keep),
            self.cache,
            self.model.attend(plan),
        )

    def freeze(self, segment: int, pages: Int, n_tokens: int) -> int | None:
        """Copies a tail into a new segment below `segment`; None if no run is free for it."""
        slot = self.cache.take_run(n_tokens)
        if slot is None:
            return None
        self.cache.copy_to_run(pages, n_tokens, slot)
        return self.table.add(segment, n_tokens, slot)

    def check_capacity(self, max_tokens: int) -> None:
        """Makes sure that any one branch fits to its end.

        Raises:
            CapacityError: it does not; the message carries the numbers.
        """
        cache, worst, longest = self.cache, 0, 0
        for leaf in self.trie.leaf_segments.tolist():
            path = self.trie.path(leaf)
            need = sum(cache.pages_for(segment.tokens.size) for segment in path)
            if need > worst:
                worst, longest = need, self.trie.end(leaf)
        worst += cache.pages_for(max_tokens) + 1
        if worst > cache.n_pages:
            page_bytes = 2 * cache.keys[:, :, : cache.page_tokens].nbytes
            raise CapacityError(
                f"one branch needs {worst * page_bytes / 2**20:.1f} MiB of keys and values "
                f"({longest} prompt tokens + {max_tokens} new), but ",
                Setting("memory_bytes"),
                f" leaves {cache.n_pages * page_bytes / 2**20:.1f} MiB; give more or lower ",
                Setting("max_tokens"),
            )
