"""Keys and values: the only mutable state on the device.

One arena of slots serves everything. A slot holds one token's key and value in every layer; a
page is a run of slots. A segment occupies a contiguous run of pages, so that its keys are one
strided matrix; a tail is a list of pages that may lie anywhere. Pages are counted: branches that
forked share the full pages of their common past.

With latent attention tails may hold a vector a token that all heads share (`latent`). Then a slot
has room for that, and only the first slots, where segments go, for keys and values, too.

Segments are taken from the low end and tail pages from the high end, which keeps long runs free.
On a CPU the arena is reserved, not touched: memory is used as pages are.
"""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.inputs import movable
from hydragen_kernels.reference import narrow
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.reserving import zeros
from hydragen_tree.model.states import StatePlaces, States
from hydragen_tree.shape import KVShape

Count = TypeVar("Count", int, NDArray[Any])


class KVCache:
    """An arena of keys and values with a page allocator.

    Args:
        shape: layers, heads, head dimension.
        n_pages: pages to reserve.
        page_tokens: slots a page, a power of two.
        dtype: of keys and values.
        device: where they live.
        fused: store with Triton's kernel instead of torch's index copy.
        states: of layers that keep those in place of keys and values, if there are any.
        run_pages: pages, the first ones, that segments may take; None: all.

    Attributes:
        keys: `[layers, kv_heads, slots, head_dim]`.
        values: like `keys`.
        latents: `[layers, 1, slots, latent_dim]`, what tails hold where the shape says so; else
            None. Then `keys` and `values` have the slots of `run_pages` alone.
        states: as given; else of no layer.
        run_pages: as given.
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
        self.page_tokens = page_tokens
        self.n_pages = n_pages
        self.run_pages = n_pages if run_pages is None else run_pages
        self._fused = fused
        self.states = States({}, StatePlaces(0, 0), device) if states is None else states
        slots = n_pages * page_tokens
        # zeros, not empty: slots past a tail's end are masked, but 0 * NaN would still be NaN.
        self.latents = None
        if shape.latent_dim:
            self.latents = zeros((shape.layers, 1, slots, shape.latent_dim), dtype, device)
            slots = self.run_pages * page_tokens
        size = (shape.layers, shape.kv_heads, slots, shape.head_dim)
        self.keys = zeros(size, dtype, device)
        self.values = zeros(size, dtype, device)
        self._users = np.zeros(n_pages, np.int32)
        self._is_run = np.zeros(n_pages, np.bool_)
        self.peak_bytes = 0

    @property
    def free_pages(self) -> int:
        """Pages nobody uses."""
        return int(self.n_pages - np.count_nonzero(self._users))

    @property
    def page_bytes(self) -> int:
        """Bytes of one page's keys and values in all layers."""
        return 2 * self.keys[:, :, : self.page_tokens].nbytes

    @property
    def tail_page_bytes(self) -> int:
        """Bytes of one page of a tail in all layers."""
        if self.latents is None:
            return self.page_bytes
        return int(self.latents[:, :, : self.page_tokens].nbytes)

    @property
    def of_tails(self) -> tuple[Tensor, Tensor]:
        """What tails hold, as two arenas of one shape: keys and values, or halves of latents."""
        if self.latents is None:
            return self.keys, self.values
        first, second = self.latents.chunk(2, -1)
        return first, second

    def pages_for(self, n_tokens: Count) -> Count:
        """Pages that hold `n_tokens` tokens; for a number, or for an array of them."""
        return -(-n_tokens // self.page_tokens)

    def take(self, count: int) -> Int32:
        """Takes `count` pages, highest free ones first.

        Raises:
            CapacityError: fewer are free.
        """
        free = np.flatnonzero(self._users == 0)
        if free.size < count:
            raise CapacityError(f"{count} pages of keys and values needed, {free.size} are free")
        pages = free[free.size - count :][::-1].astype(np.int32)
        self._use(pages, is_run=False)
        return pages

    def take_run(self, n_tokens: int) -> int | None:
        """Takes a contiguous run of pages for a segment, at the lowest place it fits.

        Returns:
            The run's first slot; None if no run of free pages is long enough.
        """
        need = self.pages_for(n_tokens)
        users = self._users[: self.run_pages]
        used = np.concatenate([[-1], np.flatnonzero(users), [users.size]])
        fits = np.flatnonzero(np.diff(used) > need)
        if fits.size == 0:
            return None
        first = int(used[fits[0]]) + 1
        self._use(np.arange(first, first + need), is_run=True)
        return first * self.page_tokens

    def _use(self, pages: Int32 | NDArray[np.int64], *, is_run: bool) -> None:
        self._users[pages], self._is_run[pages] = 1, is_run
        runs = np.count_nonzero(self._users[self._is_run])
        tails = self.n_pages - self.free_pages - runs
        used = runs * self.page_bytes + tails * self.tail_page_bytes
        self.peak_bytes = max(self.peak_bytes, int(used))

    def share(self, pages: Int32) -> None:
        """Counts one more user for every page given, repeats counted."""
        np.add.at(self._users, pages, 1)

    def release(self, pages: Int32) -> None:
        """Gives up one use of every page given."""
        np.subtract.at(self._users, pages, 1)

    def release_run(self, slot: int, n_tokens: int) -> None:
        """Gives up a segment's run, which may begin and end within pages that others use too."""
        first, stop = slot // self.page_tokens, self.pages_for(slot + n_tokens)
        self.release(np.arange(first, stop, dtype=np.int32))

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores one layer's new keys and values `[kv_heads, tokens, head_dim]` at `slots`.

        The fused form stores nothing where a slot is -1; int32 slots spare it a conversion.
        """
        if self._fused:
            from hydragen_kernels.append import append

            arena = self.keys[layer], self.values[layer]
            append(*arena, keys.transpose(0, 1), values.transpose(0, 1), slots.int())
            return
        for whole, new in ((self.keys, keys), (self.values, values)):
            movable(whole[layer]).index_copy_(1, slots, movable(narrow(new, whole.dtype)))

    def write_latents(self, layer: int, slots: Tensor, latents: Tensor) -> None:
        """Stores one layer's new latent vectors `[tokens, latent_dim]` at `slots`, as `write`."""
        assert self.latents is not None
        if self._fused:
            from hydragen_kernels.append import append

            halves = self.of_tails
            first, second = latents[:, None].chunk(2, -1)
            append(halves[0][layer], halves[1][layer], first, second, slots.int())
            return
        self.latents[layer, 0].index_copy_(0, slots, latents)

    def copy_pages(self, source: Int32, target: Int32, used: Int32) -> None:
        """Copies pages, of each at least the `used` tokens it begins with."""
        if self._fused:
            page = np.repeat(np.arange(used.size), used)
            offset = np.arange(page.size) - np.repeat(np.cumsum(used) - used, used)
            self._copy(*(pages[page] * self.page_tokens + offset for pages in (source, target)))
            return
        at = torch.from_numpy(np.stack([source, target]).astype(np.int64)).to(self.keys.device)
        # layer by layer: all at once would hold a second copy of them
        for layer in (layer for arena in self.of_tails for layer in movable(arena)):
            paged = layer.unflatten(1, (self.n_pages, self.page_tokens))
            paged[:, at[1]] = paged[:, at[0]]

    def copy_to_run(self, pages: Int32, n_tokens: int, slot: int) -> None:
        """Copies the first `n_tokens` tokens of a tail into a run that starts at `slot`."""
        offsets = np.arange(n_tokens)
        source = pages[offsets // self.page_tokens].astype(np.int64) * self.page_tokens
        source += offsets % self.page_tokens
        if self._fused:
            self._copy(source, slot + offsets)
            return
        at = torch.from_numpy(source).to(self.keys.device)
        for layer in (*movable(self.keys), *movable(self.values)):
            layer[:, slot : slot + n_tokens] = layer[:, at]

    def _copy(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Copies tokens from slots to others, in one launch."""
        from hydragen_kernels.copy import copy_tokens

        at = torch.from_numpy(np.stack([source, target]).astype(np.int32)).to(self.keys.device)
        copy_tokens(*self.of_tails, *at)
