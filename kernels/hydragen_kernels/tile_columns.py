"""Columns of a tile table by name, as constants that Triton's kernels read.

Each is the place of a name in `schedule.TILE_FIELDS`.
"""

import triton.language as tl

from hydragen_kernels.schedule import TILE_FIELDS

TILE_SIZE = tl.constexpr(len(TILE_FIELDS))
TILE_Q0 = tl.constexpr(TILE_FIELDS.index("q0"))
TILE_N_Q = tl.constexpr(TILE_FIELDS.index("n_q"))
TILE_KV0 = tl.constexpr(TILE_FIELDS.index("kv0"))
TILE_N_KV = tl.constexpr(TILE_FIELDS.index("n_kv"))
TILE_KV_HEAD = tl.constexpr(TILE_FIELDS.index("kv_head"))
TILE_PARTIAL_SLOT = tl.constexpr(TILE_FIELDS.index("partial_slot"))
TILE_REACH = tl.constexpr(TILE_FIELDS.index("reach"))
