"""What lies between the products of a layer, each in one launch: norms, rotation, gated activation.

A transformers model computes each of them in five to nine launches, and writes what lies between to
memory, in fp32 where it has to be. With many rows that takes as long as the products (NOTES.md).
Here every number is rounded where the model rounds it. So what comes out is the same, bit for bit
but for the order in which a norm adds up its squares and the last digit of an exponential.

A row's result depends on that row alone.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.layer_forms import Activation, NormForm, Rotation

# A product that is rounded before it is added to must not become part of a fused operation.
AS_WRITTEN = {} if os.environ.get("TRITON_INTERPRET") == "1" else {"enable_fp_fusion": False}
_BLOCK = 2048  # numbers that a program works on, of several rows where they are short


def rms_norm(x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
    """x / sqrt(mean(x^2) + eps), weighted.

    Args:
        x: `[..., width]`, any floating dtype, its last dimension dense.
        weight: `[width]`.
        eps: added to the mean square.
        form: how the weight is used.

    Returns:
        `[..., width]` in x's dtype.
    """
    return _norm(x, None, None, weight, eps, form)


def add_norm(
    x: Tensor, more: Tensor, weight: Tensor, eps: float, form: NormForm
) -> tuple[Tensor, Tensor]:
    """x + more, rounded, and the RMS norm of that.

    Args:
        x: `[..., width]`, any floating dtype, its last dimension dense.
        more: likewise, all of it dense.
        weight: `[width]`.
        eps: added to the mean square.
        form: how the weight is used.

    Returns:
        Both `[..., width]` in x's dtype, dense.
    """
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return total, _norm(x, more, total, weight, eps, form)


def _norm(
    x: Tensor, more: Tensor | None, total: Tensor | None, weight: Tensor, eps: float, form: NormForm
) -> Tensor:
    width = x.shape[-1]
    rows = x.flatten(0, -3) if x.ndim > 2 else x[None]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    n = rows.shape[0] * rows.shape[1]
    if n:
        block = triton.next_power_of_2(width)
        per_program = max(1, _BLOCK // block)
        _norm_kernel[(triton.cdiv(n, per_program),)](
            rows,
            more,
            total,
            weight,
            out,
            n,
            rows.shape[1],
            rows.stride(0),
            rows.stride(1),
            EPS=eps,
            WIDTH=width,
            BLOCK=block,
            ROWS=per_program,
            FORM=int(form),
            num_warps=4 if block <= 4096 else 8,
            **AS_WRITTEN,
        )
    return out


@triton.jit
def _norm_kernel(
    x,
    more,
    total,
    weight,
    out,
    n,
    inner,
    outer_stride,
    inner_stride,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    FORM: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, BLOCK)
    here = (row < n)[:, None] & (column < WIDTH)[None, :]
    start = row // inner * outer_stride + row % inner * inner_stride
    dense = row[:, None] * WIDTH + column[None, :]
    given = tl.load(x + start[:, None] + column[None, :], mask=here, other=0.0)
    if more is not None:
        other = tl.load(more + dense, mask=here, other=0.0)
        given = (given.to(tl.float32) + other.to(tl.float32)).to(given.dtype)
        tl.store(total + dense, given, here)
    wide = given.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, 1) / WIDTH + EPS)
    wide = wide * scale[:, None]
    factor = tl.load(weight + column, mask=column < WIDTH, other=0.0)[None, :]
    tl.store(out + dense, weighted(wide, factor, given.dtype, FORM), here)


@triton.jit
def weighted(wide, factor, dtype: tl.constexpr, FORM: tl.constexpr):
    """Numbers over their rms, in fp32, with a norm's weight, rounded."""
    factor = factor.to(tl.float32)
    if FORM == 0:
        wide = wide.to(dtype).to(tl.float32)
    if FORM == 2:
        factor = factor + 1.0
    return (wide * factor).to(dtype)


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, form: Rotation = Rotation.WHOLE
) -> tuple[Tensor, Tensor]:
    """Rotary positions of queries and keys: x cos + rotate_half(x) sin.

    Args:
        q: `[1, q_heads, tokens, head_dim]`, the last dimension dense.
        k: `[1, kv_heads, tokens, head_dim]`, likewise.
        cos: `[1, tokens, angles]`, dense.
        sin: likewise.
        form: which numbers are rotated, by which angles.

    Returns:
        Both rotated; in memory a token's heads lie side by side, as attention reads them.
    """
    _, q_heads, tokens, dim = q.shape
    kv_heads = k.shape[1]
    half = (cos.shape[-1] if form == Rotation.LEADING else dim) // 2
    outs = [
        torch.empty(1, tokens, heads, dim, dtype=q.dtype, device=q.device)
        for heads in (q_heads, kv_heads)
    ]
    if tokens:
        per_program = max(1, _BLOCK // triton.next_power_of_2(dim))
        q_blocks = triton.cdiv(q_heads, per_program)
        _rotate_kernel[(tokens, q_blocks + triton.cdiv(kv_heads, per_program))](
            q,
            k,
            *outs,
            cos,
            sin,
            q.stride(1),
            q.stride(2),
            k.stride(1),
            k.stride(2),
            q_blocks,
            Q_HEADS=q_heads,
            KV_HEADS=kv_heads,
            DIM=dim,
            HALF=half,
            ANGLES=cos.shape[-1],
            SECOND=0 if form == Rotation.TWICE else half,
            HALF_BLOCK=triton.next_power_of_2(half),
            REST_BLOCK=triton.next_power_of_2(dim - 2 * half) if dim > 2 * half else 0,
            HEADS=per_program,
            num_warps=4,
            **AS_WRITTEN,
        )
    q_out, k_out = outs
    return q_out.transpose(1, 2), k_out.transpose(1, 2)


@triton.jit
def _rotate_kernel(
    q,
    k,
    q_out,
    k_out,
    cos,
    sin,
    q_head_stride,
    q_token_stride,
    k_head_stride,
    k_token_stride,
    q_blocks,
    Q_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    ANGLES: tl.constexpr,
    SECOND: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    token, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if block < q_blocks:
        head = block * HEADS + tl.arange(0, HEADS)
        is_head = head < Q_HEADS
        source = q + token * q_token_stride + head * q_head_stride
        target = q_out + token * Q_HEADS * DIM + head * DIM
    else:
        head = (block - q_blocks) * HEADS + tl.arange(0, HEADS)
        is_head = head < KV_HEADS
        source = k + token * k_token_stride + head * k_head_stride
        target = k_out + token * KV_HEADS * DIM + head * DIM
    source, target = source[:, None], target[:, None]
    cos += token * ANGLES
    sin += token * ANGLES
    column = tl.arange(0, HALF_BLOCK)
    is_column = column < HALF
    here = is_head[:, None] & is_column[None, :]
    low = tl.load(source + column[None, :], mask=here, other=0.0)
    high = tl.load(source + (column + HALF)[None, :], mask=here, other=0.0)
    out_low = _rotated(low, -high.to(tl.float32), cos, sin, column, is_column)
    out_high = _rotated(high, low.to(tl.float32), cos, sin, column + SECOND, is_column)
    tl.store(target + column[None, :], out_low, here)
    tl.store(target + (column + HALF)[None, :], out_high, here)
    if REST_BLOCK:
        rest = 2 * HALF + tl.arange(0, REST_BLOCK)
        here = is_head[:, None] & (rest < DIM)[None, :]
        tl.store(target + rest[None, :], tl.load(source + rest[None, :], mask=here), here)


@triton.jit
def _rotated(x, turned, cos, sin, column, is_column):
    dtype = x.dtype
    c = tl.load(cos + column, mask=is_column, other=0.0)[None, :].to(tl.float32)
    s = tl.load(sin + column, mask=is_column, other=0.0)[None, :].to(tl.float32)
    straight = (x.to(tl.float32) * c).to(dtype).to(tl.float32)
    across = (turned * s).to(dtype).to(tl.float32)
    return (straight + across).to(dtype)


def rotate_pairs(q: Tensor, k: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary positions of numbers that lie side by side, as complex ones, in fp32.

    Args:
        q: `[1, q_heads, tokens, head_dim]`, the last dimension dense.
        k: `[1, kv_heads, tokens, head_dim]`, likewise.
        angles: `[1, tokens, head_dim / 2]` complex64, dense: what pairs are multiplied by.

    Returns:
        Both rotated; in memory a token's heads lie side by side, as attention reads them.
    """
    parts = torch.view_as_real(angles)
    outs = [x.new_empty(1, x.shape[2], x.shape[1], x.shape[3]) for x in (q, k)]
    for x, out in zip((q, k), outs, strict=True):
        _, heads, tokens, dim = x.shape
        if tokens:
            per_program = max(1, _BLOCK // triton.next_power_of_2(dim))
            _pairs_kernel[(tokens, triton.cdiv(heads, per_program))](
                x,
                out,
                parts,
                x.stride(1),
                x.stride(2),
                TOTAL=heads,
                PAIRS=dim // 2,
                BLOCK=triton.next_power_of_2(dim // 2),
                HEADS=per_program,
                num_warps=4,
            )
    return outs[0].transpose(1, 2), outs[1].transpose(1, 2)


@triton.jit
def _pairs_kernel(
    x,
    out,
    angles,
    head_stride,
    token_stride,
    TOTAL: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    pair = tl.arange(0, BLOCK)[None, :]
    here = (head < TOTAL) & (pair < PAIRS)
    source = x + token * token_stride + head * head_stride + 2 * pair
    real = tl.load(source, mask=here, other=0.0).to(tl.float32)
    imaginary = tl.load(source + 1, mask=here, other=0.0).to(tl.float32)
    angle = angles + 2 * (token * PAIRS + pair)
    c = tl.load(angle, mask=pair < PAIRS, other=0.0)
    s = tl.load(angle + 1, mask=pair < PAIRS, other=0.0)
    target = out + 2 * ((token * TOTAL + head) * PAIRS + pair)
    dtype = out.dtype.element_ty
    tl.store(target, (real * c - imaginary * s).to(dtype), mask=here)
    tl.store(target + 1, (real * s + imaginary * c).to(dtype), mask=here)


def gated(x: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up, of rows that hold a gate and what goes through it.

    Args:
        x: `[..., 2 * width]`, dense: the gate, then the rest.
        activation: of the gate.

    Returns:
        `[..., width]`.
    """
    width = x.shape[-1] // 2
    out = torch.empty(*x.shape[:-1], width, dtype=x.dtype, device=x.device)
    rows = out.numel() // max(width, 1)
    if rows:
        block = min(triton.next_power_of_2(width), _BLOCK)
        _gated_kernel[(rows, triton.cdiv(width, block))](
            x, out, width, BLOCK=block, ACTIVATION=int(activation), num_warps=4, **AS_WRITTEN
        )
    return out


@triton.jit
def _gated_kernel(x, out, width, BLOCK: tl.constexpr, ACTIVATION: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = column < width
    gate = tl.load(x + row * 2 * width + column, mask=here, other=0.0)
    up = tl.load(x + row * 2 * width + width + column, mask=here, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    turn = wide
    if ACTIVATION == 1:  # 1 + tanh(x) is twice the sigmoid of 2 x
        turn = 1.5957691216057308 * (wide + 0.044715 * wide * wide * wide)
    small = tl.exp(-tl.abs(turn))
    wide = wide * tl.where(turn >= 0.0, 1.0, small) / (1.0 + small)
    tl.store(
        out + row * width + column, (wide.to(gate.dtype).to(tl.float32) * up).to(gate.dtype), here
    )


def gated_clamped(x: Tensor, alpha: float, limit: float) -> Tensor:
    """(up + 1) * gate * sigmoid(alpha * gate), both clamped before: gpt-oss's.

    Args:
        x: `[..., 2 * width]`, dense: gate and up in turn.
        alpha: factor of the gate.
        limit: most that either may be; up may be no less than minus so much.

    Returns:
        `[..., width]`.
    """
    width = x.shape[-1] // 2
    out = torch.empty(*x.shape[:-1], width, dtype=x.dtype, device=x.device)
    n = out.numel()
    if n:
        block = min(triton.next_power_of_2(n), _BLOCK)
        _gated_clamped_kernel[(triton.cdiv(n, block),)](
            x, out, n, ALPHA=alpha, LIMIT=limit, BLOCK=block, num_warps=4, **AS_WRITTEN
        )
    return out


@triton.jit
def _gated_clamped_kernel(x, out, n, ALPHA: tl.constexpr, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    given = tl.load(x + 2 * at, mask=here, other=0.0)
    gate = tl.minimum(given.to(tl.float32), LIMIT)
    up = tl.load(x + 2 * at + 1, mask=here, other=0.0).to(tl.float32)
    up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT)
    turn = (gate * ALPHA).to(given.dtype).to(tl.float32)
    small = tl.exp(-tl.abs(turn))
    share = tl.where(turn >= 0.0, 1.0, small) / (1.0 + small)
    glu = (gate * share.to(given.dtype).to(tl.float32)).to(given.dtype).to(tl.float32)
    more = (up + 1.0).to(given.dtype).to(tl.float32)
    tl.store(out + at, (more * glu).to(given.dtype), here)
