"""One token of many sequences through layers with running states, which stay where they are.

    convolution:   window = [state[1:], x];   y = act(window . weight + bias);   state' = window
    delta rule:    S' = exp(g) S + k (beta (v - k exp(g) S))^T;   y = q S' / sqrt(K)
    Mamba 2:       S' = exp(dt A) S + x (dt B)^T;   y = S' C + D x, times silu(z) if there is one

Source: arXiv 2412.06464 (gated delta rule), 2405.21060 (Mamba 2). A state is read at one place of
the arena and written at another, mostly the same: torch's operations read and write it some twenty
times. Memory-bound: what a step takes is one pass over the rows' states. Computed in fp32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

_SILU = ("silu", "swish")


class Placed(NamedTuple):
    """States of rows in their arena.

    Attributes:
        states: `[places, ...]`, all but the first dimension contiguous; written.
        source: `[rows]` int64, the place each is read from.
        target: `[rows]` int64, the place it is written to; of several rows at one place, any.
    """

    states: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor


@triton.jit
def _convolution_kernel(
    states,
    stride_s,
    source,
    target,
    x,
    stride_x,
    weight,
    bias,
    out,
    channels,
    HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    tap = tl.arange(0, BLOCK_T)[None, :]
    at = channel[:, None] * TAPS + tap  # [BLOCK_C, BLOCK_T]
    held = inside[:, None] & (tap < TAPS)
    new = tl.load(x + row * stride_x + channel, mask=inside, other=0.0)
    old = states + tl.load(source + row) * stride_s + at + 1
    old = tl.load(old, mask=held & (tap < TAPS - 1), other=0.0)
    window = tl.where(tap == TAPS - 1, new[:, None].to(old.dtype), old)
    tl.debug_barrier()  # others may read what is written now
    tl.store(states + tl.load(target + row) * stride_s + at, window, mask=held)
    taps = tl.load(weight + at, mask=held, other=0.0)
    y = tl.sum(window.to(tl.float32) * taps.to(tl.float32), 1)
    if HAS_BIAS:
        y += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        y = y.to(out.dtype.element_ty).to(tl.float32)
        y = y * tl.sigmoid(y)
    tl.store(out + row * channels + channel, y, mask=inside)


@triton.jit
def _delta_kernel(
    states,
    stride_s,
    source,
    target,
    q,
    k,
    v,
    g,
    beta,
    out,
    stride_qr,
    stride_qh,
    stride_kr,
    stride_kh,
    stride_vr,
    stride_vh,
    heads,
    shared_by,
    scale,
    IS_NORMED: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, BLOCK_K)
    value = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    own = head // shared_by
    in_key, in_value = dim < KEY_DIM, value < VALUE_DIM
    query = tl.load(q + row * stride_qr + own * stride_qh + dim, mask=in_key, other=0.0)
    key = tl.load(k + row * stride_kr + own * stride_kh + dim, mask=in_key, other=0.0)
    query, key = query.to(tl.float32), key.to(tl.float32)
    if IS_NORMED:
        query *= tl.rsqrt(tl.sum(query * query, 0) + 1e-6)
        key *= tl.rsqrt(tl.sum(key * key, 0) + 1e-6)
    given = tl.load(v + row * stride_vr + head * stride_vh + value, mask=in_value, other=0.0)
    decay = tl.exp(tl.load(g + row * heads + head).to(tl.float32))
    share = tl.load(beta + row * heads + head).to(tl.float32)
    at = head * KEY_DIM * VALUE_DIM + dim[:, None] * VALUE_DIM + value[None, :]
    inside = in_key[:, None] & in_value[None, :]
    here = states + tl.load(source + row) * stride_s + at
    state = tl.load(here, mask=inside, other=0.0).to(tl.float32) * decay  # [BLOCK_K, BLOCK_V]
    missing = (given.to(tl.float32) - tl.sum(state * key[:, None], 0)) * share
    state += key[:, None] * missing[None, :]
    tl.store(states + tl.load(target + row) * stride_s + at, state, mask=inside)
    y = tl.sum(state * query[:, None], 0) * scale
    tl.store(out + (row * heads + head) * VALUE_DIM + value, y, mask=in_value)


@triton.jit
def _mamba_kernel(
    states,
    stride_s,
    source,
    target,
    x,
    dt,
    a,
    b,
    c,
    d,
    bias,
    z,
    out,
    stride_xr,
    stride_xh,
    stride_dr,
    stride_dh,
    stride_br,
    stride_bg,
    stride_cr,
    stride_cg,
    stride_zr,
    stride_zh,
    heads,
    shared_by,
    HAS_Z: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    STATE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.program_id(2) * BLOCK_P + tl.arange(0, BLOCK_P)
    number = tl.arange(0, BLOCK_N)
    group = head // shared_by
    in_head, in_state = dim < HEAD_DIM, number < STATE
    given = tl.load(x + row * stride_xr + head * stride_xh + dim, mask=in_head, other=0.0)
    given = given.to(tl.float32)
    step = tl.load(dt + row * stride_dr + head * stride_dh).to(tl.float32)
    step += tl.load(bias + head).to(tl.float32)
    step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(tl.minimum(step, 20.0))))
    decay = tl.exp(step * tl.load(a + head).to(tl.float32))
    taken = tl.load(b + row * stride_br + group * stride_bg + number, mask=in_state, other=0.0)
    read = tl.load(c + row * stride_cr + group * stride_cg + number, mask=in_state, other=0.0)
    at = head * HEAD_DIM * STATE + dim[:, None] * STATE + number[None, :]
    inside = in_head[:, None] & in_state[None, :]
    here = states + tl.load(source + row) * stride_s + at
    state = tl.load(here, mask=inside, other=0.0).to(tl.float32) * decay  # [BLOCK_P, BLOCK_N]
    state += given[:, None] * (step * taken.to(tl.float32))[None, :]
    tl.store(states + tl.load(target + row) * stride_s + at, state, mask=inside)
    y = tl.sum(state * read.to(tl.float32)[None, :], 1) + given * tl.load(d + head).to(tl.float32)
    if HAS_Z:
        gate = tl.load(z + row * stride_zr + head * stride_zh + dim, mask=in_head, other=0.0)
        y *= gate.to(tl.float32) * tl.sigmoid(gate.to(tl.float32))
    tl.store(out + (row * heads + head) * HEAD_DIM + dim, y, mask=in_head)


def convolution_step(
    x: torch.Tensor,
    placed: Placed,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str | None,
) -> torch.Tensor:
    """A token of every row through a causal convolution of each channel.

    Args:
        x: `[rows, channels]`.
        placed: states `[places, channels, taps]`, the last inputs.
        weight: `[channels, taps]`.
        bias: `[channels]`, or None.
        activation: `silu` by any of its names, or None.

    Returns:
        `[rows, channels]` in `x`'s dtype.

    Raises:
        ValueError: shapes do not fit together, or another activation.
    """
    rows, channels = x.shape
    taps = weight.shape[1]
    _check_states(placed, rows, (channels, taps))
    if activation is not None and activation not in _SILU:
        raise ValueError(f"activation: expected silu or none, got {activation}")
    x, block = _rowwise(x), min(256, triton.next_power_of_2(channels))
    out = torch.empty(rows, channels, dtype=x.dtype, device=x.device)
    if rows:
        _convolution_kernel[(rows, triton.cdiv(channels, block))](
            placed.states,
            placed.states.stride(0),
            placed.source,
            placed.target,
            x,
            x.stride(0),
            weight.contiguous(),
            bias,
            out,
            channels,
            HAS_BIAS=bias is not None,
            SILU=activation is not None,
            TAPS=taps,
            BLOCK_T=triton.next_power_of_2(taps),
            BLOCK_C=block,
            num_warps=4,
        )
    return out


def delta_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    placed: Placed,
    *,
    normed: bool,
) -> torch.Tensor:
    """A token of every row through a gated delta rule.

    Args:
        query: `[rows, key_heads, key_dim]`.
        key: like `query`.
        value: `[rows, heads, value_dim]`; as many heads share a key as there are more of them.
        decay: `[rows, heads]`, logarithms.
        beta: `[rows, heads]`.
        placed: states `[places, heads, key_dim, value_dim]`.
        normed: queries and keys are divided by their norms.

    Returns:
        `[rows, heads, value_dim]` in `query`'s dtype.

    Raises:
        ValueError: shapes do not fit together.
    """
    (rows, heads, value_dim), (_, key_heads, key_dim) = value.shape, key.shape
    _check_states(placed, rows, (heads, key_dim, value_dim))
    query, key, value = map(_rowwise, (query, key, value))
    block = min(32, triton.next_power_of_2(value_dim))
    out = torch.empty(rows, heads, value_dim, dtype=query.dtype, device=query.device)
    if rows:
        _delta_kernel[(rows, heads, triton.cdiv(value_dim, block))](
            placed.states,
            placed.states.stride(0),
            placed.source,
            placed.target,
            query,
            key,
            value,
            decay.contiguous(),
            beta.contiguous(),
            out,
            *query.stride()[:2],
            *key.stride()[:2],
            *value.stride()[:2],
            heads,
            heads // key_heads,
            key_dim**-0.5,
            IS_NORMED=normed,
            KEY_DIM=key_dim,
            VALUE_DIM=value_dim,
            BLOCK_K=triton.next_power_of_2(key_dim),
            BLOCK_V=block,
            num_warps=4,
        )
    return out


def mamba_step(
    x: torch.Tensor,
    dt: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    dt_bias: torch.Tensor,
    z: torch.Tensor | None,
    placed: Placed,
) -> torch.Tensor:
    """A token of every row through a selective state space of Mamba 2.

    Args:
        x: `[rows, heads, head_dim]`.
        dt: `[rows, heads]`, before its bias and softplus.
        a: `[heads]`, below zero.
        b: `[rows, groups, state]`; as many heads share one as there are more of them.
        c: like `b`.
        d: `[heads]`.
        dt_bias: `[heads]`.
        z: like `x`, gates; or None.
        placed: states `[places, heads, head_dim, state]`.

    Returns:
        `[rows, heads, head_dim]` in `x`'s dtype.

    Raises:
        ValueError: shapes do not fit together.
    """
    (rows, heads, head_dim), (_, groups, state) = x.shape, b.shape
    _check_states(placed, rows, (heads, head_dim, state))
    x, b, c = map(_rowwise, (x, b, c))
    gate = x if z is None else _rowwise(z)
    block = min(16, triton.next_power_of_2(head_dim))
    out = torch.empty(rows, heads, head_dim, dtype=x.dtype, device=x.device)
    if rows:
        _mamba_kernel[(rows, heads, triton.cdiv(head_dim, block))](
            placed.states,
            placed.states.stride(0),
            placed.source,
            placed.target,
            x,
            dt,
            a.contiguous(),
            b,
            c,
            d.contiguous(),
            dt_bias.contiguous(),
            gate,
            out,
            *x.stride()[:2],
            *dt.stride(),
            *b.stride()[:2],
            *c.stride()[:2],
            *gate.stride()[:2],
            heads,
            heads // groups,
            HAS_Z=z is not None,
            HEAD_DIM=head_dim,
            STATE=state,
            BLOCK_P=block,
            BLOCK_N=triton.next_power_of_2(state),
            num_warps=4,
        )
    return out


def _rowwise(x: torch.Tensor) -> torch.Tensor:
    """With numbers of the last dimension side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _check_states(placed: Placed, rows: int, shape: tuple[int, ...]) -> None:
    """Checks that places hold states of this shape, and that each row has two.

    Raises:
        ValueError: they do not.
    """
    states = placed.states
    if states.shape[1:] != shape or not states[0].is_contiguous():
        raise ValueError(f"states: expected [places, {shape}], got {list(states.shape)}")
    for name, places in (("source", placed.source), ("target", placed.target)):
        if places.dtype != torch.int64 or places.shape != (rows,) or not places.is_contiguous():
            raise ValueError(f"{name}: expected int64 [{rows}], got {list(places.shape)}")
