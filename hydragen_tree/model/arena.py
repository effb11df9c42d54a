"""An arena: keys and values of some layers in slots, pages of which are counted.

A slot holds one token's key and value in each of these layers; a page is a run of slots. A segment
occupies a contiguous run of pages, so that its keys are one strided matrix; a tail is a list of
pages that may lie anywhere. What both may take begins with the first page, and goes as far for each
as is said of it.

With latent attention tails may hold a vector a token that all heads share (`latent`). Then there
are slots for those as far as tails go, and for keys and values as far as segments do.

On a CPU an arena is reserved, not touched: memory is used as pages are.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels import ordered_layers
from hydragen_kernels.arrays import Int32
from hydragen_kernels.inputs import movable, to_device
from hydragen_kernels.reference import narrow
from hydragen_tree.model.reserving import zeros
from hydragen_tree.shape import KVShape


class Arena:
    """Slots of some layers, and who uses their pages.

    Args:
        shape: these layers, heads, head dimension.
        run_pages: pages, the first ones, that segments may take.
        tail_pages: pages, the first ones, that tails may take.
        page_tokens: slots a page, a power of two.
        dtype: of keys and values.
        device: where they live.
        fused: store with Triton's kernel instead of torch's index copy.

    Attributes:
        keys: `[layers, kv_heads, slots, head_dim]`.
        values: like `keys`.
        latents: `[layers, 1, slots, latent_dim]`, what tails hold where the shape says so; else
            None.
        users: `[pages]` int32, of each page.
        of_segments: `[pages]` int32, those of them that are segments.
    """

    def __init__(
        self,
        shape: KVShape,
        run_pages: int,
        tail_pages: int,
        page_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        fused: bool,
    ) -> None:
        self._run_pages, self._page_tokens, self._fused = run_pages, page_tokens, fused
        is_plain = device.type == "cpu" and dtype == torch.float32 and not shape.latent_dim
        self._in_c = is_plain and ordered_layers.why_unavailable() is None
        n_pages = max(run_pages, tail_pages)
        slots = (run_pages if shape.latent_dim else n_pages) * page_tokens
        size = (shape.layers, shape.kv_heads, slots, shape.head_dim)
        # zeros, not empty: slots past a tail's end are masked, but 0 * NaN would still be NaN.
        self.keys = zeros(size, dtype, device)
        self.values = zeros(size, dtype, device)
        self.latents = None
        if shape.latent_dim:
            size = (shape.layers, 1, tail_pages * page_tokens, shape.latent_dim)
            self.latents = zeros(size, dtype, device)
        self.users = np.zeros(n_pages, np.int32)
        self.of_segments = np.zeros(n_pages, np.int32)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page's keys and values."""
        return 2 * self.keys[:, :, : self._page_tokens].nbytes

    @property
    def tail_page_bytes(self) -> int:
        """Bytes of one page of a tail."""
        return sum(x[:, :, : self._page_tokens].nbytes for x in self.of_tails)

    @property
    def used_bytes(self) -> int:
        """Bytes of what is in use."""
        runs = int(np.count_nonzero(self.of_segments))
        tails = int(np.count_nonzero(self.users)) - runs
        return runs * self.page_bytes + tails * self.tail_page_bytes

    @property
    def of_tails(self) -> tuple[Tensor, Tensor]:
        """What tails hold, as two tensors of one shape: keys and values, or halves of latents."""
        if self.latents is None:
            return self.keys, self.values
        first, second = self.latents.chunk(2, -1)
        return first, second

    def take_run(self, count: int, highest: bool) -> int | None:
        """Takes a contiguous run of pages for a segment, at the lowest or highest place it fits.

        Returns:
            The first page; None if no run of free pages is long enough.
        """
        used = np.concatenate([[-1], np.flatnonzero(self.users[: self._run_pages])])
        begins, ends = used + 1, np.append(used[1:], self._run_pages)
        fits = np.flatnonzero(ends - begins >= count)
        if not fits.size:
            return None
        first = int(ends[fits[-1]]) - count if highest else int(begins[fits[0]])
        self.share_run(np.arange(first, first + count, dtype=np.int32))
        return first

    def share_run(self, pages: Int32) -> None:
        """Counts one more segment for every page given."""
        self.users[pages] += 1
        self.of_segments[pages] += 1

    def release_run(self, slot: int, n_tokens: int) -> None:
        """Gives up a segment's run, which may begin and end within pages that others use too."""
        pages = slice(slot // self._page_tokens, -(-(slot + n_tokens) // self._page_tokens))
        self.users[pages] -= 1
        self.of_segments[pages] -= 1

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Stores one layer's new keys and values `[kv_heads, tokens, head_dim]` at `slots`.

        The fused form stores nothing where a slot is -1; int32 slots spare it a conversion.
        """
        self._write((self.keys[layer], self.values[layer]), slots, (keys, values))

    def write_latents(self, layer: int, slots: Tensor, latents: Tensor) -> None:
        """Stores one layer's new latent vectors `[tokens, latent_dim]` at `slots`, as `write`."""
        first, second = self.of_tails
        self._write((first[layer], second[layer]), slots, latents[None].chunk(2, -1))

    def _write(self, pair: tuple[Tensor, Tensor], slots: Tensor, news: tuple[Tensor, ...]) -> None:
        if self._fused:
            from hydragen_kernels.append import append

            keys, values = (new.transpose(0, 1) for new in news)
            append(*pair, keys, values, slots.int())
            return
        for whole, new in zip(pair, news, strict=True):
            if self._in_c and new.dtype == torch.float32 and new.stride(-1) == 1:
                ordered_layers.store(whole, slots, new)
                continue
            movable(whole).index_copy_(1, slots, movable(narrow(new, whole.dtype)))

    def copy_pages(self, source: Int32, target: Int32, used: Int32) -> None:
        """Copies pages of tails, of each at least the `used` tokens it begins with."""
        if self._fused:
            page = np.repeat(np.arange(used.size), used)
            offset = np.arange(page.size) - np.repeat(np.cumsum(used) - used, used)
            self._copy(*(pages[page] * self._page_tokens + offset for pages in (source, target)))
            return
        at = torch.from_numpy(np.stack([source, target]).astype(np.int64)).to(self.keys.device)
        # layer by layer: all at once would hold a second copy of them
        for layer in (layer for whole in self.of_tails for layer in movable(whole)):
            paged = layer.unflatten(1, (-1, self._page_tokens))
            paged[:, at[1]] = paged[:, at[0]]

    def slots_of(self, pages: Int32, n_tokens: int) -> NDArray[np.int64]:
        """`[n_tokens]` where the first tokens of a tail are."""
        page, offset = np.divmod(np.arange(n_tokens), self._page_tokens)
        slots: NDArray[np.int64] = pages[page].astype(np.int64) * self._page_tokens + offset
        return slots

    def copy_to_run(self, source: NDArray[np.int64], slot: int) -> None:
        """Copies the tokens at `source` into a run that starts at `slot`."""
        if self._fused:
            self._copy(source, slot + np.arange(source.size))
            return
        at = torch.from_numpy(source).to(self.keys.device)
        for layer in (*movable(self.keys), *movable(self.values)):
            layer[:, slot : slot + source.size] = layer[:, at]

    def _copy(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Copies tokens from slots to others, in one launch."""
        from hydragen_kernels.copy import copy_tokens

        at = to_device(np.stack([source, target]).astype(np.int32), self.keys.device)
        copy_tokens(*self.of_tails, *at)
