"""Store new tokens' keys and values in the arena, rotating the keys on the way if asked.

    keys[h, slots[t]] = k[t, h] cos[t] + rotate_half(k[t, h]) sin[t]
    values[h, slots[t]] = v[t, h]

Converted to the arena's type; to 8 bits with saturation.

Rotary embedding as in Su et al., arXiv:2104.09864, in the half-split form transformers uses.
Memory-bound: reads and writes each element once.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.fp8 import e4m3_bits
from hydragen_kernels.inputs import FLOATS, FP8, check_int32, check_last_contiguous


@triton.jit
def _append_kernel(
    keys,
    values,
    k,
    v,
    slots,
    cos,
    sin,
    stride_ak,
    stride_as,
    stride_bk,
    stride_bs,
    stride_kt,
    stride_kh,
    stride_vt,
    stride_vh,
    stride_ct,
    stride_st,
    kv_heads,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    if slot < 0:  # padding
        return
    head = (tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)).to(tl.int64)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    inside = (head < kv_heads) & (dims < HEAD_DIM)
    k += token * stride_kt + head * stride_kh
    one_k = tl.load(k + dims, mask=inside, other=0.0)  # [BLOCK_H, BLOCK_D]
    one_v = tl.load(v + token * stride_vt + head * stride_vh + dims, mask=inside, other=0.0)
    if ROTARY_DIM > 0:
        half: tl.constexpr = ROTARY_DIM // 2
        is_first = dims < half
        is_rotary = dims < ROTARY_DIM
        partner = tl.where(is_first, dims + half, dims - half)
        other = tl.load(k + partner, mask=inside & is_rotary, other=0.0).to(tl.float32)
        c = tl.load(cos + token * stride_ct + dims, mask=is_rotary, other=1.0).to(tl.float32)
        s = tl.load(sin + token * stride_st + dims, mask=is_rotary, other=0.0).to(tl.float32)
        one_k = one_k.to(tl.float32) * c + tl.where(is_first, -other, other) * s
    if keys.dtype.element_ty == tl.uint8:
        one_k, one_v = e4m3_bits(one_k), e4m3_bits(one_v)
    tl.store(keys + head * stride_ak + slot * stride_as + dims, one_k, mask=inside)
    tl.store(values + head * stride_bk + slot * stride_bs + dims, one_v, mask=inside)


def append(
    keys: torch.Tensor,
    values: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    slots: torch.Tensor,
    *,
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Store keys and values of new tokens.

    Args:
        keys: `[kv_heads, slots, head_dim]`, the arena, written: fp32, fp16, bf16 or fp8; last
            dimension contiguous.
        values: `[kv_heads, slots, head_dim]`, the arena, written; same dtype; last dimension
            contiguous.
        k: `[tokens, kv_heads, head_dim]`; last dimension contiguous.
        v: `[tokens, kv_heads, head_dim]`; last dimension contiguous.
        slots: `[tokens]` int32, where each token goes, no two alike; negative: nowhere.
        rotary: `(cos, sin)`, each `[tokens, rotary_dim]`, the first half repeated as in
            transformers; rotates the first `rotary_dim` elements of the keys.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    tokens, kv_heads, head_dim = k.shape
    arena = [kv_heads, keys.shape[1], head_dim]
    if v.shape != k.shape or list(keys.shape) != arena or list(values.shape) != arena:
        raise ValueError(
            f"expected keys and values {arena}, k and v alike; got {list(keys.shape)}, "
            f"{list(values.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if keys.dtype not in (*FLOATS, FP8) or values.dtype != keys.dtype:
        raise ValueError(f"expected an arena of one dtype, got {keys.dtype} and {values.dtype}")
    check_int32("slots", slots, (tokens,))
    for name, tensor in (("keys", keys), ("values", values), ("k", k), ("v", v)):
        check_last_contiguous(name, tensor)
    cos, sin = rotary or (k, k)
    rotary_dim = cos.shape[-1] if rotary else 0
    if rotary:
        if cos.shape != (tokens, rotary_dim) or sin.shape != cos.shape:
            raise ValueError(f"rotary: expected [{tokens}, rotary_dim] twice, got {cos.shape}")
        if rotary_dim % 2 or rotary_dim > head_dim:
            raise ValueError(f"rotary: expected an even width up to {head_dim}, got {rotary_dim}")
        check_last_contiguous("cos", cos)
        check_last_contiguous("sin", sin)
    if tokens == 0:
        return
    if keys.dtype == FP8:
        keys, values = keys.view(torch.uint8), values.view(torch.uint8)
    block_h = min(8, triton.next_power_of_2(kv_heads))
    _append_kernel[(tokens, triton.cdiv(kv_heads, block_h))](
        keys,
        values,
        k,
        v,
        slots,
        cos,
        sin,
        *keys.stride()[:2],
        *values.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        cos.stride(0),
        sin.stride(0),
        kv_heads,
        HEAD_DIM=head_dim,
        ROTARY_DIM=rotary_dim,
        BLOCK_H=block_h,
        BLOCK_D=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
