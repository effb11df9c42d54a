"""What captured steps attend to: plans in buffers of fixed place, and the partials of their rows.

Where windowed layers have an arena of their own, their plan is another: segments lie elsewhere, and
their tiles are of a form that knows windows.

Importing this module imports Triton.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drafts import ROW_QUERIES
from hydragen_kernels.items import item_table, widened
from hydragen_kernels.ordered_states import States
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_tree.attention.backend import Attend
from hydragen_tree.attention.fused import DeviceTails, FusedPlan, OrderedPlan
from hydragen_tree.attention.heads import Heads
from hydragen_tree.branch.budget import SPARE_SLOTS

_TILES = 1 << 14  # room for so many at first
_SPLIT_BYTES = 64 << 20  # more such slots where rows are few: as many as these bytes hold


class StepPlans:
    """The plans that steps read.

    Args:
        heads: the model's attention.
        queries: room for them.
        planned: queries that ranks of rows may have, each by itself, at the most.
        levels: segments on a row's path at the most.
        arenas: in which keys and values are; two: that of layers that see all, then that of others.
    """

    def __init__(self, heads: Heads, queries: int, planned: int, levels: int, arenas: int) -> None:
        self._heads, self._planned = [heads], planned
        if arenas > 1:
            self._heads = [replace(heads, is_windowed=False), replace(heads, is_windowed=True)]
        self._tables = [
            SegmentTiles(one.schedule(item_table(), queries, None), heads.device, _TILES, planned)
            for one in self._heads
        ]
        n_bytes = max((levels + SPARE_SLOTS) * queries * heads.partial_bytes, _SPLIT_BYTES)
        self._partials = torch.empty(n_bytes // 4, dtype=torch.float32, device=heads.device)

    def load(self, items: Sequence[Int32], edges: Int32, most: int, width: int) -> bool:
        """Replaces the plans.

        Args:
            items: of rows; see `Decoder.plan`.
            edges: where groups begin among rows, and the last one's end.
            most: rows of a step.
            width: queries for each row.

        Returns:
            Whether the tables stayed where they are; else graphs that read them are of no use.
        """
        stayed, slots = True, self._slots(most * width)
        for at, one in enumerate(items):
            wide, ends = one, edges
            if width > 1:
                wide, ends = widened(one, edges, ROW_QUERIES, most * width)
            schedule = self._heads[at].schedule(wide, int(ends[-1]), slots)
            if not self._tables[at].has_room(schedule):
                stayed = False
                capacity = 2 * max(len(schedule.tiles), len(self._tables[at].tiles))
                device = self._heads[at].device
                self._tables[at] = SegmentTiles(schedule, device, capacity, self._planned)
            self._tables[at].load(schedule, ends)
        return stayed

    def place(self, starts: Tensor, rows: int) -> None:
        """Moves the plans to where rows are now, see `SegmentTiles.place`."""
        for tables in self._tables:
            tables.place(starts, rows)

    def attends(self, queries: int, tails: DeviceTails) -> list[Attend]:
        """Attention of so many queries, by each of the plans."""
        return [self._plan(tables, queries, tails).attend for tables in self._tables]

    def _plan(self, tables: SegmentTiles, n: int, tails: DeviceTails) -> FusedPlan | OrderedPlan:
        heads, slots = self._heads[0], self._slots(n)
        if heads.is_ordered:
            sizes = slots, n, heads.q_heads, heads.head_dim
            return OrderedPlan(tables, States.cut(self._partials, *sizes), tails)
        size = slots * n * heads.q_heads
        out = self._partials[: size * heads.head_dim].view(slots, n, -1, heads.head_dim)
        lse = self._partials[size * heads.head_dim :][:size].view(slots, n, -1)
        return FusedPlan(tables, (out, lse), tails)

    def _slots(self, queries: int) -> int:
        """Partials of a query for which the buffer has room, the same place whatever the plan."""
        return self._partials.numel() * 4 // (queries * self._heads[0].partial_bytes)
