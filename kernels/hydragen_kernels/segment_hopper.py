"""`segment_attention` for Hopper: one warp brings keys, two warp groups share them.

Same equations, tiles and partials as `segment.py`, in Gluon, the explicit dialect of Triton. A tile
has 128 rows. A producer warp keeps rings of key and value blocks filled through the bulk copy
engine and runs ahead into the next tile. Each of two consumer warp groups owns 64 rows and waits
only for the blocks: while one is in its softmax, the other has the tensor cores. Within a group the
product with the values runs under the softmax of the next scores. This is the scheme of Shah et
al., arXiv:2407.08608.

Bound: the tensor cores, from about 184 rows on: 706 of the 790 TFLOP/s a plain matrix product
reaches on an H200 (NOTES.md). Two independent tiles of 64 rows reach 545: every one of them
brings its own keys through the L2.
"""

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from hydragen_kernels.hopper_copies import (
    CONSUMER_ROWS,
    barrier,
    bring_blocks,
    clear_behind,
    fetch_queries,
    free_stage,
    make_rings,
    pass_blocks,
)
from hydragen_kernels.tiles import load_tile, tile_rows

_LOG2_E = gl.constexpr(1.4426950408889634)
_LN_2 = gl.constexpr(0.6931471805599453)


@gluon.jit
def _produce_blocks(
    keys, values, tiles, starts, rings, BLOCK_K: gl.constexpr, STAGES: gl.constexpr
):
    """Bring the blocks of every tile, in order."""
    program = gl.program_id(0)
    at = 0
    for tile in range(gl.load(starts + program), gl.load(starts + program + 1)):
        _q0, _n_q, kv0, n_kv, kv_head, _slot, _reach = load_tile(tiles, tile)
        at = bring_blocks(at, keys, values, rings, kv_head, kv0, n_kv, BLOCK_K, STAGES)


@gluon.jit
def _soften(
    scores,
    peak,
    total,
    limits,
    cols,
    first,
    seen_by_all,
    scale,
    cap,
    BLOCK_K: gl.constexpr,
    CAPPED: gl.constexpr,
):
    """One step of the online softmax: weights, decay of what was before, new peak and total."""
    if CAPPED:
        scores = cap - 2.0 * cap / (1.0 + gl.exp2(scores * (scale * 2.0 * _LOG2_E / cap)))
        to_log2 = _LOG2_E
    else:
        to_log2 = scale * _LOG2_E
    if first + BLOCK_K > seen_by_all:
        visible = gl.expand_dims(first + cols, 0) < gl.expand_dims(limits, 1)
        scores = gl.where(visible, scores, float("-inf"))
    new_peak = gl.maximum(peak, gl.max(scores, 1) * to_log2)
    shift = gl.where(new_peak == float("-inf"), 0.0, new_peak)
    weights = gl.exp2(scores * to_log2 - gl.expand_dims(shift, 1))
    decay = gl.exp2(peak - shift)
    return weights, decay, new_peak, total * decay + gl.sum(weights, 1)


