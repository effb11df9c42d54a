"""Attention of packed queries over shared segments: one persistent launch.

    out = softmax(cap(scale q k^T)) v        lse = log sum exp(cap(scale q k^T))

per query row and per range of keys, as fp32 partials that `tail_attention` and `merge` combine.
Online softmax as in Milakov and Gimelshein, arXiv:1805.02867, tiled as in Dao, arXiv:2307.08691;
shared keys against the stacked queries of all rows below them as in Juravsky et al.,
arXiv:2402.05099.

On Hopper, `segment_hopper.py` computes the same, faster; the schedule's tile shape says which runs.

Layout. Rows of a tile are (query token x grouped head), so that grouped heads share each key that
is read. Programs stay resident and work through their own run of the tile table, which is read on
the device: a captured CUDA graph survives a change of plan.

Bound. The keys of a segment cross memory once and serve all its rows, tiles that share them running
side by side: above about 184 rows the tensor cores are the limit, below it memory is.
"""

import logging
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from hydragen_kernels.fp8 import readable, widen
from hydragen_kernels.inputs import (
    FP8,
    check_attention_inputs,
    check_int32,
    check_partials,
)
from hydragen_kernels.merge import finish
from hydragen_kernels.schedule import TileConfig, tile_config
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_kernels.tiles import first_keys, load_position, load_tile, tile_rows

_LOG2_E = tl.constexpr(1.4426950408889634)
_LOG = logging.getLogger(__name__)


@triton.jit
def soft_cap(scores, cap):
    """Return cap * tanh(scores / cap), in terms of exp2, which is exact at both ends."""
    return cap - 2.0 * cap / (1.0 + tl.exp2(scores * (2.0 * _LOG2_E / cap)))


