"""Mixture of experts: products of tokens with the weights of the experts they were routed to.

    sorted:   order = pairs (token, choice), those of expert 0 first, then those of expert 1, ...
    product:  out[p] = x[p] @ weight[e].T + bias[e]       e the expert of pair p
    combined: out[t] = sum over choices j of share[t, j] * y[t, j]

Every expert's pairs are cut into tiles of rows; a program finds from the experts' counts which tile
is its own. So one launch serves any routing, nothing is read back on the host, and a captured step
holds for every later one. The grid is for as many tiles as there can be: programs beyond leave at
once. Gathering and scattering are part of the products, which read and write rows in place.

With few rows an expert the weights' bandwidth bounds it, with many the tensor cores.
Definition: `reference_experts.py`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.inputs import FLOATS, check_contiguous

_SORT_BLOCK = 1024  # pairs that a program of the sort looks at together
_COMBINE_BLOCK = 1024  # numbers of a token that a program adds up


class ExpertTile(NamedTuple):
    """How a product is cut; none of it changes a result.

    Attributes:
        rows: of a tile.
        outputs: of a tile.
        inputs: of a step.
        warps: of a program.
        stages: steps in flight.
    """

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int


# by the rows that an expert has at the most, in fp32 and in 16 bits
_WIDE_TILES = {  # by plain multiplications: tensor cores would round
    16: ExpertTile(16, 32, 32, 4, 2),
    None: ExpertTile(64, 64, 32, 8, 2),
}
_TILES = {
    16: ExpertTile(16, 64, 128, 4, 4),
    32: ExpertTile(32, 64, 128, 4, 4),
    192: ExpertTile(64, 128, 64, 4, 4),
    None: ExpertTile(128, 128, 64, 8, 4),
}


class Routing(NamedTuple):
    """Pairs of token and choice, sorted by expert.

    Attributes:
        order: `[pairs]` int32, pair `token * choices + choice` at each place; undefined behind
            `starts[-1]`.
        starts: `[experts + 1]` int32, where each expert's pairs begin, and the last one's end.
        choices: experts a token.
    """

    order: Tensor
    starts: Tensor
    choices: int


def sort_by_expert(chosen: Tensor, experts: int) -> Routing:
    """Sorts pairs by expert; those of one expert stay in their order.

    Args:
        chosen: `[tokens, choices]` integers, the experts of each token; one that is not below
            `experts` stands for none.
        experts: how many there are.

    Raises:
        ValueError: `chosen` is not a matrix of integers.
    """
    if chosen.ndim != 2 or chosen.dtype.is_floating_point:
        raise ValueError(
            f"chosen: expected integers [tokens, choices], got {chosen.dtype} {list(chosen.shape)}"
        )
    pairs = chosen.contiguous().view(-1)
    order = torch.empty(pairs.shape, dtype=torch.int32, device=chosen.device)
    starts = torch.empty(experts + 1, dtype=torch.int32, device=chosen.device)
    _sort_kernel[(experts,)](
        pairs, order, starts, pairs.numel(), EXPERTS=experts, BLOCK=_SORT_BLOCK, num_warps=4
    )
    return Routing(order, starts, chosen.shape[1])


@triton.jit
def _sort_kernel(pairs, order, starts, n, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):
    """A program an expert: where its pairs begin, and which they are."""
    expert = tl.program_id(0)
    offset = tl.arange(0, BLOCK)
    before = tl.zeros([BLOCK], tl.int32)
    for first in range(0, n, BLOCK):
        here = first + offset < n
        of_pair = tl.load(pairs + first + offset, mask=here, other=EXPERTS)
        before += (of_pair < expert).to(tl.int32)
    start = tl.sum(before, 0)
    tl.store(starts + expert, start)
    place = start
    for first in range(0, n, BLOCK):
        here = first + offset < n
        of_pair = tl.load(pairs + first + offset, mask=here, other=EXPERTS)
        is_mine = (of_pair == expert).to(tl.int32)
        rank = tl.cumsum(is_mine, 0) - 1
        tl.store(order + place + rank, first + offset, mask=is_mine > 0)
        place += tl.sum(is_mine, 0)
    if expert == EXPERTS - 1:
        tl.store(starts + EXPERTS, place)


def expert_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    routing: Routing,
    *,
    by_token: bool,
    tile: ExpertTile | None = None,
) -> Tensor:
    """Each pair's row times the weights of its expert, summed in fp32, inputs ascending.

    Args:
        x: what is multiplied, its last dimension dense: with `by_token` `[tokens, inputs]`; without
            `[pairs, inputs]`, sorted.
        weight: `[experts, outputs, inputs]`, any strides.
        bias: `[experts, outputs]`, dense, or None.
        routing: of the pairs.
        by_token: x has a row a token, and the result is sorted; else x is sorted, and the result
            has a row a pair, in the order of tokens.
        tile: how it is cut; None: by how many pairs an expert has in the mean.

    Returns:
        `[pairs, outputs]` in x's dtype; rows of pairs without an expert are undefined.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    experts, outputs, inputs = weight.shape
    pairs = routing.order.shape[0]
    rows = pairs // routing.choices if by_token else pairs
    if x.shape != (rows, inputs) or x.stride(-1) != 1:
        raise ValueError(f"x: expected dense [{rows}, {inputs}], got {list(x.shape)} {x.stride()}")
    if x.dtype not in FLOATS or weight.dtype != x.dtype:
        raise ValueError(f"expected fp16, bf16 or fp32 of one kind, got {x.dtype}, {weight.dtype}")
    if routing.starts.shape != (experts + 1,):
        raise ValueError(f"{experts} experts, routed among {routing.starts.shape[0] - 1}")
    if bias is not None:
        check_contiguous("bias", bias, x.dtype, (experts, outputs))
    out = torch.empty(pairs, outputs, dtype=x.dtype, device=x.device)
    tile = tile or _tile(pairs / experts, x.dtype)
    block_m, block_n, block_k, warps, stages = tile
    tiles = min(pairs, experts + pairs // block_m)  # each expert's last one may be part empty
    _product_kernel[(triton.cdiv(outputs, block_n), tiles)](
        x,
        weight,
        bias,
        out,
        routing.order,
        routing.starts,
        x.stride(0),
        *weight.stride(),
        EXPERTS=experts,
        OUTPUTS=outputs,
        INPUTS=inputs,
        CHOICES=routing.choices,
        BY_TOKEN=by_token,
        EXPERTS_BLOCK=triton.next_power_of_2(experts),
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=warps,
        num_stages=stages,
    )
    return out


def expert_tiles(dtype: torch.dtype) -> list[ExpertTile]:
    """All tiles that are chosen among, in a dtype."""
    return [*_tiles(dtype).values()]


def _tiles(dtype: torch.dtype) -> dict[int | None, ExpertTile]:
    return _WIDE_TILES if dtype == torch.float32 else _TILES


def _tile(rows: float, dtype: torch.dtype) -> ExpertTile:
    """The tile for experts that have so many rows each."""
    tiles = _tiles(dtype)
    return next((tile for most, tile in tiles.items() if most and rows <= most), tiles[None])


@triton.jit
def _product_kernel(
    x,
    weight,
    bias,
    out,
    order,
    starts,
    x_stride,
    expert_stride,
    output_stride,
    input_stride,
    EXPERTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    CHOICES: tl.constexpr,
    BY_TOKEN: tl.constexpr,
    EXPERTS_BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Programs of one tile follow each other, and tiles of one expert: its weights are in the cache.
    tile = tl.program_id(1)
    index = tl.arange(0, EXPERTS_BLOCK)
    is_expert = index < EXPERTS
    first = tl.load(starts + index, mask=is_expert, other=0)
    behind = tl.load(starts + index + 1, mask=is_expert, other=0)
    tiles = (behind - first + BLOCK_M - 1) // BLOCK_M
    if tile >= tl.sum(tiles, 0):
        return
    expert = tl.sum((tl.cumsum(tiles, 0) <= tile).to(tl.int32), 0)
    earlier = tl.sum(tl.where(index < expert, tiles, 0), 0)
    place = tl.load(starts + expert) + (tile - earlier) * BLOCK_M + tl.arange(0, BLOCK_M)
    is_row = place < tl.load(starts + expert + 1)
    pair = tl.load(order + place, mask=is_row, other=0)
    if BY_TOKEN:
        source, target = pair // CHOICES, place
    else:
        source, target = place, pair
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_column = column < OUTPUTS
    k = tl.arange(0, BLOCK_K)
    rows = x + source.to(tl.int64)[:, None] * x_stride  # [BLOCK_M, 1]
    columns = weight + expert.to(tl.int64) * expert_stride
    columns += column.to(tl.int64)[None, :] * output_stride  # [1, BLOCK_N]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, INPUTS, BLOCK_K):
        at = start + k
        if INPUTS % BLOCK_K == 0:
            a = tl.load(rows + at[None, :], mask=is_row[:, None], other=0.0)
            b = tl.load(columns + at[:, None] * input_stride, mask=is_column[None, :], other=0.0)
        else:
            is_input = at < INPUTS
            a = tl.load(rows + at[None, :], mask=is_row[:, None] & is_input[None, :], other=0.0)
            b = tl.load(
                columns + at[:, None] * input_stride,
                mask=is_input[:, None] & is_column[None, :],
                other=0.0,
            )
        total = tl.dot(a, b, total, input_precision="ieee")
    if bias is not None:
        added = tl.load(bias + expert * OUTPUTS + column, mask=is_column, other=0.0)
        # behind a choice: what is added to one product alone the compiler has its sum begin with
        total = tl.where(is_row[:, None], total, 0.0) + added.to(tl.float32)[None, :]
    tl.store(
        out + target.to(tl.int64)[:, None] * OUTPUTS + column[None, :],
        total.to(out.dtype.element_ty),
        mask=is_row[:, None] & is_column[None, :],
    )


def combine(y: Tensor, shares: Tensor, chosen: Tensor, experts: int) -> Tensor:
    """What a token's experts give, weighted and summed in fp32.

    Args:
        y: `[tokens * choices, width]`, dense, in the order of tokens.
        shares: `[tokens, choices]`, any floating dtype.
        chosen: `[tokens, choices]` integers; choices not below `experts` add nothing.
        experts: how many there are.

    Returns:
        `[tokens, width]` in y's dtype.

    Raises:
        ValueError: shapes do not fit together.
    """
    tokens, choices = chosen.shape
    width = y.shape[-1]
    if shares.shape != chosen.shape:
        raise ValueError(f"shares: expected {list(chosen.shape)}, got {list(shares.shape)}")
    check_contiguous("y", y, y.dtype, (tokens * choices, width))
    out = torch.empty(tokens, width, dtype=y.dtype, device=y.device)
    block = min(triton.next_power_of_2(width), _COMBINE_BLOCK)
    if tokens:
        _combine_kernel[(tokens, triton.cdiv(width, block))](
            y,
            shares.contiguous(),
            chosen.contiguous(),
            out,
            width,
            EXPERTS=experts,
            CHOICES=choices,
            BLOCK=block,
            num_warps=4,
        )
    return out


@triton.jit
def _combine_kernel(
    y,
    shares,
    chosen,
    out,
    width,
    EXPERTS: tl.constexpr,
    CHOICES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for choice in range(CHOICES):
        pair = token * CHOICES + choice
        there_is = tl.where(tl.load(chosen + pair) < EXPERTS, width, 0)
        given = tl.load(y + pair * width + column, mask=column < there_is, other=0.0)
        total += tl.load(shares + pair).to(tl.float32) * given.to(tl.float32)
    tl.store(out + token * width + column, total.to(out.dtype.element_ty), mask=column < width)
