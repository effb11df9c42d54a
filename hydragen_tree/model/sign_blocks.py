"""A matrix as a sum of blocks of one bit a number: BitStack's decomposition (arXiv 2410.23918).

    W = sum over b of  S_b * (U_b V_b^T)  + R,      S_b in {-1, 1},  U_b [out, rank], V_b [in, rank]

Each block is taken from what the ones before it leave: S is the sign of the residual, and U V^T
the best approximation of low rank of its absolute values, times 1.25. The more blocks are summed,
the closer; a prefix of them is a matrix of its own. What counts as close is weighted, a factor for
each row and one for each column; the factors end in U and V, and nothing of them is stored.

The paper takes the best approximation as it is. Numbers far from zero are then never reached: each
block halves what can still be added. A little more makes one block worse and all others better: of
SmolLM2's matrices 4 blocks leave 13 % (norm) instead of 18 %, and 8 leave 4 % instead of 11 %.

A block is one run of bytes: the signs packed along the inputs, then U, then V, in float16.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

FACTORS = torch.float16
# Low-rank parts take this share of the signs' bytes: what rank 16 takes of 4,096 x 4,096 numbers,
# as in the paper. With a fixed rank they would be larger than the signs in a small matrix.
_FACTOR_SHARE = 1 / 8
_WIDENED = 1.25  # see above
_OVERSAMPLED = 4  # columns of the random start beyond the rank
_ITERATIONS = 3  # of the power method
_SEED = 0


class SignBlock(NamedTuple):
    """One term of the sum.

    Attributes:
        signs: `[out, ceil(in / 8)]` uint8; a set bit is a plus, the first number the lowest bit.
        left: `[out, rank]` float16.
        right: `[in, rank]` float16.
    """

    signs: Tensor
    left: Tensor
    right: Tensor

    @property
    def n_bytes(self) -> int:
        """Of the block, in memory and stored."""
        return sum(part.nbytes for part in self)

    def matrix(self) -> Tensor:
        """What the block stands for: `[out, in]` float32."""
        size = self.left.float() @ self.right.float().T
        return torch.where(unpack_signs(self.signs, size.shape[1]), size, -size)

    def to_bytes(self) -> Tensor:
        """All of it in a row: `[bytes]` uint8."""
        parts = self.signs, self.left.view(torch.uint8), self.right.view(torch.uint8)
        return torch.cat([part.flatten() for part in parts])

    @classmethod
    def from_bytes(cls, stored: Tensor, rows: int, columns: int) -> "SignBlock":
        """The block of a matrix of this size.

        Args:
            stored: `[bytes]` uint8.
            rows: of the matrix.
            columns: of the matrix.

        Raises:
            ValueError: no rank makes a block of this size.
        """
        packed = rows * -(-columns // 8)
        rank, rest = divmod(stored.numel() - packed, FACTORS.itemsize * (rows + columns))
        if rank < 1 or rest:
            raise ValueError(f"{stored.numel()} bytes are no block of {rows} x {columns}")
        factors = stored[packed:].clone().view(FACTORS)  # a view needs bytes that are aligned
        left, right = factors.split((rows * rank, columns * rank))
        signs = stored[:packed].view(rows, -1)
        return cls(signs, left.view(rows, rank), right.view(columns, rank))


def usual_rank(rows: int, columns: int) -> int:
    """The rank of a matrix's blocks: 16 for 4,096 x 4,096, 3 for 576 x 1,536."""
    factor_bytes = FACTORS.itemsize * (rows + columns)
    return max(1, round(_FACTOR_SHARE * rows * columns / 8 / factor_bytes))


def decompose(
    weight: Tensor, row_scale: Tensor, column_scale: Tensor, rank: int, blocks: int
) -> Iterator[tuple[SignBlock, float]]:
    """Takes blocks off a matrix; yields each, with the weighted square of what it leaves.

    Args:
        weight: `[out, in]`, any floating dtype and device.
        row_scale: `[out]` positive; rows are made that much larger before blocks are taken.
        column_scale: `[in]` positive; the same for columns.
        rank: of the absolute values.
        blocks: how many to take.
    """
    generator = torch.Generator(weight.device).manual_seed(_SEED)
    rows, columns = row_scale.float()[:, None], column_scale.float()[:, None]
    residual = weight.float() * rows * columns.T
    for _ in range(blocks):
        left, right = _nearest(residual.abs(), rank, generator)
        left, right = _balanced(left / rows, right / columns)
        block = SignBlock(pack_signs(residual >= 0), left.to(FACTORS), right.to(FACTORS))
        residual = residual - block.matrix() * rows * columns.T
        yield block, float(residual.double().square().sum())


def pack_signs(is_plus: Tensor) -> Tensor:
    """`[rows, columns]` bool to `[rows, ceil(columns / 8)]` uint8, the first the lowest bit."""
    padded = torch.nn.functional.pad(is_plus.to(torch.uint8), (0, -is_plus.shape[1] % 8))
    bits = torch.arange(8, dtype=torch.uint8, device=is_plus.device)
    packed: Tensor = (padded.unflatten(1, (-1, 8)) << bits).sum(2, dtype=torch.uint8)
    return packed


def unpack_signs(signs: Tensor, columns: int) -> Tensor:
    """`[rows, ceil(columns / 8)]` uint8 to `[rows, columns]` bool."""
    bits = torch.arange(8, dtype=torch.uint8, device=signs.device)
    wide: Tensor = (signs[:, :, None] >> bits & 1).flatten(1)[:, :columns].bool()
    return wide


def _nearest(sizes: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The best approximation of a low rank, nearly: subspace iteration from a random start."""
    width = min(rank + _OVERSAMPLED, *sizes.shape)
    start = torch.rand(sizes.shape[1], width, device=sizes.device, generator=generator)
    basis = torch.linalg.qr(sizes @ start)[0]
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(sizes @ torch.linalg.qr(sizes.T @ basis)[0])[0]
    left, values, right = torch.linalg.svd(basis.T @ sizes, full_matrices=False)
    return basis @ left[:, :rank] * (values[:rank] * _WIDENED), right[:rank].T


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of both made equally large, so that neither leaves float16."""
    tiny = torch.finfo(torch.float32).tiny
    ratio = (right.norm(dim=0).clamp(min=tiny) / left.norm(dim=0).clamp(min=tiny)).sqrt()
    return left * ratio, right / ratio
