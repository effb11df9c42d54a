"""A layer's sum over ranks, what it is added to, and the norm of that, in one launch.

    total = part of rank 0 + part of rank 1 + ...     rounded, as a sum by itself is
    out = residual + total
    normed = out / rms(out), weighted

Each rank's part lies in memory that the others read. A row is a program: it tells the program of
its row on every other rank that its own part is there, waits for theirs, and reads all parts in the
order of the ranks, so that all have the same bits. A flag goes from 0 to 1 where it is set and back
to 0 where it is waited for; a replayed graph finds them as the captured one did.

Memory is written again after the next sum has ended, and not sooner: that sum waits for the others,
who begin it when they have read this one. So sums in turn use two places.
"""

import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.layers import AS_WRITTEN, NormForm, weighted

SLOT_ROWS = 4096  # most rows of a sum: each has flags


def sum_and_norm(
    residual: Tensor,
    weight: Tensor,
    eps: float,
    form: NormForm,
    *,
    memories: Tensor,
    rank: int,
    part_at: int,
    flags_at: int,
) -> tuple[Tensor, Tensor]:
    """Adds all ranks' parts to what they have in common, and norms the result.

    All ranks call it, with as many rows.

    Args:
        residual: `[..., width]`, dense, at most `SLOT_ROWS` rows.
        weight: `[width]` of the norm.
        eps: added to the mean square.
        form: how the weight is used.
        memories: `[ranks]` int64, addresses of their memory, as this rank's device has them.
        rank: this one.
        part_at: bytes from the beginning of a memory to the rank's part, as large as `residual`,
            dense and of its dtype.
        flags_at: bytes to its flags, int32 `[SLOT_ROWS, ranks]`, zero at first.

    Returns:
        residual + sum, and its norm; both like `residual`.
    """
    width = residual.shape[-1]
    rows = residual.numel() // max(width, 1)
    if rows > SLOT_ROWS or not residual.is_contiguous():
        raise ValueError(f"expected at most {SLOT_ROWS} dense rows, got {residual.shape}")
    out, normed = residual.new_empty(residual.shape), residual.new_empty(residual.shape)
    if rows:
        block = triton.next_power_of_2(width)
        _sum_norm_kernel[(rows,)](
            residual,
            weight,
            out,
            normed,
            memories,
            PART_AT=part_at,
            FLAGS_AT=flags_at,
            RANK=rank,
            RANKS=memories.numel(),
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
    residual,
    weight,
    out,
    normed,
    memories,
    PART_AT: tl.constexpr,
    FLAGS_AT: tl.constexpr,
    RANK: tl.constexpr,
    RANKS: tl.constexpr,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    FORM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    for other in tl.static_range(RANKS):
        if other != RANK:
            theirs = (tl.load(memories + other) + FLAGS_AT).to(tl.pointer_type(tl.int32))
            flag = theirs + row * RANKS + RANK
            while tl.atomic_cas(flag, 0, 1, sem="release", scope="sys") != 0:
                pass
    column = tl.arange(0, BLOCK)
    is_column = column < WIDTH
    place = row * WIDTH + column
    kept = tl.load(residual + place, mask=is_column, other=0.0)
    for other in tl.static_range(RANKS):
        if other != RANK:
            ours = (tl.load(memories + RANK) + FLAGS_AT).to(tl.pointer_type(tl.int32))
            flag = ours + row * RANKS + other
            while tl.atomic_cas(flag, 1, 0, sem="acquire", scope="sys") != 1:
                pass
    tl.debug_barrier()  # nobody reads before the one thread that waited
    total = tl.zeros([BLOCK], tl.float32)
    for other in tl.static_range(RANKS):
        part = (tl.load(memories + other) + PART_AT).to(tl.pointer_type(residual.dtype.element_ty))
        numbers = tl.load(tl.multiple_of(part, 16) + place, mask=is_column, other=0.0)
        total += numbers.to(tl.float32)
    dtype = kept.dtype
    added = (kept.to(tl.float32) + total.to(dtype).to(tl.float32)).to(dtype)
    tl.store(out + place, added, is_column)
    wide = added.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, 0) / WIDTH + EPS)
    factor = tl.load(weight + column, mask=is_column, other=0.0)
    tl.store(normed + place, weighted(wide * scale, factor, dtype, FORM), is_column)
