"""How kernels read a tile: its fields from the tile table, and what its rows are.

Triton and Gluon kernels both call these: they load single numbers and work in any layout of rows.
"""

import triton
import triton.language as tl

from hydragen_kernels.ordered_schedule import PIECE_FIELDS
from hydragen_kernels.schedule import TILE_FIELDS

_SIZE = tl.constexpr(len(TILE_FIELDS))
_Q0 = tl.constexpr(TILE_FIELDS.index("q0"))
_N_Q = tl.constexpr(TILE_FIELDS.index("n_q"))
_KV0 = tl.constexpr(TILE_FIELDS.index("kv0"))
_N_KV = tl.constexpr(TILE_FIELDS.index("n_kv"))
_KV_HEAD = tl.constexpr(TILE_FIELDS.index("kv_head"))
_PARTIAL_SLOT = tl.constexpr(TILE_FIELDS.index("partial_slot"))
_REACH = tl.constexpr(TILE_FIELDS.index("reach"))
_POSITION = tl.constexpr(TILE_FIELDS.index("position"))
_PIECE_SIZE = tl.constexpr(len(PIECE_FIELDS))


@triton.jit
def load_tile(tiles, tile, mask=None, other=None):
    """A tile's fields, in the order of `TILE_FIELDS`, but for its position.

    Mask and other are those of `load`.

    Loads of fields that the caller has no use for are left out by the compiler.
    """
    record = tiles + tile * _SIZE
    q0 = tl.load(record + _Q0, mask=mask, other=other)
    n_q = tl.load(record + _N_Q, mask=mask, other=other)
    kv0 = tl.load(record + _KV0, mask=mask, other=other)
    n_kv = tl.load(record + _N_KV, mask=mask, other=other)
    kv_head = tl.load(record + _KV_HEAD, mask=mask, other=other)
    slot = tl.load(record + _PARTIAL_SLOT, mask=mask, other=other).to(tl.int64)
    reach = tl.load(record + _REACH, mask=mask, other=other)
    return q0, n_q, kv0, n_kv, kv_head, slot, reach


@triton.jit
def load_position(tiles, tile):
    """Where a tile's first key stands in the sequences of its queries."""
    return tl.load(tiles + tile * _SIZE + _POSITION)


@triton.jit
def first_keys(first, position, n_kv, is_row, BLOCK_K: tl.constexpr):
    """What rows see of n_kv keys, the first of which stands at a position, through their windows.

    Args:
        first: `[ROWS]` the first position that each sees.

    Returns:
        the first key that each sees, 0 to n_kv; and, of blocks of keys, the first one that any row
        sees a part of, and the first from which on every row sees all.
    """
    begins = tl.minimum(tl.maximum(first - position, 0), n_kv)
    begins = tl.where(is_row, begins, 0)
    seen = tl.min(tl.where(is_row, begins, n_kv), 0) // BLOCK_K * BLOCK_K
    return begins, seen, tl.cdiv(tl.max(begins, 0), BLOCK_K) * BLOCK_K


@triton.jit
def load_piece(pieces, piece, mask=None, other=None):
    """A piece's fields, in the order of `PIECE_FIELDS`; mask and other are those of `load`."""
    record = pieces + piece * _PIECE_SIZE
    slot = tl.load(record, mask=mask, other=other)
    count = tl.load(record + 1, mask=mask, other=other)
    reach = tl.load(record + 2, mask=mask, other=other)
    closes = tl.load(record + 3, mask=mask, other=other)
    position = tl.load(record + 4, mask=mask, other=other)
    return slot, count, reach, closes, position


@triton.jit
def tile_rows(rows, q0, n_q, kv_head, GROUP: tl.constexpr):
    """Of rows of a tile: their query tokens, int64, their heads, and which of them there are."""
    token = (q0 + rows // GROUP).to(tl.int64)
    return token, kv_head * GROUP + rows % GROUP, rows // GROUP < n_q
