"""Merge any number of partials of each row.

    lse = log sum_i exp(lse_i)        out = sum_i exp(lse_i - lse) out_i

in fp32, with the identity (0, -inf); a sink is a partial with out 0 and lse = the head's sink
(Xiao et al., arXiv:2309.17453). Memory-bound: each partial is read once.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import check_int32, check_last_contiguous, check_partials

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def fold(peak, total, acc, lse, out):
    """Fold partials (out, lse) into running (peak, total, acc); peak is in powers of two."""
    lse = lse * _LOG2_E
    new_peak = tl.maximum(peak, lse)
    shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    decay = tl.exp2(peak - shift)
    weight = tl.exp2(lse - shift)
    return new_peak, total * decay + weight, acc * decay[:, None] + weight[:, None] * out


@triton.jit
def finish(peak, total, acc):
    """Turn running (peak, total, acc) into (out, lse)."""
    has_keys = total > 0.0
    total = tl.where(has_keys, total, 1.0)
    lse = tl.where(has_keys, (peak + tl.log2(total)) * _LN_2, float("-inf"))
    return acc / total[:, None], lse


@triton.jit
def _merge_kernel(
    partial_out,
    partial_lse,
    counts,
    sinks,
    own_out,
    own_lse,
    out,
    lse,
    pairs,
    q_heads,
    slots,
    stride_os,
    stride_ot,
    stride_oh,
    stride_ls,
    stride_lt,
    stride_wt,
    stride_wh,
    HEAD_DIM: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    pair = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # (row, head)
    dims = tl.arange(0, BLOCK_D)
    is_pair = pair < pairs
    row = (pair // q_heads).to(tl.int64)
    head = pair % q_heads
    is_element = is_pair[:, None] & (dims < HEAD_DIM)[None, :]
    if counts is None:
        owned = tl.where(is_pair, slots, 0)
    else:
        owned = tl.load(counts + row, mask=is_pair, other=0)

    peak = tl.full([BLOCK_R], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    acc = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    o_ptr = partial_out + (row * stride_ot + head * stride_oh)[:, None] + dims[None, :]
    l_ptr = partial_lse + row * stride_lt + head
    for slot in range(tl.max(owned, 0)):
        is_owned = slot < owned
        one_lse = tl.load(l_ptr, mask=is_owned, other=float("-inf"))
        one_out = tl.load(o_ptr, mask=is_owned[:, None] & is_element, other=0.0)
        peak, total, acc = fold(peak, total, acc, one_lse, one_out)
        o_ptr += stride_os
        l_ptr += stride_ls
    if own_out is not None:
        w_ptr = own_out + (row * stride_wt + head * stride_wh)[:, None] + dims[None, :]
        one_lse = tl.load(own_lse + pair, mask=is_pair, other=float("-inf"))
        one_out = tl.load(w_ptr, mask=is_element, other=0.0).to(tl.float32)
        peak, total, acc = fold(peak, total, acc, one_lse, one_out)
    if sinks is not None:
        sink = tl.load(sinks + head, mask=is_pair, other=float("-inf")).to(tl.float32)
        peak, total, acc = fold(peak, total, acc, sink, tl.zeros_like(acc))
    result, result_lse = finish(peak, total, acc)
    flat = pair.to(tl.int64)
    tl.store(out + flat[:, None] * HEAD_DIM + dims[None, :], result, mask=is_element)
    tl.store(lse + flat, result_lse, mask=is_pair)


def merge(
    partial_out: torch.Tensor,
    partial_lse: torch.Tensor,
    counts: torch.Tensor | None = None,
    *,
    sinks: torch.Tensor | None = None,
    own: tuple[torch.Tensor, torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge each row's partials.

    Args:
        partial_out: `[n, tokens, q_heads, head_dim]` fp32; last dimension contiguous.
        partial_lse: `[n, tokens, q_heads]` fp32, natural logarithm; last dimension contiguous.
        counts: `[tokens]` int32, how many of the n slots a row owns (the first ones); None: all.
        sinks: `[q_heads]`, a score every softmax of that head also counts, or None.
        own: one more partial of every row: `[tokens, q_heads, width]` in any dtype, last dimension
            contiguous, and `[tokens, q_heads]` fp32. Of the others only so many numbers are read.
        dtype: of the result.

    Returns:
        `(out, lse)`: `[tokens, q_heads, head_dim]`, or `width`, in `dtype` and `[tokens, q_heads]`
        fp32; a sink is counted in the lse. Rows without partials give (0, -inf).

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    slots, tokens, q_heads, head_dim = partial_out.shape
    check_partials(partial_out, partial_lse, tokens, q_heads, head_dim)
    if counts is not None:
        check_int32("counts", counts, (tokens,))
    own_out, own_lse = (None, None) if own is None else own
    strides: tuple[int, ...] = (0, 0)
    if own_out is not None and own_lse is not None:
        head_dim = _check_own(own_out, own_lse, tokens, q_heads, head_dim)
        strides = own_out.stride()[:2]
    out = torch.empty(tokens, q_heads, head_dim, dtype=dtype, device=partial_out.device)
    lse = torch.empty(tokens, q_heads, dtype=torch.float32, device=partial_out.device)
    if tokens == 0:
        return out, lse
    block_r = 8
    _merge_kernel[(triton.cdiv(tokens * q_heads, block_r),)](
        partial_out,
        partial_lse,
        counts,
        sinks,
        own_out,
        own_lse,
        out,
        lse,
        tokens * q_heads,
        q_heads,
        slots,
        *partial_out.stride()[:3],
        *partial_lse.stride()[:2],
        *strides,
        HEAD_DIM=head_dim,
        BLOCK_R=block_r,
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
    return out, lse


def _check_own(
    out: torch.Tensor, lse: torch.Tensor, tokens: int, q_heads: int, head_dim: int
) -> int:
    """Check one more partial of every row; return the numbers of a head that it has."""
    fits = out.shape[:2] == lse.shape == (tokens, q_heads) and 0 < out.shape[2] <= head_dim
    if not fits or lse.dtype != torch.float32 or not lse.is_contiguous():
        raise ValueError(
            f"own: expected [{tokens}, {q_heads}, at most {head_dim}] and contiguous fp32 "
            f"[{tokens}, {q_heads}], got {list(out.shape)} and {lse.dtype} {list(lse.shape)}"
        )
    check_last_contiguous("own", out)
    return int(out.shape[2])
