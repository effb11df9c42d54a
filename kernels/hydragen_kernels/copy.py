"""Copy tokens' keys and values from slots to slots, in every layer at once.

    keys[l, h, target[t]] = keys[l, h, source[t]], and values alike

A tail that becomes a segment moves into a run of slots; launches for every layer would cost the
host about what all else of such a step does. A branch that forks takes a copy of its last page:
how many do, only the device knows, so its programs share out as many copies as there are.
Memory-bound: reads and writes each element once. Bits are moved, whatever they mean.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import check_contiguous, check_int32, check_last_contiguous

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_BLOCK_T = 16  # tokens a program
_PROGRAMS = 1024  # that share out pages


@triton.jit
def _copy_kernel(
    keys,
    values,
    source,
    target,
    tokens,
    kv_heads,
    stride_kl,
    stride_kh,
    stride_ks,
    stride_vl,
    stride_vh,
    stride_vs,
    HEAD_DIM: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    layer = (tl.program_id(1) // kv_heads).to(tl.int64)
    head = (tl.program_id(1) % kv_heads).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    dims = tl.arange(0, BLOCK_D)[None, :]
    inside = (token < tokens)[:, None] & (dims < HEAD_DIM)
    here = tl.load(source + token, mask=token < tokens, other=0).to(tl.int64)[:, None]
    there = tl.load(target + token, mask=token < tokens, other=0).to(tl.int64)[:, None]
    keys += layer * stride_kl + head * stride_kh + dims
    values += layer * stride_vl + head * stride_vh + dims
    k = tl.load(keys + here * stride_ks, mask=inside)
    v = tl.load(values + here * stride_vs, mask=inside)
    tl.store(keys + there * stride_ks, k, mask=inside)
    tl.store(values + there * stride_vs, v, mask=inside)


@triton.jit
def _page_kernel(
    keys,
    values,
    source,
    target,
    count,
    layers,
    kv_heads,
    stride_kl,
    stride_kh,
    stride_ks,
    stride_vl,
    stride_vh,
    stride_vs,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    dims = tl.arange(0, BLOCK_D)[None, :]
    tokens = tl.arange(0, PAGE)[:, None]
    inside = (dims < HEAD_DIM) & (tokens < PAGE)
    heads = layers * kv_heads
    for work in range(tl.program_id(0), (tl.load(count) * heads).to(tl.int32), tl.num_programs(0)):
        page = work // heads
        layer = (work % heads // kv_heads).to(tl.int64)
        head = (work % kv_heads).to(tl.int64)
        here = tl.load(source + page).to(tl.int64) * PAGE + tokens
        there = tl.load(target + page).to(tl.int64) * PAGE + tokens
        k_base = keys + layer * stride_kl + head * stride_kh + dims
        v_base = values + layer * stride_vl + head * stride_vh + dims
        k = tl.load(k_base + here * stride_ks, mask=inside)
        v = tl.load(v_base + here * stride_vs, mask=inside)
        tl.store(k_base + there * stride_ks, k, mask=inside)
        tl.store(v_base + there * stride_vs, v, mask=inside)


def copy_pages(
    keys: torch.Tensor,
    values: torch.Tensor,
    source: torch.Tensor,
    target: torch.Tensor,
    count: torch.Tensor,
    page_tokens: int,
) -> None:
    """Copy whole pages within the arena, as many as the device says.

    Args:
        keys: `[layers, kv_heads, slots, head_dim]`, written, elements of 1, 2 or 4 bytes; last
            dimension contiguous.
        values: like `keys`.
        source: `[most]` int32, the page each is copied from.
        target: `[most]` int32, the page each is copied to; no two alike, none of them a source.
        count: `[1]` int64, pages to copy.
        page_tokens: slots of a page, a power of two.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    bits = _check_arena(keys, values)
    check_int32("source", source, (source.numel(),))
    check_int32("target", target, (source.numel(),))
    check_contiguous("count", count, torch.int64, (1,))
    layers, kv_heads, _, head_dim = keys.shape
    if layers == 0:
        return
    _page_kernel[(min(_PROGRAMS, max(1, source.numel()) * layers * kv_heads),)](
        keys.view(bits),
        values.view(bits),
        source,
        target,
        count,
        layers,
        kv_heads,
        *keys.stride()[:3],
        *values.stride()[:3],
        HEAD_DIM=head_dim,
        PAGE=page_tokens,
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=4,
    )


def copy_tokens(
    keys: torch.Tensor, values: torch.Tensor, source: torch.Tensor, target: torch.Tensor
) -> None:
    """Copy keys and values of tokens within the arena.

    Args:
        keys: `[layers, kv_heads, slots, head_dim]`, written, elements of 1, 2 or 4 bytes; last
            dimension contiguous.
        values: like `keys`.
        source: `[tokens]` int32, the slot each is copied from.
        target: `[tokens]` int32, the slot each is copied to; no two alike, none of them a source.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    bits = _check_arena(keys, values)
    tokens = source.numel()
    check_int32("source", source, (tokens,))
    check_int32("target", target, (tokens,))
    layers, kv_heads, _, head_dim = keys.shape
    if tokens == 0 or layers == 0:
        return
    _copy_kernel[(triton.cdiv(tokens, _BLOCK_T), layers * kv_heads)](
        keys.view(bits),
        values.view(bits),
        source,
        target,
        tokens,
        kv_heads,
        *keys.stride()[:3],
        *values.stride()[:3],
        HEAD_DIM=head_dim,
        BLOCK_T=_BLOCK_T,
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=4,
    )


def _check_arena(keys: torch.Tensor, values: torch.Tensor) -> torch.dtype:
    """Check an arena; return a type of integers as wide as its elements."""
    bits = _BITS.get(keys.element_size())
    alike = values.shape == keys.shape and values.dtype == keys.dtype
    if keys.ndim != 4 or not alike or bits is None:
        raise ValueError(
            "expected keys and values [layers, kv_heads, slots, head_dim] of one dtype, got "
            f"{keys.dtype} {list(keys.shape)} and {values.dtype} {list(values.shape)}"
        )
    for name, arena in (("keys", keys), ("values", values)):
        check_last_contiguous(name, arena)
    return bits
