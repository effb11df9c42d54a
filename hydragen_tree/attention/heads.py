"""What a backend must know of a model's attention, and of the device it runs on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.ordered_schedule import KEY_GROUP, schedule_ordered
from hydragen_kernels.schedule import Schedule, TileConfig, schedule_segments
from hydragen_tree.shape import KVShape

if TYPE_CHECKING:
    from hydragen_kernels.ordered_states import States


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention layer, their types, and where they are.

    Attributes:
        q_heads: query heads.
        kv_heads: key-value heads; `q_heads` is a multiple of them.
        head_dim: numbers a head.
        dtype: of queries, keys and values.
        device: where they are.
        kv_dtype: of keys and values, where it is another.
        is_capped: whether scores are soft-capped (Gemma 2).
        is_windowed: whether any layer sees the last tokens only (`attention.windows`).
        is_ordered: attention sums in one order, whatever shares the step (`ordered_triton`).
        latent_dim: numbers of a latent vector, where tails hold those; 0: they do not.
    """

    q_heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    kv_dtype: torch.dtype | None = None
    is_capped: bool = False
    is_windowed: bool = False
    is_ordered: bool = False
    latent_dim: int = 0

    @classmethod
    def of(
        cls,
        shape: KVShape,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: torch.dtype | None = None,
        *,
        is_capped: bool = False,
        is_windowed: bool = False,
    ) -> "Heads":
        """Those of a model of this shape."""
        sizes = shape.q_heads, shape.kv_heads, shape.head_dim
        rest = is_capped, is_windowed
        return cls(*sizes, dtype, device, kv_dtype, *rest, latent_dim=shape.latent_dim)

    @property
    def arena_dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self.dtype if self.kv_dtype is None else self.kv_dtype

    @property
    def group(self) -> int:
        """Query heads that share a kv head."""
        return self.q_heads // self.kv_heads

    @property
    def multiprocessors(self) -> int:
        """Of the device; the interpreter acts as a small one."""
        if self.device.type != "cuda":
            return 4
        return torch.cuda.get_device_properties(self.device).multi_processor_count

    @property
    def partial_bytes(self) -> int:
        """One query row's partial: fp32 output and log-sum-exp of every head, or a state's."""
        return 4 * self.q_heads * (self.head_dim + 1 + (KEY_GROUP if self.is_ordered else 0))

    @property
    def tiles(self) -> TileConfig:
        """The segment kernel's tiles, and with them its form. Imports Triton."""
        if self.is_ordered:
            from hydragen_kernels.ordered_segment import ordered_tiles as choose
        else:
            from hydragen_kernels.segment import best_config as choose

        return choose(
            self.device,
            self.dtype,
            self.head_dim,
            self.group,
            self.kv_dtype,
            is_windowed=self.is_windowed,
        )

    def schedule(
        self,
        items: Int32,
        n_queries: int,
        max_partial_slots: int | None,
        *,
        has_tails: bool = True,
    ) -> Schedule:
        """Cuts a plan's items into the tiles of one launch. Imports Triton.

        Args:
            items: of the plan.
            n_queries: its queries.
            max_partial_slots: bound on the partials of a query; None: none.
            has_tails: queries go on in tails of their own.
        """
        if self.is_ordered:
            return schedule_ordered(
                items,
                n_queries,
                q_heads=self.q_heads,
                kv_heads=self.kv_heads,
                head_dim=self.head_dim,
                multiprocessors=self.multiprocessors,
                max_partial_slots=max_partial_slots,
                config=self.tiles,
                has_tails=has_tails,
            )
        return schedule_segments(
            items,
            n_queries,
            q_heads=self.q_heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            element_bytes=self.arena_dtype.itemsize,
            multiprocessors=self.multiprocessors,
            max_partial_slots=max_partial_slots,
            config=self.tiles,
        )

    def splits(self, rows: int, longest: int) -> int:
        """Programs that share a tail of `longest` tokens, when `rows` alone are too few."""
        if self.is_ordered:
            from hydragen_kernels.ordered_tail import ordered_splits

            return ordered_splits(rows, self.kv_heads, longest, self.multiprocessors)
        if self.latent_dim:
            from hydragen_kernels.latent_tail import latent_splits

            return latent_splits(rows, self.q_heads, longest, self.multiprocessors)
        from hydragen_kernels.tail import tail_splits

        return tail_splits(rows, self.kv_heads, longest, self.multiprocessors, self.group)

    def partials(self, slots: int, rows: int) -> tuple[Tensor, Tensor]:
        """Room for every row's partials: `[slots, rows, q_heads, head_dim]` and their lse."""
        size = (slots, rows, self.q_heads)
        out = torch.empty(*size, self.head_dim, dtype=torch.float32, device=self.device)
        return out, torch.empty(size, dtype=torch.float32, device=self.device)

    def states(self, slots: int, rows: int) -> "States":
        """Room for every row's states, where attention is ordered. Imports Triton."""
        from hydragen_kernels.ordered_states import States

        return States.empty(slots, rows, self.q_heads, self.head_dim, self.device)
