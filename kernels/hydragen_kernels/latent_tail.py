"""Attention of each row over its own paged tail of latent vectors, which all heads share.

    s = scale * (q_c . c + q_r . r)         out = softmax(s) c

where c is a vector's first `rank` numbers and r the rest. One program a (row, block of heads)
keeps the running maximum, sum and output in registers and reads each vector once, as key and as
value. The heads of a row are the rows of its tensor-core products.

Layout: vectors lie one behind the other in pages, `rank + rest` numbers each.

Bound: memory, 2 (rank + rest) bytes a token and layer in bf16 for up to 16 heads; more heads take
as many times the products, and read from the L2 cache.

Source: the absorbed form of DeepSeek-V2, arXiv 2405.04434.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import FLOATS, check_int32, check_last_contiguous, check_pages
from hydragen_kernels.merge import finish, merge
from hydragen_kernels.segment import soft_cap
from hydragen_kernels.tail import _slots

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _latent_tail_kernel(
    queries,
    vectors,
    page_table,
    lengths,
    out,
    lse,
    stride_qt,
    stride_qh,
    stride_vs,
    stride_pt,
    scale,
    cap,
    q_heads,
    RANK: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PAGE: tl.constexpr,
    SPLITS: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(2)
    cols = tl.arange(0, BLOCK_K)
    of_c = tl.arange(0, BLOCK_C)
    of_r = tl.arange(0, BLOCK_R)
    head = tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    is_head = head < q_heads
    is_c = of_c < RANK
    is_r = of_r < REST

    length = tl.load(lengths + row)
    chunk = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_K) * BLOCK_K
    start = split * chunk
    end = tl.minimum(start + chunk, length)
    page_row = page_table + row * stride_pt
    q_row = queries + row * stride_qt + head[:, None].to(tl.int64) * stride_qh
    q_c = tl.load(q_row + of_c[None, :], mask=is_head[:, None] & is_c[None, :], other=0.0)
    q_r = tl.load(q_row + RANK + of_r[None, :], mask=is_head[:, None] & is_r[None, :], other=0.0)
    peak = tl.full([BLOCK_G], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_C], tl.float32)
    for at in range(start, end, BLOCK_K):
        slots = _slots(page_row, at, cols, end, PAGE, BLOCK_K)
        is_key = at + cols < end
        here = vectors + slots[:, None] * stride_vs
        c = tl.load(here + of_c[None, :], mask=is_key[:, None] & is_c[None, :], other=0.0)
        r = tl.load(here + RANK + of_r[None, :], mask=is_key[:, None] & is_r[None, :], other=0.0)
        scores = tl.dot(q_c, tl.trans(c), input_precision=PRECISION)  # [BLOCK_G, BLOCK_K]
        scores = tl.dot(q_r, tl.trans(r), scores, input_precision=PRECISION) * scale
        if CAPPED:
            scores = soft_cap(scores, cap)
        scores = tl.where(is_key[None, :], scores * _LOG2_E, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))  # finite: a block has at least one key
        decay = tl.exp2(peak - new_peak)
        weights = tl.exp2(scores - new_peak[:, None])
        total = total * decay + tl.sum(weights, 1)
        acc = tl.dot(weights.to(c.dtype), c, acc * decay[:, None], input_precision=PRECISION)
        peak = new_peak

    result, result_lse = finish(peak, total, acc)
    flat = (split * tl.num_programs(0) + row) * q_heads + head
    tl.store(
        out + flat[:, None] * RANK + of_c[None, :], result, mask=is_head[:, None] & is_c[None, :]
    )
    tl.store(lse + flat, result_lse, mask=is_head)


def latent_block(q_heads: int, element_bytes: int = 2) -> tuple[int, int, int, int]:
    """Choose heads a program, keys a step, warps and pipeline stages.

    By registers and shared memory: with 512 numbers a value, two programs of 16 heads find room on
    a multiprocessor of an H200, and one of 32, which spills with fewer warps.
    """
    heads = 16 if q_heads <= 16 else 32
    if element_bytes == 4:
        return heads, 16, 8, 2
    return heads, 64, 4 if heads == 16 else 8, 2


def latent_splits(rows: int, q_heads: int, longest: int, multiprocessors: int = 132) -> int:
    """Choose into how many programs a tail is split, from what the host knows of the plan.

    Args:
        rows: rows of the batch.
        q_heads: query heads.
        longest: tokens the longest tail may have.
        multiprocessors: of the device.

    Returns:
        1 when the rows alone fill the device: more costs a second launch, for the merge.
    """
    programs = max(1, rows * -(-q_heads // latent_block(q_heads)[0]))
    return max(1, min(-(-2 * multiprocessors // programs), longest // 128, 64))


def latent_tails(
    queries: torch.Tensor,
    vectors: torch.Tensor,
    rank: int,
    page_table: torch.Tensor,
    lengths: torch.Tensor,
    page_tokens: int,
    *,
    scale: float,
    softcap: float | None = None,
    splits: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to every row's tail.

    Args:
        queries: `[rows, q_heads, width]` fp16, bf16 or fp32; last dimension contiguous.
        vectors: `[slots, width]`, same dtype; last dimension contiguous.
        rank: the first numbers of a vector, which are its value; 1 to width - 1.
        page_table: `[rows, max_pages]` int32; page p covers slots p * page_tokens to
            (p + 1) * page_tokens - 1.
        lengths: `[rows]` int32, tokens of each tail.
        page_tokens: slots of a page, a power of two.
        scale: factor of the scores, positive.
        softcap: bound c of scores -> c tanh(scores / c), or None.
        splits: programs a tail is split into, as `latent_splits` chooses.

    Returns:
        `(out, lse)`: `[rows, q_heads, rank]` in the query dtype and `[rows, q_heads]` fp32; (0,
        -inf) for a row without a tail.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    rows, q_heads, width = queries.shape
    if vectors.ndim != 2 or vectors.shape[1] != width or not 0 < rank < width:
        raise ValueError(
            f"expected vectors [slots, {width}] and a rank below {width}, got "
            f"{list(vectors.shape)} and {rank}"
        )
    if queries.dtype not in FLOATS or vectors.dtype != queries.dtype:
        raise ValueError(
            f"expected fp16, bf16 or fp32 for all, got {queries.dtype} and {vectors.dtype}"
        )
    for name, tensor in (("queries", queries), ("vectors", vectors)):
        check_last_contiguous(name, tensor)
    check_int32("lengths", lengths, (rows,))
    check_pages(page_table, page_tokens, rows, splits)

    whole = splits == 1
    shape = (rows, q_heads) if whole else (splits, rows, q_heads)
    dtype = queries.dtype if whole else torch.float32
    out = torch.empty(*shape, rank, dtype=dtype, device=queries.device)
    lse = torch.empty(shape, dtype=torch.float32, device=queries.device)
    if rows == 0:
        return queries.new_empty(0, q_heads, rank), lse.new_empty(0, q_heads)
    heads, block_k, num_warps, num_stages = latent_block(q_heads, queries.element_size())
    _latent_tail_kernel[(rows, triton.cdiv(q_heads, heads), splits)](
        queries,
        vectors,
        page_table,
        lengths,
        out,
        lse,
        *queries.stride()[:2],
        vectors.stride(0),
        page_table.stride(0),
        scale,
        softcap or 1.0,
        q_heads,
        RANK=rank,
        REST=width - rank,
        BLOCK_G=heads,
        BLOCK_K=block_k,
        BLOCK_C=max(16, triton.next_power_of_2(rank)),
        BLOCK_R=max(16, triton.next_power_of_2(width - rank)),
        PAGE=page_tokens,
        SPLITS=splits,
        CAPPED=softcap is not None,
        # tensor cores cut sums off after every eight numbers: too often of 576 in float32
        PRECISION="ieee" if queries.dtype == torch.float32 else "tf32",
        num_warps=num_warps,
        num_stages=num_stages,
    )
    if whole:
        return out, lse
    return merge(out, lse, dtype=queries.dtype)
