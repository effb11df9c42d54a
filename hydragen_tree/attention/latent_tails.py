"""Tails that hold latent vectors in place of keys and values, and the queries that meet them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hydragen_kernels.reference import Partial


@dataclass(frozen=True, eq=False, slots=True)
class LatentTails:
    """What takes the place of queries, keys and values in the tails of a step.

    All heads share a token's vector: as their key it is whole, as their value its first `rank`
    numbers. What comes out is made a value of each head's own by one product more.

    Attributes:
        queries: `[queries, q_heads, latent_dim]`, made for such keys.
        arena: `[1, slots, latent_dim]`.
        up: `[q_heads, rank, value_dim]`, a head's values out of such vectors.
    """

    queries: Tensor
    arena: Tensor
    up: Tensor

    @property
    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        """`[1, slots, latent_dim]` and `[1, slots, rank]`, views of the arena."""
        return self.arena, self.arena[..., : self.up.shape[1]]

    def expanded(self, part: Partial) -> Partial:
        """A partial `[queries, q_heads, rank]` as one `[queries, q_heads, value_dim]`."""
        out = torch.bmm(part.out.transpose(0, 1).to(self.up.dtype), self.up)
        return Partial(out.transpose(0, 1), part.lse)

    def widened(self, part: Partial, width: int) -> Partial:
        """The same with zeros behind values, up to so many numbers."""
        out, lse = self.expanded(part)
        return Partial(functional.pad(out, (0, width - out.shape[-1])), lse)
