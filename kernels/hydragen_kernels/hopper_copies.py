"""What Hopper forms of segment kernels copy: blocks of keys and values, rows of queries.

`segment_hopper.py` describes the whole.
"""

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    tma,
)

from hydragen_kernels.tiles import load_tile, tile_rows

# Triton 3.9 renamed these
if hasattr(tma, "async_load"):
    _copy_block, _copy_rows = tma.async_load, async_copy.async_load
else:
    _copy_block = tma.async_copy_global_to_shared
    _copy_rows = async_copy.async_copy_global_to_shared

barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier  # renamed in Triton 3.9

CONSUMER_ROWS = gl.constexpr(64)  # of a tile's 128, for one consumer


@gluon.jit
def make_rings(keys, values, BLOCK_K: gl.constexpr, BLOCK_D: gl.constexpr, STAGES: gl.constexpr):
    """Room for `STAGES` blocks of keys and of values, and the barriers of each: full, and free."""
    k_ring = gl.allocate_shared_memory(keys.dtype, [STAGES, 1, BLOCK_K, BLOCK_D], keys.layout)
    v_ring = gl.allocate_shared_memory(values.dtype, [STAGES, 1, BLOCK_K, BLOCK_D], values.layout)
    bars: gl.constexpr = mbarrier.MBarrierLayout()
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bars)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bars)
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bars)
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bars)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
        mbarrier.init(v_free.index(stage), count=2)
    fence_async_shared()
    return k_ring, v_ring, k_full, v_full, k_free, v_free


@gluon.jit
def bring_blocks(
    at, keys, values, rings, kv_head, kv0, n_kv, BLOCK_K: gl.constexpr, STAGES: gl.constexpr
):
    """Bring a range's blocks, as soon as both consumers have freed a stage.

    Takes how many blocks were brought before, and returns how many then.
    """
    k_ring, v_ring, k_full, v_full, k_free, v_free = rings
    for first in range(0, n_kv, BLOCK_K):
        stage = at % STAGES
        phase = (at // STAGES) & 1
        mbarrier.wait(k_free.index(stage), phase ^ 1)
        mbarrier.expect(k_full.index(stage), keys.block_type.nbytes)
        _copy_block(keys, [kv_head, kv0 + first, 0], k_full.index(stage), k_ring.index(stage))
        mbarrier.wait(v_free.index(stage), phase ^ 1)
        mbarrier.expect(v_full.index(stage), values.block_type.nbytes)
        _copy_block(values, [kv_head, kv0 + first, 0], v_full.index(stage), v_ring.index(stage))
        at += 1
    return at


@gluon.jit
def free_stage(bar):
    """Tell the producer that this consumer has read a stage: all of its warps have."""
    barrier()
    mbarrier.arrive(bar, count=1)


@gluon.jit
def pass_blocks(at, rings, blocks, STAGES: gl.constexpr):
    """Let blocks pass that this consumer has no rows for; returns how many were met then."""
    _k_ring, _v_ring, k_full, v_full, k_free, v_free = rings
    for _ in range(blocks):
        stage = at % STAGES
        mbarrier.wait(k_full.index(stage), (at // STAGES) & 1)
        free_stage(k_free.index(stage))
        mbarrier.wait(v_full.index(stage), (at // STAGES) & 1)
        free_stage(v_free.index(stage))
        at += 1
    return at


@gluon.jit
def clear_behind(v, past, BLOCK_K: gl.constexpr, LAYOUT: gl.constexpr):
    """Clear a block's values from `past` on: there lies anything, NaN too.

    Both consumers write the same.
    """
    if past < BLOCK_K:
        rows = gl.arange(0, BLOCK_K, gl.SliceLayout(1, LAYOUT))
        v.store(gl.where(gl.expand_dims(rows < past, 1), v.load(LAYOUT), 0.0))
        fence_async_shared()
        barrier()


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
