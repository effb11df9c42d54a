"""Tree attention on a GPU: two launches a layer, whatever the tree.

All segments of a plan are one persistent launch of `segment_attention` (or a call a level of flash
attention, for comparison and where it is faster); every row's tail and the
merge of its partials are one launch of `tail_attention`. The tables they read depend on the plan
alone, so they are built once a step and used by every layer.

Importing this module imports Triton.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.schedule import Schedule, TileConfig, schedule_segments
from hydragen_kernels.segment import SegmentTables, best_config, segment_attention
from hydragen_kernels.tail import tail_attention, tail_splits
from hydragen_tree.attention.flash import FlashSegments
from hydragen_tree.attention.plan import Int, Plan
from hydragen_tree.shape import KVShape


@dataclass(frozen=True, slots=True)
class Heads:
    """What the kernels must know of a model's attention, and of the device they run on.

    Attributes:
        q_heads: query heads.
        kv_heads: key-value heads; `q_heads` is a multiple of them.
        head_dim: numbers a head.
        dtype: of queries, keys and values.
        device: where they are.
        kv_dtype: of keys and values, where it is another.
    """

    q_heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    kv_dtype: torch.dtype | None = None

    @classmethod
    def of(
        cls,
        shape: KVShape,
        dtype: torch.dtype,
        device: torch.device,
        kv_dtype: torch.dtype | None = None,
    ) -> "Heads":
        """Those of a model of this shape."""
        return cls(shape.q_heads, shape.kv_heads, shape.head_dim, dtype, device, kv_dtype)

    @property
    def multiprocessors(self) -> int:
        """Of the device; the interpreter acts as a small one."""
        if self.device.type != "cuda":
            return 4
        return torch.cuda.get_device_properties(self.device).multi_processor_count

    @property
    def partial_bytes(self) -> int:
        """One query row's partial: fp32 output and log-sum-exp of every head."""
        return 4 * self.q_heads * (self.head_dim + 1)

    @property
    def tiles(self) -> TileConfig:
        """The segment kernel's tiles, and with them its form."""
        group = self.q_heads // self.kv_heads
        return best_config(self.device, self.dtype, self.head_dim, group, self.kv_dtype)

    def schedule(self, items: Int, n_queries: int, max_partial_slots: int | None) -> Schedule:
        """Cuts a plan's items into the tiles of one launch."""
        return schedule_segments(
            items,
            n_queries,
            q_heads=self.q_heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            element_bytes=(self.kv_dtype or self.dtype).itemsize,
            multiprocessors=self.multiprocessors,
            max_partial_slots=max_partial_slots,
            config=self.tiles,
        )

    def splits(self, rows: int, longest: int) -> int:
        """Programs that share a tail of `longest` tokens, when `rows` alone are too few."""
        group = self.q_heads // self.kv_heads
        return tail_splits(rows, self.kv_heads, longest, self.multiprocessors, group)

    def partials(self, slots: int, rows: int) -> tuple[Tensor, Tensor]:
        """Room for every row's partials: `[slots, rows, q_heads, head_dim]` and their lse."""
        size = (slots, rows, self.q_heads)
        out = torch.empty(*size, self.head_dim, dtype=torch.float32, device=self.device)
        return out, torch.empty(size, dtype=torch.float32, device=self.device)


@dataclass(frozen=True, eq=False, slots=True)
class FusedPlan:
    """A plan on the device, with the room its partials need. Layers use it one after the other.

    Attributes:
        segments: tiles of all segments, or calls of flash attention.
        partials: as `Heads.partials` makes them.
        pages: `[rows, max_pages]` int32.
        lengths: `[rows]` int32, tokens of each tail.
        page_tokens: slots a page.
        splits: programs a tail is split into.
    """

    segments: SegmentTables | FlashSegments
    partials: tuple[Tensor, Tensor]
    pages: Tensor
    lengths: Tensor
    page_tokens: int
    splits: int

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """`tree_attention` of this plan; arguments and result as there."""
        if isinstance(self.segments, FlashSegments):
            self.segments.attend(queries, keys, values, self.partials, scale=scale, softcap=softcap)
        else:
            segment_attention(
                queries, keys, values, self.segments, *self.partials, scale=scale, softcap=softcap
            )
        return tail_attention(
            queries,
            keys,
            values,
            self.pages,
            self.lengths,
            self.page_tokens,
            *self.partials,
            self.segments.counts[: queries.shape[0]],
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            splits=self.splits,
        )[0]


@lru_cache(maxsize=1)  # plans compare by identity: every layer of a step asks with the same one
def fuse(plan: Plan, heads: Heads, flash: bool = False) -> FusedPlan:
    """Puts a plan on the device, its segments for our own kernel or for flash attention."""
    rows = plan.n_queries
    segments: SegmentTables | FlashSegments
    if flash:
        group = heads.q_heads // heads.kv_heads
        segments = FlashSegments(plan.items, rows, group, heads.device)
        partial_slots = segments.partial_slots
    else:
        schedule = heads.schedule(plan.items, rows, None)
        segments, partial_slots = SegmentTables(schedule, heads.device), schedule.partial_slots
    pages, lengths, page_tokens = np.zeros((rows, 1), np.int32), np.zeros(rows, np.int32), 16
    if plan.tails is not None:
        page_tokens, lengths = plan.tails.page_tokens, plan.tails.lengths
        pages = plan.tails.pages.clip(min=0)
    return FusedPlan(
        segments=segments,
        partials=heads.partials(max(1, partial_slots), rows),
        pages=torch.from_numpy(pages.astype(np.int32)).to(heads.device),
        lengths=torch.from_numpy(lengths.astype(np.int32)).to(heads.device),
        page_tokens=page_tokens,
        splits=heads.splits(rows, int(lengths.max(initial=0))),
    )
