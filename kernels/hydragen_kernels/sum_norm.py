"""A layer's sum over ranks, what it is added to, and the norm of that, in one launch.

    total = part of rank 0 + part of rank 1 + ...     rounded, as a sum by itself is
    out = residual + total
    normed = out / rms(out), weighted

A row is a program. It writes its rank's part into an inbox of every other rank, waits for theirs in
its own, and adds all up in the order of the ranks, so that all have the same bits. A number that
has not come yet is a negative zero; one that a part has is sent as a zero, which no sum shows. So
numbers say themselves that they are there: one way through NVLink, where a flag, and then the
numbers that it stands for, take three.

Who has read an inbox fills it with negative zeros again. It is written anew in the next sum but
one, which the others begin when they have all numbers of the next, which were sent after that. So
sums in turn use two places, and a replayed graph finds them as the captured one did.
"""

import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.layer_forms import NormForm
from hydragen_kernels.layers import AS_WRITTEN, weighted

EMPTY = tl.constexpr(-(1 << 15))  # the bits of a negative zero of 16 bits, as an int16


def sum_and_norm(
    part: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    form: NormForm,
    *,
    inboxes: tuple[int, ...],
    rank: int,
    slot_bytes: int,
) -> tuple[Tensor, Tensor]:
    """Adds all ranks' parts to what they have in common, and norms the result.

    All ranks call it, with as many rows.

    Args:
        part: `[..., width]`, dense, of 16 bits: this rank's.
        residual: like `part`.
        weight: `[width]` of the norm.
        eps: added to the mean square.
        form: how the weight is used.
        inboxes: addresses of all ranks' inboxes for this sum, as this rank's device has them, each
            of `ranks - 1` slots: one for every other rank, in their order. At first all is `EMPTY`.
        rank: this one.
        slot_bytes: of a slot, a multiple of 16.

    Returns:
        residual + sum, and its norm; both like `residual`.
    """
    width = residual.shape[-1]
    rows = residual.numel() // max(width, 1)
    for name, given in (("part", part), ("residual", residual)):
        if given.shape != residual.shape or not given.is_contiguous():
            raise ValueError(f"expected dense rows of one shape, got {name} {tuple(given.shape)}")
    if part.dtype.itemsize != 2:
        raise ValueError(f"expected numbers of 16 bits, got {part.dtype}")
    if part.nbytes > slot_bytes:
        raise ValueError(f"expected at most {slot_bytes} bytes, got {part.nbytes}")
    out, normed = residual.new_empty(residual.shape), residual.new_empty(residual.shape)
    if rows:
        block = triton.next_power_of_2(width)
        _sum_norm_kernel[(rows,)](
            part,
            residual,
            weight,
            out,
            normed,
            inboxes,
            SLOT_BYTES=slot_bytes,
            RANK=rank,
            RANKS=len(inboxes),
            EPS=eps,
            WIDTH=width,
            BLOCK=block,
            FORM=int(form),
            num_warps=4 if block <= 4096 else 8,
            **AS_WRITTEN,
        )
    return out, normed


@triton.jit
def _sum_norm_kernel(
    part,
    residual,
    weight,
    out,
    normed,
    inboxes,
    SLOT_BYTES: tl.constexpr,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    FORM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    is_column = column < WIDTH
    place = row * WIDTH + column
    own = tl.load(part + place, mask=is_column, other=0.0)
    dtype = own.dtype
    own = tl.where(own == 0.0, tl.zeros_like(own), own)
    for other in tl.static_range(RANKS):
        if other != RANK:
            theirs = _slot(inboxes[other], other, RANK, SLOT_BYTES, dtype)
            tl.store(theirs + place, own, is_column)
    kept = tl.load(residual + place, mask=is_column, other=0.0)
    factor = tl.load(weight + column, mask=is_column, other=0.0)
    empty = tl.full([BLOCK], EMPTY, tl.int16)
    total = tl.zeros([BLOCK], tl.float32)
    for other in tl.static_range(RANKS):
        if other == RANK:
            total += own.to(tl.float32)
        else:
            inbox = _slot(inboxes[RANK], RANK, other, SLOT_BYTES, tl.int16) + place
            bits = tl.load(inbox, mask=is_column, other=0, volatile=True)
            while tl.max((bits == empty).to(tl.int32), 0) != 0:
                bits = tl.load(inbox, mask=is_column, other=0, volatile=True)
            tl.store(inbox, empty, is_column)
            total += bits.to(dtype, bitcast=True).to(tl.float32)
    added = (kept.to(tl.float32) + total.to(dtype).to(tl.float32)).to(dtype)
    tl.store(out + place, added, is_column)
    wide = added.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, 0) / WIDTH + EPS)
    tl.store(normed + place, weighted(wide * scale, factor, dtype, FORM), is_column)


@triton.jit
def _slot(
    inbox,
    OF: tl.constexpr,
    SENDER: tl.constexpr,
    SLOT_BYTES: tl.constexpr,
    dtype: tl.constexpr,
):
    """Where a rank's inbox has what another sends: slots are in the order of the others."""
    number: tl.constexpr = SENDER - 1 if SENDER > OF else SENDER
    start = inbox + number * SLOT_BYTES
    return tl.multiple_of(start.to(tl.pointer_type(dtype)), 16)
