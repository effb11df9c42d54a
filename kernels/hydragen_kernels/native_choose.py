"""Logits to tokens on a CPU, in C (`native_choose.c`): what `choose.py` does on a GPU.

With m the row's greatest logit and T the temperature, a token of logit x weighs
w(x) = exp((x - m) / T). top-k, top-p and min-p come in this order, each on what the one before
kept, and each keeps equal logits together; a sample's token is the first in vocabulary order whose
cumulative kept weight exceeds the sample's share of the whole.

What comes of a row depends on that row alone, bit for bit. Bound by two passes over the row, each
an exponential for every number.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.c_library import c_library, loaded, why_missing
from hydragen_kernels.drawn import Drawn

_FOLDER = Path(__file__).parent
_POINTERS = "logits", "firsts", "shares", "tokens", "logprobs", "sampled", "room"


class _Choice(ctypes.Structure):
    """`Choice` of native_choose.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("rows", "vocabulary", "top_k", "threads")),
        *((name, ctypes.c_double) for name in ("temperature", "top_p", "min_p")),
    )


def why_unavailable() -> str | None:
    """Why the C form cannot run here; None if it can."""
    return why_missing(build())


def choose(
    logits: Tensor,
    rows: NDArray[np.integer],
    shares: NDArray[np.float64],
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Drawn[NDArray[Any]]:
    """Draws a token for each sample; see `Drawn` for rows without a distribution.

    Args:
        logits: `[rows, vocabulary]`, any float dtype.
        rows: `[samples]`, the row of each sample, ascending.
        shares: `[samples]` of the row's kept weight, in [0, 1).
        temperature: divides the logits; 0 takes the first of the greatest.
        top_k: 0 keeps all.
        top_p: in (0, 1].
        min_p: in [0, 1].

    Returns:
        `[samples]` each: int64 and float64.
    """
    logits = logits.float().contiguous()
    n_rows, vocabulary = logits.shape
    firsts = np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
    shares = np.ascontiguousarray(shares, np.float64)
    drawn = Drawn(np.empty(rows.size, np.int64), np.empty(rows.size), np.empty(rows.size))
    threads = max(1, min(torch.get_num_threads(), n_rows))
    library = _library()
    room = np.empty((threads, library.room_for(ctypes.c_int64(vocabulary))), np.uint8)
    call = _Choice(
        logits.data_ptr(),
        *(array.ctypes.data for array in (firsts, shares, *drawn, room)),
        *(n_rows, vocabulary, top_k, threads),
        *(temperature, top_p, min_p),
    )
    library.choose_tokens(ctypes.byref(call))
    return drawn


def _library() -> ctypes.CDLL:
    """The compiled form, where `why_unavailable` finds nothing."""
    return loaded(build())


@cache
def build(flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none; with further flags for the compiler."""
    sources = _FOLDER / "native_choose.c", _FOLDER / "ordered.h"
    built = c_library(sources, ("-ffp-contract=off", *flags))
    if not isinstance(built, str):
        built.room_for.restype = ctypes.c_int64
    return built
