"""Attention of packed queries over shared segments, in one order of summation; one launch.

What `segment.py` computes, but as states (see `ordered_fold`) of chunks at absolute positions, for
`ordered_tail` to go on with. Tiles, their programs and their rows are those of `segment.py`; a
tile's keys are pieces of segments, as `ordered_schedule` lists them.

Bound: as of `segment.py`. A tile that adds up several chunks holds two accumulators.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from hydragen_kernels.fp8 import readable, widen_as_it_lies
from hydragen_kernels.inputs import check_attention_inputs, check_int32
from hydragen_kernels.ordered_fold import add_states, fold_keys, no_keys
from hydragen_kernels.ordered_schedule import WRITES_OPEN, WRITES_SUM, ordered_config
from hydragen_kernels.ordered_states import States, check_states, store_state
from hydragen_kernels.schedule import TileConfig
from hydragen_kernels.segment import best_config, hopper_inputs
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_kernels.tiles import first_keys, load_piece, load_tile, tile_rows

# A product that is rounded before it is added must be so in every form of the kernel.
AS_WRITTEN = {} if os.environ.get("TRITON_INTERPRET") == "1" else {"enable_fp_fusion": False}
_WRITES_SUM, _WRITES_OPEN = tl.constexpr(WRITES_SUM), tl.constexpr(WRITES_OPEN)


@triton.jit
def _fold_piece(
    peak,
    mass,
    acc,
    q,
    keys,
    values,
    kv_head,
    slot,
    first,
    end,
    count,
    begins,
    limits,
    scale,
    cap,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAPPED: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Fold keys first .. end - 1 of a piece.

    Masked, a row sees those from its begin on (None: from the first) up to its limit.
    """
    cols = tl.arange(0, BLOCK_K)
    for start in range(first, end, BLOCK_K):
        k = widen_as_it_lies(
            keys.load([kv_head, slot + start, 0]).reshape(BLOCK_K, BLOCK_D), q.dtype
        )
        v = widen_as_it_lies(
            values.load([kv_head, slot + start, 0]).reshape(BLOCK_K, BLOCK_D), q.dtype
        )
        visible = None
        if MASKED:
            visible = (start + cols)[None, :] < limits[:, None]
            if begins is not None:
                visible = visible & ((start + cols)[None, :] >= begins[:, None])
            v = tl.where((start + cols < count)[:, None], v, 0.0)  # beyond lies anything, NaN too
        peak, mass, acc = fold_keys(
            peak, mass, acc, q, k, v, visible, scale, cap, CAPPED, PRECISION
        )
    return peak, mass, acc


