"""Groups of rows: those that hang from one segment, in the order of the tree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.attention.segment_table import SegmentTable

_LEAST_ROOM = 32  # rows of a group that may fork


@dataclass(frozen=True, eq=False, slots=True)
class GroupPlan:
    """A plan for as many rows as each group may have.

    Attributes:
        rank: `[groups]` of each group by its number, depth-first.
        room: `[ranks]` rows that each may have.
        items: what these rows attend to, as of `SegmentTable.items_in_arenas`.
        edges: `[ranks + 1]` int32, where ranks begin among them.
    """

    rank: NDArray[np.int64]
    room: NDArray[np.int64]
    items: list[Int32]
    edges: Int32


class RowGroups:
    """Which segment the samples of a batch hang from, and how many rows hang there.

    Args:
        table: where segments are.
        slots: of samples.
        most: groups at a time.
        arenas: in which keys and values are.
    """

    def __init__(self, table: SegmentTable, slots: int, most: int, arenas: int = 1) -> None:
        self._table, self._arenas = table, arenas
        self._of_slot = np.zeros(slots, np.int64)
        self._segment = np.full(most, -1, np.int64)
        self._rows = np.zeros(most, np.int64)  # as last seen; of new groups: unknown, -1
        self._room = np.zeros(most, np.int64)
        self._since = np.zeros(most, np.int64)  # first chunk that has all samples of the group

    def hang(self, slots: NDArray[np.int64], segment: int, chunk: int) -> None:
        """Samples come that hang from a segment; they are there from a chunk on."""
        self._of_slot[slots] = self.open(segment, chunk)

    def open(self, segment: int, chunk: int) -> int:
        """The group of a segment below which rows come, all of which are there from a chunk on."""
        known = np.flatnonzero(self._segment == segment)
        group = int(known[0]) if known.size else int(np.flatnonzero(self._segment < 0)[0])
        self._segment[group] = segment
        self._since[group] = chunk
        self._rows[group], self._room[group] = -1, 0  # more rows than before, or the first
        return group

    def number(self, slot: int) -> int:
        """The group of a sample."""
        return int(self._of_slot[slot])

    def segments_of(self, groups: NDArray[np.integer]) -> Int32:
        """The segments of groups, `[rows]` each."""
        segments: Int32 = self._segment[groups].astype(np.int32)
        return segments

    def segments(self, is_used: NDArray[np.bool_]) -> Int32:
        """The segments that samples in use hang from."""
        return self._segment[np.unique(self._of_slot[is_used])].astype(np.int32)

    def seen(
        self,
        slots: NDArray[np.int64],
        groups: NDArray[np.int64],
        rows: NDArray[np.int64],
        chunk: int,
    ) -> None:
        """Notes where samples hang, and how many rows each group had after a chunk.

        Args:
            slots: of samples.
            groups: of each of them.
            rows: groups of all rows.
            chunk: its number.
        """
        self._of_slot[slots] = groups
        counts = np.bincount(rows, minlength=self._rows.size)
        self._rows = np.where(self._since > chunk, -1, counts)

    def fits(self, is_used: NDArray[np.bool_], forks: bool) -> bool:
        """Whether the last plan has room for what rows may become, and not far too much."""
        samples, live = self._live(is_used)
        if (self._room[live] == 0).any():
            return False
        least = np.minimum(samples[live], (2 if forks else 1) * self._rows[live])
        total = int(self._room.sum())
        return bool((self._room[live] >= least).all()) and total <= 2 * max(
            _LEAST_ROOM, int(self._wanted(samples, forks, False)[live].sum())
        )

    def plan(self, is_used: NDArray[np.bool_], forks: bool, generous: bool) -> GroupPlan:
        """A new plan.

        Args:
            is_used: `[slots]` bool, samples in the batch.
            forks: rows may carry several samples.
            generous: room for a row a sample, whatever was seen.
        """
        samples, live = self._live(is_used)
        self._segment[np.setdiff1d(np.flatnonzero(self._segment >= 0), live)] = -1
        live = np.array(sorted(live.tolist(), key=self._order), np.int64)
        rank = np.zeros(self._segment.size, np.int64)
        rank[live] = np.arange(live.size)
        room = self._wanted(samples, forks, generous)[live]
        self._room[:] = 0
        self._room[live] = room
        hung = self._segment[live].astype(np.int32), room.astype(np.int32)
        items = self._table.items_in_arenas(*hung, self._arenas)
        edges = np.concatenate([[0], np.cumsum(room)]).astype(np.int32)
        return GroupPlan(rank, room, items, edges)

    def _live(self, is_used: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples of each group, and the groups that have any."""
        samples = np.bincount(self._of_slot[is_used], minlength=self._segment.size)
        return samples, np.flatnonzero(samples)

    def _wanted(self, samples: NDArray[np.int64], forks: bool, generous: bool) -> NDArray[np.int64]:
        """Room for each group; for all its samples where its rows have not been seen."""
        likely = np.maximum(4 * self._rows, _LEAST_ROOM) if forks else np.maximum(self._rows, 1)
        is_known = (self._rows >= 0) & (not generous)
        return np.minimum(samples, np.where(is_known, likely, samples))

    def _order(self, group: int) -> tuple[int, ...]:
        """Depth-first: by prompt, then by the frozen tails on the way down from its end."""
        path, segment = [], int(self._segment[group])
        while self._table.is_tail[segment]:
            path.append(segment)
            segment = int(self._table.parent[segment])
        return (int(self._table.order[segment]), *path[::-1])
