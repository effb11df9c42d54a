"""`ordered_segments` for Hopper: what `segment_hopper.py` is to `segment.py`.

The same states as those of `ordered_segment.py`, bit for bit: the same sums, by instructions that
add up the same 16 keys. Copies, barriers and the order of products are those of
`segment_hopper.py`; its pipeline runs on from one piece to the next. The sum of a tile's closed
chunks waits in shared memory, of which every thread reads only what it has written itself. The 16
sums of a mass are spread over threads as weights are: none of them meets another thread's.

Bound: the tensor cores, as of `segment_hopper.py`; a score costs an addition more than there.
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
from hydragen_kernels.ordered_fold import (
    NO_KEYS,
    add_weights,
    halves,
    level_weights,
    score_levels,
)
from hydragen_kernels.ordered_schedule import KEY_GROUP, WRITES_OPEN, WRITES_SUM
from hydragen_kernels.tiles import load_piece, load_tile, tile_rows

# A use of a thread's part of a mass by an instruction that stays where it is: a shuffle. The next
# use is behind the wait for the products that a block's powers should run under, and the compiler
# would move them there. No mass has a sign, so nothing is changed.
_PACKED = gl.constexpr(8)
_HERE = gl.constexpr(
    "{ .reg .b32 all; mov.b32 all, 0;"
    + "".join(f" or.b32 all, all, ${i + 8};" for i in range(8))
    + " shfl.sync.idx.b32 all, all, 0, 31, 0xffffffff; and.b32 all, all, 0x80000000;"
    + " or.b32 $0, $8, all;"
    + "".join(f" mov.b32 ${i}, ${i + 8};" for i in range(1, 8))
    + " }"
)
_REGISTERS = gl.constexpr(",".join(["=r"] * 8 + ["r"] * 8))
_WRITES_SUM, _WRITES_OPEN = gl.constexpr(WRITES_SUM), gl.constexpr(WRITES_OPEN)
_KEY_GROUP = gl.constexpr(KEY_GROUP)


@gluon.jit
def _produce_pieces(
    keys, values, tiles, pieces, starts, rings, BLOCK_K: gl.constexpr, STAGES: gl.constexpr
):
    """Bring the blocks of every tile's pieces, in order."""
    program = gl.program_id(0)
    at = 0
    for tile in range(gl.load(starts + program), gl.load(starts + program + 1)):
        _q0, _n_q, piece0, n_pieces, kv_head, _slot, _writes = load_tile(tiles, tile)
        for piece in range(piece0, piece0 + n_pieces):
            first, count, _reach, _closes, _position = load_piece(pieces, piece)
            at = bring_blocks(at, keys, values, rings, kv_head, first, count, BLOCK_K, STAGES)


