"""Attention of a step on a CPU as one left fold over each query's keys, in C.

What a query gets depends on its keys and values in the order of their positions alone: not on where
the tree is cut, on what shares the step, on threads, nor on prefill or decode. See
`ordered_attention.c`.
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

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_FOLDER = Path(__file__).parent
_POINTERS = (
    *("queries", "keys", "values", "sinks", "out"),
    *("items", "positions", "pages", "lengths", "first", "skipped"),
)
_NUMBERS = (
    *("query_row", "query_head", "key_head", "value_head"),
    *("rows", "q_heads", "kv_heads", "head_dim", "n_items", "width", "page_tokens"),
    *("kind", "threads"),
)


class _Step(ctypes.Structure):
    """`Step` of ordered_attention.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _NUMBERS),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )


def why_unavailable() -> str | None:
    """Why the C form cannot run here; None if it can."""
    return why_missing(build())


def max_head_dim() -> int:
    """Numbers of a head at the most."""
    return int(_library().max_head_dim())


class OrderedTables:
    """A step's tables, laid out for C once and read by every layer.

    Slots and pages are not checked: they must lie in the arena.

    Args:
        items: a table of `items.Item`, levels ascending.
        n_queries: of the step.
        pages: `[queries, width]` the pages of each query's tail, or None: no tails.
        lengths: `[queries]` tokens in each tail, or None.
        page_tokens: slots a page.
    """

    def __init__(
        self,
        items: Int32,
        n_queries: int,
        pages: Int32 | None,
        lengths: Int32 | None,
        page_tokens: int,
    ) -> None:
        given = (items, item_positions(items, n_queries), pages, lengths)
        self._tables = [  # kept, as C has their addresses
            None if x is None else np.ascontiguousarray(x, np.int32) for x in given
        ]
        self._addresses = [None if x is None else x.ctypes.data for x in self._tables]
        self._sizes = len(items), 0 if pages is None else pages.shape[1], page_tokens

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        first: Tensor | None = None,
        skipped: Tensor | None = None,
    ) -> Tensor:
        """Attention of every query over the items that cover it, and over its tail.

        Args:
            queries: `[queries, q_heads, head_dim]` on a CPU, of 32 or 16 bits.
            keys: `[kv_heads, slots, head_dim]` likewise.
            values: like `keys`.
            scale: factor on the scores.
            softcap: scores become `softcap * tanh(score / softcap)`; None: they do not.
            sinks: `[q_heads]`, one more score a head that has no value; None: there is none.
            first: `[queries]` int32, the first position that each sees; None: all see all.
            skipped: `[queries]` int32, tokens at the beginning of its tail that each does not see;
                given where `first` is.

        Returns:
            `[queries, q_heads, head_dim]` in the queries' dtype; 0 for a query that meets no key.
        """
        rows, q_heads, head_dim = queries.shape
        wide = queries.resolve_neg().float()
        wide = wide if wide.stride(2) == 1 else wide.contiguous()
        keys, values = _packed(keys), _packed(values)
        out = wide.new_empty(rows, q_heads, head_dim)
        more = [x if x is None else x.contiguous() for x in (first, skipped)]
        added = None if sinks is None else sinks.float().contiguous()
        step = _Step(
            *(x.data_ptr() for x in (wide, keys, values)),
            None if added is None else added.data_ptr(),
            out.data_ptr(),
            *self._addresses,
            *(None if x is None else x.data_ptr() for x in more),
            *wide.stride()[:2],
            keys.stride(0),
            values.stride(0),
            rows,
            q_heads,
            keys.shape[0],
            head_dim,
            *self._sizes,
            KINDS[keys.dtype],
            torch.get_num_threads(),
            scale,
            0.0 if softcap is None else softcap,
        )
        _library().ordered_attention(ctypes.byref(step))
        return out.to(queries.dtype)


def _packed(arena: Tensor) -> Tensor:
    """Heads may lie apart, but a head's slots one after the other."""
    arena = arena.resolve_neg()
    return arena if arena.stride()[1:] == (arena.shape[2], 1) else arena.contiguous()


def _library() -> ctypes.CDLL:
    """The compiled form, where `why_unavailable` finds nothing."""
    return loaded(build())


@cache
def build(flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none; with further flags for the compiler."""
    sources = _FOLDER / "ordered_attention.c", _FOLDER / "ordered.h"
    return c_library(sources, ("-ffp-contract=off", *c_defines(), *flags))