@gluon.jit
def _consume(
    memory,
    strides,
    q_shared,
    rings,
    scale,
    cap,
    HALF: gl.constexpr,
    GROUP: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    BLOCK_K: gl.constexpr,
    BLOCK_D: gl.constexpr,
    STAGES: gl.constexpr,
    CAPPED: gl.constexpr,
):
    """Attention of one half of every tile's rows."""
    queries, tiles, starts, partial_out, partial_lse = memory
    stride_qt, stride_qh, stride_os, stride_ot, stride_oh, stride_ls, stride_lt = strides
    k_ring, v_ring, k_full, v_full, k_free, v_free = rings
    dtype: gl.constexpr = k_ring.dtype
    scores_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    out_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_D, 16])
    weights_layout: gl.constexpr = gl.DotOperandLayout(0, out_layout, 2)
    lanes: gl.constexpr = BLOCK_D // 8
    load_layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // lanes, lanes], [4, 1], [1, 0])
    score_rows = HALF * CONSUMER_ROWS + gl.arange(
        0, CONSUMER_ROWS, gl.SliceLayout(1, scores_layout)
    )
    cols = gl.arange(0, BLOCK_K, gl.SliceLayout(0, scores_layout))
    rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, gl.SliceLayout(1, out_layout))
    dims = gl.arange(0, BLOCK_D, gl.SliceLayout(0, out_layout))
    no_scores = gl.zeros([CONSUMER_ROWS, BLOCK_K], gl.float32, scores_layout)

    program = gl.program_id(0)
    end = gl.load(starts + program + 1)
    tile = gl.load(starts + program)
    q_shared.store(
        gl.zeros([CONSUMER_ROWS, BLOCK_D], dtype, load_layout)
    )  # padding of a head stays zero
    barrier()
    fetch_queries(
        q_shared,
        queries,
        tiles,
        tile,
        end,
        stride_qt,
        stride_qh,
        HALF,
        GROUP,
        HEAD_DIM,
        BLOCK_D,
        load_layout,
    )
    at = 0  # blocks met so far, over all tiles
    while tile < end:
        q0, n_q, _kv0, n_kv, kv_head, slot, reach = load_tile(tiles, tile)
        blocks = (n_kv + BLOCK_K - 1) // BLOCK_K
        if n_q * GROUP > HALF * CONSUMER_ROWS:
            async_copy.wait_group(0)
            fence_async_shared()
            barrier()
            limits = gl.minimum(reach + score_rows // GROUP + 1, n_kv)
            seen_by_all = gl.minimum(reach + HALF * CONSUMER_ROWS // GROUP + 1, n_kv)
            peak = gl.full(
                [CONSUMER_ROWS], float("-inf"), gl.float32, gl.SliceLayout(1, scores_layout)
            )
            total = gl.zeros([CONSUMER_ROWS], gl.float32, gl.SliceLayout(1, scores_layout))
            acc = gl.zeros([CONSUMER_ROWS, BLOCK_D], gl.float32, out_layout)

            stage = at % STAGES
            mbarrier.wait(k_full.index(stage), (at // STAGES) & 1)
            k = k_ring.index(stage).reshape([BLOCK_K, BLOCK_D]).permute([1, 0])
            scores = warpgroup_mma(q_shared, k, no_scores, use_acc=False)
            free_stage(k_free.index(stage))
            weights, decay, peak, total = _soften(
                scores, peak, total, limits, cols, 0, seen_by_all, scale, cap, BLOCK_K, CAPPED
            )
            p = gl.convert_layout(weights.to(dtype), weights_layout)
            ahead = (at + 1) % STAGES
            mbarrier.wait(k_full.index(ahead), ((at + 1) // STAGES) & 1, pred=blocks > 1)
            for first in range(BLOCK_K, n_kv, BLOCK_K):
                k = k_ring.index(ahead).reshape([BLOCK_K, BLOCK_D]).permute([1, 0])
                flying_scores = warpgroup_mma(q_shared, k, no_scores, use_acc=False, is_async=True)
                mbarrier.wait(v_full.index(stage), (at // STAGES) & 1)
                v = v_ring.index(stage).reshape([BLOCK_K, BLOCK_D])
                flying_acc = warpgroup_mma(p, v, acc, is_async=True)
                scores = warpgroup_mma_wait(1, deps=(flying_scores,))
                free_stage(k_free.index(ahead))
                weights, decay, peak, total = _soften(
                    scores,
                    peak,
                    total,
                    limits,
                    cols,
                    first,
                    seen_by_all,
                    scale,
                    cap,
                    BLOCK_K,
                    CAPPED,
                )
                # The wait for the keys comes here, not where they are used: it keeps ptxas from
                # moving the wait for the products above the softmax they should run under.
                at += 1
                next_ahead = (at + 1) % STAGES
                more = first + BLOCK_K < n_kv
                mbarrier.wait(k_full.index(next_ahead), ((at + 1) // STAGES) & 1, pred=more)
                acc, p = warpgroup_mma_wait(0, deps=(flying_acc, p))
                free_stage(v_free.index(stage))
                acc = acc * gl.expand_dims(
                    gl.convert_layout(decay, gl.SliceLayout(1, out_layout)), 1
                )
                p = gl.convert_layout(weights.to(dtype), weights_layout)
                stage = ahead
                ahead = next_ahead

            fetch_queries(  # the last scores are there: nobody reads the rows any more
                q_shared,
                queries,
                tiles,
                tile + 1,
                end,
                stride_qt,
                stride_qh,
                HALF,
                GROUP,
                HEAD_DIM,
                BLOCK_D,
                load_layout,
            )
            mbarrier.wait(v_full.index(stage), (at // STAGES) & 1)
            v = v_ring.index(stage).reshape([BLOCK_K, BLOCK_D])
            clear_behind(v, n_kv - (blocks - 1) * BLOCK_K, BLOCK_K, load_layout)
            acc = warpgroup_mma(p, v, acc)
            free_stage(v_free.index(stage))
            at += 1

            has_keys = total > 0.0
            total = gl.where(has_keys, total, 1.0)
            lse = gl.where(has_keys, (peak + gl.log2(total)) * _LN_2, float("-inf"))
            acc = acc / gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, out_layout)), 1)
            token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
            start = slot * stride_os + token * stride_ot + head * stride_oh
            start = gl.expand_dims(start, 1) + gl.expand_dims(dims, 0)
            inside = gl.expand_dims(is_row, 1) & gl.expand_dims(dims < HEAD_DIM, 0)
            gl.store(partial_out + start, acc, mask=inside)
            token, head, is_row = tile_rows(score_rows, q0, n_q, kv_head, GROUP)
            start = slot * stride_ls + token * stride_lt + head
            gl.store(partial_lse + start, lse, mask=is_row)
        else:  # no rows for this half: let the blocks pass
            at = pass_blocks(at, rings, blocks, STAGES)
            fetch_queries(
                q_shared,
                queries,
                tiles,
                tile + 1,
                end,
                stride_qt,
                stride_qh,
                HALF,
                GROUP,
                HEAD_DIM,
                BLOCK_D,
                load_layout,
            )
        tile += 1


@gluon.jit
def segment_hopper_kernel(
    queries,
    keys,
    values,
    tiles,
    starts,
    partial_out,
    partial_lse,
    stride_qt,
    stride_qh,
    stride_os,
    stride_ot,
    stride_oh,
    stride_ls,
    stride_lt,
    scale,
    cap,
    GROUP: gl.constexpr,
    HEAD_DIM: gl.constexpr,
    BLOCK_K: gl.constexpr,
    BLOCK_D: gl.constexpr,
    STAGES: gl.constexpr,
    CAPPED: gl.constexpr,
):
    """Start the two consumers and the producer of a persistent program."""
    dtype: gl.constexpr = keys.dtype
    shared: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    q_shared = gl.allocate_shared_memory(dtype, [2, CONSUMER_ROWS, BLOCK_D], shared)
    rings = make_rings(keys, values, BLOCK_K, BLOCK_D, STAGES)
    memory = (queries, tiles, starts, partial_out, partial_lse)
    # a stride of 1 arrives as a constant, which partitions do not take
    strides = (
        gl.to_tensor(stride_qt),
        gl.to_tensor(stride_qh),
        gl.to_tensor(stride_os),
        gl.to_tensor(stride_ot),
        gl.to_tensor(stride_oh),
        gl.to_tensor(stride_ls),
        gl.to_tensor(stride_lt),
    )
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    memory,
                    strides,
                    q_shared.index(0),
                    rings,
                    scale,
                    cap,
                    0,
                    GROUP,
                    HEAD_DIM,
                    BLOCK_K,
                    BLOCK_D,
                    STAGES,
                    CAPPED,
                ),
            ),
            (
                _consume,
                (
                    memory,
                    strides,
                    q_shared.index(1),
                    rings,
                    scale,
                    cap,
                    1,
                    GROUP,
                    HEAD_DIM,
                    BLOCK_K,
                    BLOCK_D,
                    STAGES,
                    CAPPED,
                ),
            ),
            (_produce_blocks, (keys, values, tiles, starts, rings, BLOCK_K, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