@gluon.jit
def _weigh(
    scores, peak, reach, count, first, scale, cap,
    HALF: gl.constexpr, GROUP: gl.constexpr, BLOCK_K: gl.constexpr, CAPPED: gl.constexpr,
):  # fmt: skip
    """Of a block's scores: weights, the decay of what was before, and the new peak."""
    layout: gl.constexpr = scores.type.layout
    levels = score_levels(scores, scale, cap, CAPPED, False)
    seen_by_all = gl.minimum(reach + HALF * CONSUMER_ROWS // GROUP + 1, count)
    if first + BLOCK_K > seen_by_all:
        rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, gl.SliceLayout(1, layout))
        cols = gl.arange(0, BLOCK_K, gl.SliceLayout(0, layout))
        limits = gl.minimum(reach + rows // GROUP + 1, count)
        visible = gl.expand_dims(first + cols, 0) < gl.expand_dims(limits, 1)
        levels = gl.where(visible, levels, float("-inf"))
    new_peak = gl.maximum(peak, gl.ceil(gl.max(levels, 1)))
    weights = level_weights(levels, gl.expand_dims(new_peak, 1), False)
    return weights, gl.exp2(peak - new_peak), new_peak


@gluon.jit
def _no_mass(weights):
    """A mass of no keys, spread over threads as groups of these weights are."""
    if weights.shape[1] == _KEY_GROUP:
        layout: gl.constexpr = weights.type.layout
        return gl.zeros([CONSUMER_ROWS, _KEY_GROUP], gl.float32, layout)
    else:
        left, _right = halves(weights)
        return _no_mass(left)


@gluon.jit
def _scaled(x, factor):
    """Rows times a factor each, which comes in another layout of the same rows."""
    return x * gl.expand_dims(gl.convert_layout(factor, gl.SliceLayout(1, x.type.layout)), 1)


@gluon.jit
def _add(sum_peak, sum_mass, sum_acc, peak, mass, acc):
    """`add_states`, of peaks in another layout of the same rows."""
    new_peak = gl.maximum(sum_peak, peak)
    own, other = gl.exp2(sum_peak - new_peak), gl.exp2(peak - new_peak)
    sum_mass = _scaled(sum_mass, own) + _scaled(mass, other)
    return new_peak, sum_mass, _scaled(sum_acc, own) + _scaled(acc, other)


@gluon.jit
def _store_state(
    states, strides, slot, q0, n_q, kv_head, peak, mass, acc,
    HALF: gl.constexpr, GROUP: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    """Write a state of rows into a partial slot."""
    peaks, masses, accs = states
    stride_s, stride_t, stride_as, stride_at, stride_ah = strides
    of_peak: gl.constexpr = peak.type.layout
    of_mass: gl.constexpr = mass.type.layout
    of_acc: gl.constexpr = acc.type.layout
    for_rows: gl.constexpr = gl.SliceLayout(1, of_acc)
    rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, of_peak)
    token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
    gl.store(peaks + slot * stride_s + token * stride_t + head, peak, mask=is_row)
    rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, gl.SliceLayout(1, of_mass))
    token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
    place = gl.expand_dims((slot * stride_s + token * stride_t + head) * _KEY_GROUP, 1)
    place += gl.expand_dims(gl.arange(0, _KEY_GROUP, gl.SliceLayout(0, of_mass)), 0)
    gl.store(masses + place, mass, mask=gl.expand_dims(is_row, 1))
    rows = HALF * CONSUMER_ROWS + gl.arange(0, CONSUMER_ROWS, for_rows)
    token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
    dims = gl.expand_dims(gl.arange(0, acc.shape[1], gl.SliceLayout(0, of_acc)), 0)
    place = gl.expand_dims(slot * stride_as + token * stride_at + head * stride_ah, 1)
    inside = gl.expand_dims(is_row, 1) & (dims < HEAD_DIM)
    gl.store(accs + place + dims, acc, mask=inside)


