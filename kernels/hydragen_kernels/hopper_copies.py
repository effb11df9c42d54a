"""What the Hopper form of `segment_attention` copies: blocks of keys and values, rows of queries.

Functions of `segment_hopper.py`, where the whole is described.
"""

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier, tma

from hydragen_kernels.tiles import load_tile, tile_rows

# Triton 3.9 renamed these
if hasattr(tma, "async_load"):
    _copy_block, _copy_rows = tma.async_load, async_copy.async_load
else:
    _copy_block = tma.async_copy_global_to_shared
    _copy_rows = async_copy.async_copy_global_to_shared

CONSUMER_ROWS = gl.constexpr(64)  # of a tile's 128, for one consumer


@gluon.jit
def produce_blocks(
    keys,
    values,
    tiles,
    starts,
    rings,
    BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr,
):
    """Bring the blocks of every tile, in order, as soon as both consumers have freed a stage."""
    k_ring, v_ring, k_full, v_full, k_free, v_free = rings
    program = gl.program_id(0)
    stage = 0
    phase = 0
    for tile in range(gl.load(starts + program), gl.load(starts + program + 1)):
        _q0, _n_q, kv0, n_kv, kv_head, _slot, _reach = load_tile(tiles, tile)
        for first in range(0, n_kv, BLOCK_K):
            mbarrier.wait(k_free.index(stage), phase ^ 1)
            mbarrier.expect(k_full.index(stage), keys.block_type.nbytes)
            _copy_block(keys, [kv_head, kv0 + first, 0], k_full.index(stage), k_ring.index(stage))
            mbarrier.wait(v_free.index(stage), phase ^ 1)
            mbarrier.expect(v_full.index(stage), values.block_type.nbytes)
            _copy_block(values, [kv_head, kv0 + first, 0], v_full.index(stage), v_ring.index(stage))
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def fetch_queries(
    q_shared,
    queries,
    tiles,
    tile,
    end,
    stride_qt,
    stride_qh,
    HALF: gl.constexpr,
    GROUP: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    BLOCK_D: gl.constexpr,
    LAYOUT: gl.constexpr,
):
    """Begin to copy a tile's rows of this consumer; what lies beside them stays as it is."""
    is_tile = tile < end
    q0, n_q, _kv0, _n_kv, kv_head, _slot, _reach = load_tile(tiles, tile, is_tile, 0)
    rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, gl.SliceLayout(1, LAYOUT))
    dims = gl.arange(0, BLOCK_D, gl.SliceLayout(0, LAYOUT))
    token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
    start = gl.expand_dims(token * stride_qt + head * stride_qh, 1)
    inside = gl.expand_dims(is_row, 1) & gl.expand_dims(dims < HEAD_DIM, 0)
    _copy_rows(q_shared, queries + start + gl.expand_dims(dims, 0), mask=inside)
    async_copy.commit_group()
