"""Copy tokens' keys and values from slots to slots, in every layer at once.

    keys[l, h, target[t]] = keys[l, h, source[t]], and values alike

A branch that forks takes a copy of its last page, and a tail that becomes a segment moves into a
run of slots: a launch a layer and tensor would cost the host more than all else such a step does.
Memory-bound: reads and writes each element once. Bits are moved, whatever they mean.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import check_int32, check_last_contiguous

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_BLOCK_T = 16  # tokens a program


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
    if keys.ndim != 4 or values.shape != keys.shape or values.dtype != keys.dtype:
        raise ValueError(
            "expected keys and values [layers, kv_heads, slots, head_dim] of one dtype, got "
            f"{keys.dtype} {list(keys.shape)} and {values.dtype} {list(values.shape)}"
        )
    check_int32("source", source, tuple(source.shape[:1]))
    check_int32("target", target, tuple(source.shape))
    for name, arena in (("keys", keys), ("values", values)):
        check_last_contiguous(name, arena)
    layers, kv_heads, _, head_dim = keys.shape
    tokens = len(source)
    if tokens == 0:
        return
    bits = _BITS[keys.element_size()]
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