@gluon.jit
def _consume(
    memory, of_queries, of_states, q_shared, sums, rings, scale, cap,
    HALF: gl.constexpr, GROUP: gl.constexpr, HEAD_DIM: gl.constexpr, BLOCK_K: gl.constexpr,
    BLOCK_D: gl.constexpr, STAGES: gl.constexpr, CAPPED: gl.constexpr,
):  # fmt: skip
    """States of one half of every tile's rows."""
    queries, tiles, pieces, starts, peaks, masses, accs = memory
    states = (peaks, masses, accs)
    k_ring, v_ring, k_full, v_full, k_free, v_free = rings
    dtype: gl.constexpr = k_ring.dtype
    scores_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    peak_layout: gl.constexpr = gl.SliceLayout(1, scores_layout)
    out_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_D, 16])
    weights_layout: gl.constexpr = gl.DotOperandLayout(0, out_layout, 2)
    lanes: gl.constexpr = BLOCK_D // 8
    load_layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // lanes, lanes], [4, 1], [1, 0])
    no_scores = gl.zeros([CONSUMER_ROWS, BLOCK_K], gl.float32, scores_layout)
    no_mass = _no_mass(no_scores)

    program = gl.program_id(0)
    end = gl.load(starts + program + 1)
    tile = gl.load(starts + program)
    q_shared.store(
        gl.zeros([CONSUMER_ROWS, BLOCK_D], dtype, load_layout)
    )  # padding of a head stays zero
    barrier()
    fetch_queries(
        q_shared, queries, tiles, tile, end, *of_queries,
        HALF, GROUP, HEAD_DIM, BLOCK_D, load_layout,
    )  # fmt: skip
    at = 0  # blocks met so far, over all tiles
    while tile < end:
        q0, n_q, piece0, n_pieces, kv_head, slot, writes = load_tile(tiles, tile)
        pieces_end = piece0 + n_pieces
        has_rows = n_q * GROUP > HALF * CONSUMER_ROWS
        peak = gl.full([CONSUMER_ROWS], NO_KEYS, gl.float32, peak_layout)
        mass = no_mass
        acc = gl.zeros([CONSUMER_ROWS, BLOCK_D], gl.float32, out_layout)
        sum_peak = peak
        sum_mass = mass
        n_closed = 0  # chunks that shared memory has the sum of
        closed = 0  # whether a chunk ends with the block before
        async_copy.wait_group(0)
        if has_rows & (n_pieces > 0):
            fence_async_shared()
            barrier()
            _slot, count, reach, closes, _position = load_piece(pieces, piece0)

            stage = at % STAGES
            mbarrier.wait(k_full.index(stage), (at // STAGES) & 1)
            k = k_ring.index(stage).reshape([BLOCK_K, BLOCK_D]).permute([1, 0])
            scores = warpgroup_mma(q_shared, k, no_scores, use_acc=False)
            free_stage(k_free.index(stage))
            weights, _decay, peak = _weigh(
                scores, peak, reach, count, 0, scale, cap, HALF, GROUP, BLOCK_K, CAPPED
            )
            mass = add_weights(mass, weights)
            p = gl.convert_layout(weights.to(dtype), weights_layout)
            past = count  # of the block whose values come next, its keys
            ahead = (at + 1) % STAGES
            more = (count > BLOCK_K) | (n_pieces > 1)
            mbarrier.wait(k_full.index(ahead), ((at + 1) // STAGES) & 1, pred=more)
            for piece in range(piece0, pieces_end):
                is_other = piece + 1 < pieces_end
                _slot, next_count, next_reach, next_closes, _position = load_piece(
                    pieces, piece + 1, is_other, 0
                )
                for first in range(gl.where(piece == piece0, BLOCK_K, 0), count, BLOCK_K):
                    mbarrier.wait(v_full.index(stage), (at // STAGES) & 1)
                    v = v_ring.index(stage).reshape([BLOCK_K, BLOCK_D])
                    clear_behind(v, past, BLOCK_K, load_layout)
                    k = k_ring.index(ahead).reshape([BLOCK_K, BLOCK_D]).permute([1, 0])
                    flying_scores = warpgroup_mma(
                        q_shared, k, no_scores, use_acc=False, is_async=True
                    )
                    flying_acc = warpgroup_mma(p, v, acc, is_async=True)
                    scores = warpgroup_mma_wait(1, deps=(flying_scores,))
                    free_stage(k_free.index(ahead))
                    ends = (closed != 0) & (first == 0)
                    before = gl.where(ends, NO_KEYS, peak)
                    weights, decay, new_peak = _weigh(
                        scores, before, reach, count, first, scale, cap,
                        HALF, GROUP, BLOCK_K, CAPPED,
                    )  # fmt: skip
                    new_mass = gl.where(ends, 0.0, _scaled(mass, decay))
                    new_mass = add_weights(new_mass, weights)
                    new_mass = gl.inline_asm_elementwise(
                        _HERE, _REGISTERS, [new_mass], gl.float32, is_pure=False, pack=_PACKED
                    )
                    # The wait for the keys comes here, as in `segment_hopper`.
                    at += 1
                    next_ahead = (at + 1) % STAGES
                    more = (first + BLOCK_K < count) | is_other
                    mbarrier.wait(k_full.index(next_ahead), ((at + 1) // STAGES) & 1, pred=more)
                    acc, p = warpgroup_mma_wait(0, deps=(flying_acc, p))
                    free_stage(v_free.index(stage))
                    if ends:
                        sum_acc = gl.where(n_closed == 0, 0.0, sums.load(out_layout))
                        sum_peak, sum_mass, sum_acc = _add(
                            sum_peak, sum_mass, sum_acc, peak, mass, acc
                        )
                        sums.store(sum_acc)
                        n_closed += 1
                        acc = gl.zeros([CONSUMER_ROWS, BLOCK_D], gl.float32, out_layout)
                    else:
                        acc = _scaled(acc, decay)
                    peak = new_peak
                    mass = new_mass
                    p = gl.convert_layout(weights.to(dtype), weights_layout)
                    past = count - first
                    stage = ahead
                    ahead = next_ahead
                closed = closes
                if is_other:
                    count = next_count
                    reach = next_reach
                    closes = next_closes

            mbarrier.wait(v_full.index(stage), (at // STAGES) & 1)
            v = v_ring.index(stage).reshape([BLOCK_K, BLOCK_D])
            clear_behind(v, past, BLOCK_K, load_layout)
            acc = warpgroup_mma(p, v, acc)
            free_stage(v_free.index(stage))
            at += 1
        else:
            for piece in range(piece0, pieces_end):
                _slot, count, _reach, _closes, _position = load_piece(pieces, piece)
                at = pass_blocks(at, rings, (count + BLOCK_K - 1) // BLOCK_K, STAGES)
        fetch_queries(
            q_shared, queries, tiles, tile + 1, end, *of_queries,
            HALF, GROUP, HEAD_DIM, BLOCK_D, load_layout,
        )  # fmt: skip
        if has_rows & ((writes & _WRITES_SUM) != 0):
            sum_acc = gl.where(n_closed == 0, 0.0, sums.load(out_layout))
            if closed != 0:
                sum_peak, sum_mass, sum_acc = _add(sum_peak, sum_mass, sum_acc, peak, mass, acc)
            _store_state(
                states, of_states, slot, q0, n_q, kv_head, sum_peak, sum_mass, sum_acc,
                HALF, GROUP, HEAD_DIM,
            )  # fmt: skip
            slot += 1
        if has_rows & ((writes & _WRITES_OPEN) != 0):
            peak = gl.where(closed != 0, NO_KEYS, peak)
            mass = gl.where(closed != 0, 0.0, mass)
            acc = gl.where(closed != 0, 0.0, acc)
            _store_state(
                states, of_states, slot, q0, n_q, kv_head, peak, mass, acc, HALF, GROUP, HEAD_DIM
            )
        tile += 1


@gluon.jit
def ordered_segment_hopper_kernel(
    queries,
    keys,
    values,
    tiles,
    pieces,
    starts,
    peaks,
    masses,
    accs,
    stride_qt,
    stride_qh,
    stride_s,
    stride_t,
    stride_as,
    stride_at,
    stride_ah,
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
    # eight rows that a warp writes at once lie in other banks
    spread: gl.constexpr = gl.SwizzledSharedLayout(8, 1, 8, [1, 0])
    sums = gl.allocate_shared_memory(gl.float32, [2, CONSUMER_ROWS, BLOCK_D], spread)
    rings = make_rings(keys, values, BLOCK_K, BLOCK_D, STAGES)
    memory = (queries, tiles, pieces, starts, peaks, masses, accs)
    # a stride of 1 arrives as a constant, which partitions do not take
    of_queries = (gl.to_tensor(stride_qt), gl.to_tensor(stride_qh))
    of_states = (
        gl.to_tensor(stride_s),
        gl.to_tensor(stride_t),
        gl.to_tensor(stride_as),
        gl.to_tensor(stride_at),
        gl.to_tensor(stride_ah),
    )
    gl.warp_specialize(
        [
            (
                _consume,
                (
                    memory, of_queries, of_states, q_shared.index(0), sums.index(0), rings,
                    scale, cap, 0, GROUP, HEAD_DIM, BLOCK_K, BLOCK_D, STAGES, CAPPED,
                ),
            ),
            (
                _consume,
                (
                    memory, of_queries, of_states, q_shared.index(1), sums.index(1), rings,
                    scale, cap, 1, GROUP, HEAD_DIM, BLOCK_K, BLOCK_D, STAGES, CAPPED,
                ),
            ),
            (_produce_pieces, (keys, values, tiles, pieces, starts, rings, BLOCK_K, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip
