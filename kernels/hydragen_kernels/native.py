"""Tree attention of a decode step on a CPU, in C (`native.c`): segments, tails and merging at once.

It is compiled for the machine at hand when first wanted, in a second or two, as Triton compiles its
launchers, and kept in the user's cache. Where there is no C compiler, torch's flash attention and a
dozen of its operations for the tails do the same (NOTES.md has both times).
"""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.c_library import c_library, loaded, why_missing
from hydragen_kernels.items import c_defines, item_positions

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("native.c", "native.h"))
_POINTERS = (
    *("queries", "keys", "values", "out", "lse", "items", "pages", "lengths"),
    *("positions", "first", "skipped"),
)
_STRIDES = ("query_row", "query_head", "key_head", "value_head")
_COUNTS = ("rows", "q_heads", "kv_heads", "head_dim", "n_items", "width", "page_tokens", "threads")


class _Step(ctypes.Structure):
    """`Step` of native.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in (*_STRIDES, *_COUNTS)),
        ("scale", ctypes.c_float),
    )


def why_unavailable() -> str | None:
    """Why the C form cannot run here; None if it can."""
    return why_missing(_build())


def why_not_head_dim(head_dim: int) -> str | None:
    """Why the C form cannot compute heads of so many numbers; None if it can."""
    lanes, most = _library().lanes(), _library().max_head_dim()
    if head_dim % lanes or head_dim > most:
        return f"heads of a multiple of {lanes} numbers, at most {most}, not of {head_dim}"
    return None


def is_plain(x: Tensor) -> bool:
    """Whether a tensor's memory holds its numbers, and nobody wants its gradient."""
    wanted = x.requires_grad and torch.is_grad_enabled()
    return not (x.is_neg() or wanted)


class DecodeTables:
    """A decode step's tables, laid out for C once and read by every layer.

    Slots and pages are not checked: they must lie in the arena.

    Args:
        items: a table of `items.Item`, none of them causal.
        pages: `[rows, width]` each row's pages, or None: no tails.
        lengths: `[rows]` tokens in each tail, or None.
        page_tokens: slots a page.
    """

    def __init__(
        self,
        items: Int32,
        pages: Int32 | None,
        lengths: Int32 | None,
        page_tokens: int,
    ) -> None:
        self._tables = [  # kept, as C has their addresses
            None if x is None else np.ascontiguousarray(x, np.int32)
            for x in (items, pages, lengths)
        ]
        self._addresses = [None if table is None else table.ctypes.data for table in self._tables]
        self._items = items
        self._positions: Int32 | None = None  # for windows
        self._sizes = len(items), 0 if pages is None else pages.shape[1], page_tokens

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        first: Tensor | None = None,
        skipped: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of every row over the items that cover it, and over its tail.

        Args:
            queries: `[rows, q_heads, head_dim]` float32 on a CPU, plain; of a head size that
                `why_not_head_dim` lets pass.
            keys: `[kv_heads, slots, head_dim]` likewise.
            values: like `keys`.
            scale: factor on the scores.
            first: `[rows]` int32, the first position that each row sees; None: all see all.
            skipped: `[rows]` int32, tokens at the beginning of its tail that each does not see;
                given where `first` is.

        Returns:
            `[rows, q_heads, head_dim]` and the log-sum-exp `[rows, q_heads]`, both float32; 0 and
            -inf for a row that meets no key.
        """
        rows, q_heads, head_dim = queries.shape
        out, lse = queries.new_empty(rows, q_heads, head_dim), queries.new_empty(rows, q_heads)
        queries, keys, values = _laid_out(queries), _packed(keys), _packed(values)
        window: list[int | None] = [None] * 3
        if first is not None and skipped is not None:
            if self._positions is None:
                self._positions = item_positions(self._items, rows)
            first, skipped = first.contiguous(), skipped.contiguous()
            window = [self._positions.ctypes.data, first.data_ptr(), skipped.data_ptr()]
        step = _Step(
            *(x.data_ptr() for x in (queries, keys, values, out, lse)),
            *self._addresses,
            *window,
            *queries.stride()[:2],
            keys.stride(0),
            values.stride(0),
            rows,
            q_heads,
            keys.shape[0],
            head_dim,
            *self._sizes,
            torch.get_num_threads(),
            scale,
        )
        _library().decode_attention(ctypes.byref(step))
        return out, lse


def _laid_out(queries: Tensor) -> Tensor:
    return queries if queries.stride(2) == 1 else queries.contiguous()


def _packed(arena: Tensor) -> Tensor:
    """Heads may lie apart, but a head's slots one after the other."""
    return arena if arena.stride()[1:] == (arena.shape[2], 1) else arena.contiguous()


def _library() -> ctypes.CDLL:
    """The compiled form, where `why_unavailable` finds nothing."""
    return loaded(_build())


@cache
def _build(flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none; with further flags for the compiler."""
    return c_library(_SOURCES, (*c_defines(), *flags))
