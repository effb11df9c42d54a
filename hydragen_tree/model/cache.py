"""Keys and values: the only mutable state on the device.

One arena of slots serves all layers (`arena`): segments take contiguous runs of its pages, from one
end, and tails single pages, from the other, which keeps long runs free. Branches that forked share
the full pages of their common past.

Layers that see the last tokens only may have an arena of their own, with fewer pages. Segments have
another run there, of which what nobody sees any more is given up. A tail's pages have the same
numbers in both, so that a page is of use to tails only where both have it free: segments begin at
the high end then, where tails may not go or segments are in both.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.arena import Arena
from hydragen_tree.model.states import StatePlaces, States
from hydragen_tree.shape import Count, KVShape


class KVCache:
    """One arena of keys and values, or two, with a page allocator.

    Args:
        shape: layers, heads, head dimension; and which layers have an arena of their own.
        n_pages: pages that tails may take, the first ones of every arena.
        page_tokens: slots a page, a power of two.
        dtype: of keys and values.
        device: where they live.
        fused: store with Triton's kernel instead of torch's index copy.
        states: of layers that keep those in place of keys and values, if there are any.
        run_pages: pages, the first ones, that segments may take; None: as many. Where windowed
            layers have an arena of their own, only that of the others may have more.

    Attributes:
        arenas: that of layers that see all, then that of windowed layers, if they have one.
        at: of each layer that attends, the number of its arena and its row there.
        keys: of the first arena.
        values: likewise.
        latents: likewise.
        states: as given; else of no layer.
        n_pages: as given.
        run_pages: as given.
        window_tokens: that any windowed layer sees at the most.
        peak_bytes: most bytes of keys and values that were in use.
    """

    def __init__(
        self,
        shape: KVShape,
        n_pages: int,
        page_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        fused: bool = False,
        states: States | None = None,
        run_pages: int | None = None,
    ) -> None:
        self.page_tokens, self.n_pages = page_tokens, n_pages
        self.run_pages = n_pages if run_pages is None else run_pages
        self._runs_high = self.run_pages > n_pages
        self.window_tokens, own = shape.window_tokens, len(shape.windowed)
        rest, kind = replace(shape, layers=shape.layers - own), (page_tokens, dtype, device, fused)
        self.arenas = [Arena(rest, self.run_pages, n_pages, *kind)]
        if own:
            self.arenas.append(Arena(replace(shape, layers=own), n_pages, n_pages, *kind))
        rows = [iter(range(shape.layers)) for _ in range(2)]
        numbers = [int(place in shape.windowed) for place in range(shape.layers)]
        self.at = [(number, next(rows[number])) for number in numbers]
        self.states = States({}, StatePlaces(0, 0), device) if states is None else states
        first = self.arenas[0]
        self.keys, self.values, self.latents = first.keys, first.values, first.latents
        self.peak_bytes = 0

    @property
    def windowed(self) -> Arena | None:
        """The arena of windowed layers, if they have one of their own."""
        return self.arenas[1] if len(self.arenas) > 1 else None

    @property
    def free_pages(self) -> int:
        """Pages that nobody uses, of those that tails may have."""
        return int(np.count_nonzero(self._is_free()))

    @property
    def segment_pages(self) -> int:
        """Pages that segments keep from tails."""
        taken = np.stack([arena.of_segments[: self.n_pages] for arena in self.arenas])
        return int(np.count_nonzero(taken.any(0)))

    @property
    def page_bytes(self) -> int:
        """Bytes of one page's keys and values in all layers."""
        return sum(arena.page_bytes for arena in self.arenas)

    @property
    def tail_page_bytes(self) -> int:
        """Bytes of one page of a tail in all layers."""
        return sum(arena.tail_page_bytes for arena in self.arenas)

    def _is_free(self) -> NDArray[np.bool_]:
        """Of pages that tails may have, those that nobody uses: `[n_pages]`."""
        users = np.stack([arena.users[: self.n_pages] for arena in self.arenas])
        return np.asarray(~users.any(0))

    def pages_for(self, n_tokens: Count) -> Count:
        """Pages that hold `n_tokens` tokens; for a number, or for an array of them."""
        return -(-n_tokens // self.page_tokens)

    def take(self, count: int) -> Int32:
        """Takes `count` pages for tails, the free ones that are furthest from segments.

        Raises:
            CapacityError: fewer are free.
        """
        free = np.flatnonzero(self._is_free())
        if free.size < count:
            raise CapacityError(f"{count} pages of keys and values needed, {free.size} are free")
        if not self._runs_high:
            free = free[::-1]
        pages = free[:count].astype(np.int32)
        self.share(pages)
        self._note_peak()
        return pages

    def take_run(self, n_tokens: int) -> list[int] | None:
        """Takes a contiguous run of pages for a segment in every arena.

        Returns:
            The first slots; None, and nothing taken, if no run of free pages is long enough.
        """
        slots: list[int] = []
        for arena in self.arenas:
            page = arena.take_run(self.pages_for(n_tokens), self._runs_high)
            if page is None:
                for taken, slot in zip(self.arenas, slots, strict=False):
                    taken.release_run(slot, n_tokens)
                return None
            slots.append(page * self.page_tokens)
        self._note_peak()
        return slots

    def _note_peak(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(arena.used_bytes for arena in self.arenas))

    def share(self, pages: Int32) -> None:
        """Counts one more user for every page given of a tail, repeats counted."""
        for arena in self.arenas:
            np.add.at(arena.users, pages, 1)

    def release(self, pages: Int32) -> None:
        """Gives up one use of every page given of a tail."""
        for arena in self.arenas:
            np.subtract.at(arena.users, pages, 1)

    def copy_pages(self, source: Int32, target: Int32, used: Int32) -> None:
        """Copies pages of tails, of each at least the `used` tokens it begins with."""
        for arena in self.arenas:
            arena.copy_pages(source, target, used)

    def copy_to_run(
        self, leads: list[NDArray[np.int64]], pages: Int32, n_tokens: int, slots: list[int]
    ) -> None:
        """Copies tokens into runs that `take_run` took.

        Args:
            leads: slots of those that come first, in each arena.
            pages: of a tail, which follows.
            n_tokens: of the tail, from its first on.
            slots: where the runs begin.
        """
        for arena, lead, slot in zip(self.arenas, leads, slots, strict=False):
            arena.copy_to_run(np.concatenate([lead, arena.slots_of(pages, n_tokens)]), slot)
