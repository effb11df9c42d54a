"""A schedule on the device: a captured step reads it, and it follows the rows as they fork."""

import numpy as np
import torch

from hydragen_kernels.arrays import Int32
from hydragen_kernels.schedule import TILE_FIELDS, Schedule

_FIELDS = len(TILE_FIELDS)
_PIECE_FIELDS = 5  # of an ordered schedule, see `ordered_schedule`
_PLACE_FIELDS = 4  # of a tile: ranks its item begins and ends with, queries before it, keys


class SegmentTiles:
    """A schedule in fixed device buffers, so that a CUDA graph survives a change of plan.

    The rows that a schedule was made for may be fewer, and elsewhere, when a step comes to run:
    `place` moves the tiles to where they are, without the host.

    Args:
        schedule: the first schedule to hold.
        device: where the buffers live.
        capacity: tiles, and pieces, there is room for; 0 means those of the schedule.
        rows: query rows, and ranks of them, there is room for; 0 means those of the schedule.

    Attributes:
        config: the shape of the tiles.
        tiles: `[capacity, fields]` int32, as in `Schedule`.
        starts: `[programs + 1]` int32, as in `Schedule`.
        counts: `[rows]` int32, partial slots each row owns.
        pieces: `[capacity, fields]` int32 of an ordered schedule, else None.
        prefixes: `[2, rows]` int32, as in `Schedule`; of an ordered one.
    """

    def __init__(
        self, schedule: Schedule, device: torch.device | str, capacity: int = 0, rows: int = 0
    ) -> None:
        self.config, self._span = schedule.config, schedule.span
        tiles, rows = max(1, capacity, len(schedule.tiles)), max(rows, len(schedule.counts))
        pieces, n_prefixes = 0, 0
        if schedule.pieces is not None:
            pieces, n_prefixes = max(1, capacity, len(schedule.pieces)), 2
        of_row = 1 + n_prefixes
        self._sizes = (
            *(len(schedule.starts), of_row * rows, of_row * rows),
            *(tiles * _FIELDS, tiles * _PLACE_FIELDS, pieces * _PIECE_FIELDS),
        )
        self._buffer = torch.zeros(sum(self._sizes), dtype=torch.int32, device=device)
        self.starts, of_rows, of_ranks, flat, places, flat_pieces = self._buffer.split(self._sizes)
        self._of_rows, self._of_ranks = of_rows.view(of_row, rows), of_ranks.view(of_row, rows)
        self.counts, self.prefixes = self._of_rows[0], self._of_rows[1:]
        self.tiles = flat.view(-1, _FIELDS)
        self._places = places.view(-1, _PLACE_FIELDS)
        self.pieces = flat_pieces.view(-1, _PIECE_FIELDS) if pieces else None
        self.load(schedule)

    def has_room(self, schedule: Schedule) -> bool:
        """Whether a schedule's tiles and pieces fit."""
        pieces = 0 if schedule.pieces is None else len(schedule.pieces)
        room = 0 if self.pieces is None else len(self.pieces)
        return len(schedule.tiles) <= len(self.tiles) and pieces <= room

    def load(self, schedule: Schedule, edges: Int32 | None = None) -> None:
        """Replace the schedule in place, in one copy; rows beyond its own own no partials.

        Args:
            schedule: the new one.
            edges: `[ranks + 1]` int32, ascending: where ranks of rows begin and end in the
                schedule, none of them empty. Its items begin and end there too. `place` needs it.

        Raises:
            ValueError: the schedule does not fit the buffers.
        """
        if schedule.config != self.config or len(schedule.starts) != len(self.starts):
            raise ValueError("schedule: made for other tile shapes or another device")
        if not self.has_room(schedule) or len(schedule.counts) > len(self.counts):
            raise ValueError(
                f"schedule: {len(schedule.tiles)} tiles and {len(schedule.counts)} rows, "
                f"room for {len(self.tiles)} and {len(self.counts)}"
            )
        pinned = self._buffer.is_cuda
        packed = torch.zeros(len(self._buffer), dtype=torch.int32, pin_memory=pinned)
        starts, of_rows, of_ranks, *flat = (part.numpy() for part in packed.split(self._sizes))
        rows = schedule.counts[None]
        if schedule.prefixes is not None:
            rows = np.concatenate([rows, schedule.prefixes])
        of_rows.reshape(len(rows), -1)[:, : rows.shape[1]] = rows
        places = np.empty(0, np.int32)
        if edges is not None:
            of_ranks.reshape(len(rows), -1)[:, : len(edges) - 1] = rows[:, edges[:-1]]
            of = dict(zip(TILE_FIELDS, schedule.tiles.T, strict=True))
            first, last = np.searchsorted(edges, schedule.ranges).T
            places = np.stack([first, last, of["q0"] - schedule.ranges[:, 0], of["n_kv"]], axis=1)
        starts[:] = schedule.starts
        pieces = np.empty(0, np.int32) if schedule.pieces is None else schedule.pieces
        for part, array in zip(flat, (schedule.tiles, places, pieces), strict=True):
            part[: array.size] = array.reshape(-1)
        self._buffer.copy_(packed, non_blocking=True)

    def place(self, starts: torch.Tensor, rows: int) -> None:
        """Move the tiles to where the rows of their items are; those without rows do nothing.

        Plain torch of fixed shapes, so that a graph can hold it.

        Args:
            starts: `[ranks + 1]` int32, the first row of each rank, and where the last one ends;
                no rank has more rows than in the schedule.
            rows: rows of the step. Rows beyond them, which a step that is stuck may have, are
                computed by no tile: its queries and partials end before them.
        """
        first, last, offset, n_kv = self._places.unbind(1)
        q0 = starts[first] + offset
        n_q = (starts[last].clamp(max=rows) - q0).clamp(0, self._span)
        columns = {"q0": q0, "n_q": n_q, "n_kv": torch.where(n_q > 0, n_kv, 0)}
        for name, column in columns.items():
            self.tiles[:, TILE_FIELDS.index(name)] = column
        row = torch.arange(rows, dtype=torch.int32, device=starts.device)
        rank = torch.bucketize(row, starts[1:], right=True).clamp(max=len(starts) - 2)
        self._of_rows[:, :rows] = torch.where(row < starts[-1], self._of_ranks[:, rank], 0)