@triton.jit
def _attend(
    peak,
    total,
    acc,
    q,
    keys,
    values,
    kv_head,
    kv0,
    first,
    end,
    n_kv,
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
    """Fold keys first .. end - 1 of a tile's range into its running (peak, total, acc).

    Masked, a row sees the keys from its begin on (None: from the first) up to its limit.
    """
    cols = tl.arange(0, BLOCK_K)
    for start in range(first, end, BLOCK_K):
        k = widen(keys.load([kv_head, kv0 + start, 0]).reshape(BLOCK_K, BLOCK_D), q.dtype)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [BLOCK_Q, BLOCK_K]
        if CAPPED:
            scores = soft_cap(scores * scale, cap)
            to_log2 = _LOG2_E
        else:
            to_log2 = scale * _LOG2_E
        if MASKED:
            visible = (start + cols)[None, :] < limits[:, None]
            if begins is not None:
                visible = visible & ((start + cols)[None, :] >= begins[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1) * to_log2)
        shift = new_peak
        if MASKED:  # a row that has seen no key yet: exp2(-inf - 0) is 0, not NaN
            shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        weights = tl.exp2(scores * to_log2 - shift[:, None])
        decay = tl.exp2(peak - shift)
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None]
        v = widen(values.load([kv_head, kv0 + start, 0]).reshape(BLOCK_K, BLOCK_D), q.dtype)
        if MASKED:  # beyond the range lies anything, NaN too
            v = tl.where((start + cols < n_kv)[:, None], v, 0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
        peak = new_peak
    return peak, total, acc


@triton.jit
def _segment_kernel(
    queries,
    keys,
    values,
    tiles,
    starts,
    partial_out,
    partial_lse,
    first,
    stride_qt,
    stride_qh,
    stride_os,
    stride_ot,
    stride_oh,
    stride_ls,
    stride_lt,
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
    for tile in range(tl.load(starts + program), tl.load(starts + program + 1)):
        q0, n_q, kv0, n_kv, kv_head, slot, reach = load_tile(tiles, tile)
        token, head, is_row = tile_rows(rows, q0, n_q, kv_head, GROUP)
        is_element = is_row[:, None] & (dims < HEAD_DIM)[None, :]
        q_ptr = queries + (token * stride_qt + head * stride_qh)[:, None] + dims[None, :]
        q = tl.load(q_ptr, mask=is_element, other=0.0)  # [BLOCK_Q, BLOCK_D]

        peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        limits = tl.minimum(reach + rows // GROUP + 1, n_kv)
        seen_by_all = tl.minimum(reach + 1, n_kv) // BLOCK_K * BLOCK_K
        whole = 0  # from here on every row sees every key
        begins = None
        if first is not None:
            positions = tl.load(first + token, mask=is_row, other=0)
            begins, seen, whole = first_keys(
                positions, load_position(tiles, tile), n_kv, is_row, BLOCK_K
            )
            seen_by_all = tl.maximum(seen_by_all, seen)
            whole = tl.minimum(whole, seen_by_all)
            peak, total, acc = _attend(
                peak, total, acc, q, keys, values, kv_head, kv0,
                seen, whole, n_kv, begins, limits, scale, cap,
                BLOCK_K, BLOCK_D, CAPPED, True, PRECISION,
            )  # fmt: skip
        peak, total, acc = _attend(
            peak, total, acc, q, keys, values, kv_head, kv0,
            whole, seen_by_all, n_kv, begins, limits, scale, cap,
            BLOCK_K, BLOCK_D, CAPPED, False, PRECISION,
        )  # fmt: skip
        peak, total, acc = _attend(
            peak, total, acc, q, keys, values, kv_head, kv0,
            seen_by_all, n_kv, n_kv, begins, limits, scale, cap,
            BLOCK_K, BLOCK_D, CAPPED, True, PRECISION,
        )  # fmt: skip

        result, lse = finish(peak, total, acc)
        o_ptr = partial_out + (slot * stride_os + token * stride_ot + head * stride_oh)[:, None]
        tl.store(o_ptr + dims[None, :], result, mask=is_element)
        tl.store(partial_lse + slot * stride_ls + token * stride_lt + head, lse, mask=is_row)


@cache
def _hopper_kernel() -> Any:
    """The kernel for Hopper, or why there is none: Gluon is experimental, and its names change."""
    try:
        from hydragen_kernels.segment_hopper import segment_hopper_kernel
    except (ImportError, AttributeError) as error:
        return f"Triton {triton.__version__} has no Gluon for it ({error})"
    return segment_hopper_kernel


def why_not_hopper(device: torch.device) -> str | None:
    """Why a Hopper device runs the portable, slower form; None where nothing is lost.

    Args:
        device: where the kernel will run.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return None
    kernel = _hopper_kernel()
    return kernel if isinstance(kernel, str) else None


def best_config(
    device: torch.device | str,
    dtype: torch.dtype,
    head_dim: int,
    group: int = 1,
    kv_dtype: torch.dtype | None = None,
    *,
    is_windowed: bool = False,
) -> TileConfig:
    """Choose the tile shape, and with it the kernel, for a device.

    Args:
        device: where the kernel will run.
        dtype: of queries.
        head_dim: elements of a head, at most 256.
        group: query heads that share a kv head, at most 128.
        kv_dtype: of keys and values; None: that of the queries.
        is_windowed: layers may see the last tokens only.

    Raises:
        ValueError: a head or a group is too wide.
    """
    portable = tile_config(head_dim, dtype.itemsize, group)
    device = torch.device(device)
    if device.type != "cuda" or dtype == torch.float32 or head_dim % 16 or head_dim < 64:
        return portable
    # The Hopper form multiplies what the copy engine brings, as it is, and all of a segment.
    if kv_dtype == FP8 or is_windowed:
        return portable
    if torch.cuda.get_device_capability(device) != (9, 0):
        return portable
    if why := why_not_hopper(device):
        _warn_once(why)
        return portable
    if head_dim > 128:
        return TileConfig(128, 64, 4, 2, 1, specialized=True)
    return TileConfig(128, 128, 4, 4 if head_dim <= 64 else 2, 1, specialized=True)


@cache
def _warn_once(why: str) -> None:
    _LOG.warning("segment attention: the portable kernel instead of Hopper's: %s", why)


def segment_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: SegmentTiles,
    partial_out: torch.Tensor,
    partial_lse: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    first: torch.Tensor | None = None,
) -> None:
    """Write every row's partials over the scheduled segments.

    Slots `0 .. tables.counts[row] - 1` of a row are written, the others left alone.

    Args:
        queries: `[tokens, q_heads, head_dim]` fp16, bf16 or fp32; last dimension contiguous.
        keys: `[kv_heads, slots, head_dim]`, same dtype or fp8; last dimension contiguous.
        values: like `keys`.
        tables: which queries meet which slots.
        partial_out: `[partial_slots, tokens, q_heads, head_dim]` fp32, written.
        partial_lse: `[partial_slots, tokens, q_heads]` fp32, natural logarithm, written.
        scale: factor of the scores, positive.
        softcap: bound c of scores -> c tanh(scores / c), or None.
        first: `[tokens]` int32, the first position of its sequence that each query sees; None: all.
            Keys that no row of a tile sees are not read.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    tokens, q_heads, head_dim = queries.shape
    group = check_attention_inputs(queries, keys, values, scale, softcap)
    check_partials(partial_out, partial_lse, tokens, q_heads, head_dim)
    for name, arena in (("keys", keys), ("values", values)):
        if arena.data_ptr() % 16 or any(
            step * arena.element_size() % 16 for step in arena.stride()[:2]
        ):
            raise ValueError(f"{name}: expected rows aligned to 16 bytes, got {arena.stride()}")
    if first is not None:
        check_int32("first", first, (tokens,))
    config = tables.config
    if config.specialized and first is not None:
        raise ValueError("schedule: its tiles are of the Hopper form, which knows no windows")
    if config.specialized and keys.dtype == FP8:
        raise ValueError("schedule: its tiles are of the Hopper form, which reads no fp8")
    partial_strides = (*partial_out.stride()[:3], *partial_lse.stride()[:2])
    memory = (tables.tiles, tables.starts, partial_out, partial_lse)
    grid = (len(tables.starts) - 1,)
    constants = {"GROUP": group, "HEAD_DIM": head_dim, "CAPPED": softcap is not None}
    if config.specialized:
        queries, k_blocks, v_blocks, block_d = hopper_inputs(queries, keys, values, config.block_k)
        _hopper_kernel()[grid](
            queries,
            k_blocks,
            v_blocks,
            *memory,
            *queries.stride()[:2],
            *partial_strides,
            scale,
            softcap or 1.0,
            **constants,
            BLOCK_K=config.block_k,
            BLOCK_D=block_d,
            STAGES=config.num_stages,
            num_warps=config.num_warps,
        )
        return
    block_d = max(16, triton.next_power_of_2(head_dim))
    block = [1, config.block_k, block_d]
    _segment_kernel[grid](
        queries,
        TensorDescriptor.from_tensor(readable(keys), block),
        TensorDescriptor.from_tensor(readable(values), block),
        *memory,
        first,
        *queries.stride()[:2],
        *partial_strides,
        scale,
        softcap or 1.0,
        **constants,
        BLOCK_Q=config.block_q,
        BLOCK_K=config.block_k,
        BLOCK_D=block_d,
        PRECISION="tf32x3" if queries.dtype == torch.float32 else "tf32",
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def hopper_inputs(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block_k: int
) -> tuple[torch.Tensor, Any, Any, int]:
    """What Hopper forms read: aligned queries, descriptors of keys and values, a block's width.

    Args:
        queries: `[tokens, q_heads, head_dim]` fp16 or bf16.
        keys: `[kv_heads, slots, head_dim]`, same dtype.
        values: like `keys`.
        block_k: keys of a block.
    """
    from triton.experimental.gluon.language import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as RingDescriptor

    if any(step % 16 for step in (*queries.stride()[:2], queries.data_ptr())):
        queries = queries.clone(memory_format=torch.contiguous_format)  # it copies 16 bytes at once
    block_d = max(64, triton.next_power_of_2(queries.shape[2]))
    block, layout = [1, block_k, block_d], NVMMASharedLayout(128, 16, rank=3)
    k_blocks, v_blocks = (RingDescriptor.from_tensor(x, block, layout) for x in (keys, values))
    return queries, k_blocks, v_blocks, block_d
