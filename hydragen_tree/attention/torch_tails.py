"""Attention of every row over its own tail, in plain torch.

Tails lie in pages, and most pages belong to one row. So the pages in use are taken where they lie,
as one batch of small matrices that nobody copies: a page's queries come to its keys, its scores go
to their place in the row, and after the softmax its weights come back to its values. Only pages
that further rows read too, which share a past, are copied for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.inputs import movable
from hydragen_kernels.reference import Partial
from hydragen_tree.attention.plan import Tails
from hydragen_tree.attention.windows import WindowView

_CHUNK_BYTES = 1 << 20  # copied keys or values of one chunk stay in the L2 cache


@dataclass(frozen=True, eq=False, slots=True)
class Reads:
    """Some pages, and the row that reads each.

    Attributes:
        pages: their numbers: a range of the arena as a slice, or `[reads]` int64.
        rows: `[reads]` int64; the number of rows where nobody reads the page.
        places: `[reads]` int64, `row * width + column` of the page in the row's tail; one past the
            last where nobody reads it.
        unused: `[reads, page_tokens]` bool, slots that the row does not read.
    """

    pages: slice | Tensor
    rows: Tensor
    places: Tensor
    unused: Tensor


class PagedTails:
    """The tails of a step, made ready once for all layers.

    Args:
        tails: the pages of every row.
        device: where attention runs.
    """

    def __init__(self, tails: Tails, device: torch.device) -> None:
        self._page_tokens = tails.page_tokens
        self._width = _width(tails)
        self._reads = _reads(tails, device)
        self._has_empty = not tails.lengths.all()
        self._lengths = torch.from_numpy(tails.lengths).to(device)
        self._columns = torch.arange(self._width * tails.page_tokens, device=device)
        self._outside = self._columns >= self._lengths[:, None]  # [rows, width * page_tokens]

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None = None,
        view: WindowView | None = None,
    ) -> Partial:
        """Attention of `[rows, q_heads, head_dim]` over the tails, as a partial in fp32.

        Args:
            queries: one a row; a row whose tail is empty gets `(0, -inf)`.
            keys: `[kv_heads, slots, head_dim]`.
            values: like `keys`; fewer numbers a head are taken, too.
            scale: factor on the scores.
            softcap: scores become `softcap * tanh(score / softcap)`.
            view: what each query sees of its sequence; None: all of it.
        """
        rows, q_heads, head_dim = queries.shape
        kv_heads, size = keys.shape[0], self._page_tokens
        group = q_heads // kv_heads
        n_pages = keys.shape[1] // size

        def paged(arena: Tensor) -> Tensor:
            return arena[:, : n_pages * size].view(kv_heads, n_pages, size, arena.shape[2])

        # Row before head, as queries come: what belongs to a row is moved in one piece.
        own = queries.new_zeros(rows + 1, kv_heads, group, head_dim, dtype=torch.float32)
        own[:rows] = queries.view(rows, kv_heads, group, head_dim)
        own *= scale
        scores = own.new_full((rows * self._width + 1, kv_heads, group, size), -torch.inf)
        for part, keys_of in _matrices(paged(keys), self._reads):
            found = _products(own.index_select(0, part.rows), keys_of.mT)
            scores.index_copy_(0, part.places, found)

        outside = self._outside
        if view is not None:
            outside = outside | (self._columns < view.skipped(self._lengths)[:, None])
        weights, lse = self._softmax(scores, softcap, outside)

        out = own.new_zeros(*own.shape[:3], values.shape[-1])
        for part, values_of in _matrices(paged(values), self._reads):
            # in unused slots lies anything, NaN too, which a weight of 0 would not hide
            used = values_of.masked_fill(part.unused[..., None], 0.0)
            out.index_add_(0, part.rows, _products(weights.index_select(0, part.places), used))
        return Partial(out[:rows].flatten(1, 2), lse)

    def _softmax(
        self, scores: Tensor, softcap: float | None, outside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Softmax of each row over its pages.

        Args:
            scores: `[rows * width + 1, kv_heads, group, page_tokens]`.
            softcap: as in `attend`.
            outside: `[rows, width * page_tokens]` bool, slots that a row does not see.

        Returns:
            Weights shaped like `scores`, and the log-sum-exp `[rows, q_heads]`.
        """
        width, size = self._width, self._page_tokens
        flat = scores[:-1].unflatten(0, (-1, width)).movedim(1, 3).flatten(3)
        if softcap is not None:
            flat = torch.tanh(flat / softcap) * softcap
        flat = flat.masked_fill(outside[:, None, None], -torch.inf)
        probabilities = flat.softmax(-1)
        lse = flat.amax(-1) - probabilities.amax(-1).log_()  # the best is exp(its score - lse)
        if self._has_empty:
            probabilities, lse = probabilities.nan_to_num(0.0), lse.nan_to_num(-torch.inf)
        weights = torch.zeros_like(scores)
        by_page = probabilities.unflatten(3, (width, size)).movedim(3, 1)
        weights[:-1].unflatten(0, (-1, width)).copy_(by_page)
        return weights, lse.flatten(1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Products of `[reads, kv_heads, group, k]` and `[kv_heads, reads, k, n]`, head by head."""
    out = left.new_empty(*left.shape[:3], right.shape[3])
    for head in range(left.shape[1]):
        out[:, head] = torch.bmm(left[:, head], right[head])
    return out


def _matrices(paged: Tensor, reads: Sequence[Reads]) -> Iterator[tuple[Reads, Tensor]]:
    """The pages `[kv_heads, reads, page_tokens, head_dim]`, in fp32, copied only where they must.

    Args:
        paged: `[kv_heads, pages, page_tokens, head_dim]`.
        reads: which pages.
    """
    page_bytes = 4 * paged[:, 0].numel()
    for part in reads:
        if isinstance(part.pages, slice):
            yield part, paged[:, part.pages].float()
            continue
        step = max(1, _CHUNK_BYTES // page_bytes)
        for pages, rows, places, unused in zip(
            part.pages.split(step),
            part.rows.split(step),
            part.places.split(step),
            part.unused.split(step),
            strict=True,
        ):
            copied = movable(paged).index_select(1, pages).view(paged.dtype)
            yield Reads(pages, rows, places, unused), copied.float()


def _reads(tails: Tails, device: torch.device) -> list[Reads]:
    """First readers of a range of pages, taken where they lie; then whatever else is read."""
    rows, width = tails.lengths.size, _width(tails)
    count = -(-tails.lengths // tails.page_tokens)
    row = np.repeat(np.arange(rows), count)
    column = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    page, place = tails.pages[row, column].astype(np.int64), row * width + column
    if not page.size:
        return []

    inside = tails.lengths[row] - column * tails.page_tokens  # slots the row reads, or more
    used, first = np.unique(page, return_index=True)
    low, span = int(used[0]), int(used[-1] - used[0]) + 1
    if 2 * used.size < span:  # too scattered
        return [_on(device, page, row, place, inside, tails.page_tokens)]
    reader, home = np.full(span, rows), np.full(span, rows * width)
    reader[used - low], home[used - low] = row[first], place[first]
    read = np.zeros(span, np.int64)
    read[used - low] = inside[first]
    rest = np.setdiff1d(np.arange(page.size), first)
    size = tails.page_tokens
    parts = [_on(device, slice(low, low + span), reader, home, read, size)]
    if rest.size:
        parts.append(_on(device, page[rest], row[rest], place[rest], inside[rest], size))
    return parts


def _width(tails: Tails) -> int:
    """Pages of the longest tail."""
    return -(-int(tails.lengths.max(initial=1)) // int(tails.page_tokens))


def _on(
    device: torch.device,
    pages: slice | NDArray[np.int64],
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    inside: NDArray[np.int64],
    page_tokens: int,
) -> Reads:
    def move(array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(device)

    where = pages if isinstance(pages, slice) else move(pages)
    unused = torch.arange(page_tokens, device=device) >= move(inside)[:, None]
    return Reads(where, move(rows), move(places), unused)