@triton.jit
def _ordered_segment_kernel(
    queries,
    keys,
    values,
    tiles,
    pieces,
    starts,
    peaks,
    masses,
    accs,
    firsts,
    stride_qt,
    stride_qh,
    stride_s,
    stride_t,
    stride_as,
    stride_at,
    stride_ah,
    scale,
    cap,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program = tl.program_id(0)
    rows = tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, BLOCK_D)
    memory = (peaks, masses, accs)
    for tile in range(tl.load(starts + program), tl.load(starts + program + 1)):
        q0, n_q, piece0, n_pieces, kv_head, slot, writes = load_tile(tiles, tile)
        token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
        is_element = is_row[:, None] & (dims < HEAD_DIM)[None, :]
        q_ptr = queries + (token * stride_qt + head * stride_qh)[:, None] + dims[None, :]
        q = tl.load(q_ptr, mask=is_element, other=0.0)  # [BLOCK_Q, BLOCK_D]
        if firsts is not None:
            seen_from = tl.load(firsts + token, mask=is_row, other=0)
        sum_peak, sum_mass, sum_acc = no_keys(BLOCK_Q, BLOCK_D)
        peak, mass, acc = no_keys(BLOCK_Q, BLOCK_D)
        for piece in range(piece0, piece0 + n_pieces):
            first, count, reach, closes, position = load_piece(pieces, piece)
            limits = tl.minimum(reach + rows // GROUP + 1, count)
            seen_by_all = tl.maximum(tl.minimum(reach + 1, count), 0) // BLOCK_K * BLOCK_K
            begins = None
            if firsts is not None:  # all of the few keys are masked: one more loop would spill
                begins, seen_by_all, _ = first_keys(seen_from, position, count, is_row, BLOCK_K)
            else:
                peak, mass, acc = _fold_piece(
                    peak, mass, acc, q, keys, values, kv_head, first,
                    0, seen_by_all, count, begins, limits, scale, cap,
                    BLOCK_K, BLOCK_D, CAPPED, False, PRECISION,
                )  # fmt: skip
            peak, mass, acc = _fold_piece(
                peak, mass, acc, q, keys, values, kv_head, first,
                seen_by_all, count, count, begins, limits, scale, cap,
                BLOCK_K, BLOCK_D, CAPPED, True, PRECISION,
            )  # fmt: skip
            if closes != 0:
                sum_peak, sum_mass, sum_acc = add_states(
                    sum_peak, sum_mass, sum_acc, peak, mass, acc
                )
                peak, mass, acc = no_keys(BLOCK_Q, BLOCK_D)
        at_peak = slot * stride_s + token * stride_t + head
        at_acc = (slot * stride_as + token * stride_at + head * stride_ah)[:, None] + dims[None, :]
        if writes & _WRITES_SUM:
            store_state(memory, at_peak, at_acc, is_row, is_element, sum_peak, sum_mass, sum_acc)
            at_peak += stride_s
            at_acc += stride_as
        if writes & _WRITES_OPEN:
            store_state(memory, at_peak, at_acc, is_row, is_element, peak, mass, acc)


def ordered_tiles(
    device: torch.device | str,
    dtype: torch.dtype,
    head_dim: int,
    group: int = 1,
    kv_dtype: torch.dtype | None = None,
    *,
    is_windowed: bool = False,
) -> TileConfig:
    """Choose the tile shape, and with it the kernel, for a device; arguments of `best_config`."""
    config = best_config(device, dtype, head_dim, group, kv_dtype, is_windowed=is_windowed)
    # values of fp16 are widened in registers, and wider heads leave no room for the sum of chunks
    if config.specialized and dtype == torch.bfloat16 and head_dim <= 128:
        return config
    return ordered_config(head_dim, dtype, group)


def ordered_segments(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: SegmentTiles,
    states: States,
    *,
    scale: float,
    softcap: float | None = None,
    first: Tensor | None = None,
) -> None:
    """Write every row's states over the scheduled segments.

    Slots `0 .. tables.counts[row] - 1` of a row are written, the others left alone.

    Args:
        queries: `[tokens, q_heads, head_dim]` fp16, bf16 or fp32; last dimension contiguous.
        keys: `[kv_heads, slots, head_dim]`, same dtype or fp8; last dimension contiguous.
        values: like `keys`.
        tables: an ordered schedule.
        states: written.
        scale: factor of the scores, positive.
        softcap: bound c of scores -> c tanh(scores / c), or None.
        first: `[tokens]` int32, the first position of its sequence that each query sees; None: all.
            Keys that no row of a tile sees are not read.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    group = check_attention_inputs(queries, keys, values, scale, softcap)
    check_states(states, *queries.shape)
    if first is not None:
        check_int32("first", first, queries.shape[:1])
    if tables.pieces is None:
        raise ValueError("tables: expected those of an ordered schedule")
    config = tables.config
    if config.specialized:
        if first is not None:
            raise ValueError("schedule: its tiles are of the Hopper form, which knows no windows")
        _launch_hopper(queries, keys, values, tables, states, scale, softcap)
        return
    block_d = max(16, triton.next_power_of_2(queries.shape[2]))
    block = [1, config.block_k, block_d]
    _ordered_segment_kernel[(len(tables.starts) - 1,)](
        queries,
        TensorDescriptor.from_tensor(readable(keys), block),
        TensorDescriptor.from_tensor(readable(values), block),
        tables.tiles,
        tables.pieces,
        tables.starts,
        *states,
        first,
        *queries.stride()[:2],
        *states.peak.stride()[:2],
        *states.acc.stride()[:3],
        scale,
        softcap or 1.0,
        GROUP=group,
        HEAD_DIM=queries.shape[2],
        BLOCK_Q=config.block_q,
        BLOCK_K=config.block_k,
        BLOCK_D=block_d,
        CAPPED=softcap is not None,
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        **AS_WRITTEN,
    )


def _launch_hopper(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: SegmentTiles,
    states: States,
    scale: float,
    softcap: float | None,
) -> None:
    """As `ordered_segments`, by `ordered_segment_hopper`."""
    from hydragen_kernels.ordered_segment_hopper import ordered_segment_hopper_kernel

    config = tables.config
    queries, k_blocks, v_blocks, block_d = hopper_inputs(queries, keys, values, config.block_k)
    ordered_segment_hopper_kernel[(len(tables.starts) - 1,)](
        queries,
        k_blocks,
        v_blocks,
        tables.tiles,
        tables.pieces,
        tables.starts,
        *states,
        *queries.stride()[:2],
        *states.peak.stride()[:2],
        *states.acc.stride()[:3],
        scale,
        softcap or 1.0,
        GROUP=queries.shape[1] // keys.shape[0],
        HEAD_DIM=queries.shape[2],
        BLOCK_K=config.block_k,
        BLOCK_D=block_d,
        STAGES=config.num_stages,
        CAPPED=softcap is not None,
        num_warps=config.num_warps,
        **AS_WRITTEN,
    )
