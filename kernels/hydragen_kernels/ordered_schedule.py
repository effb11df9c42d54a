"""Cut a plan's items into tiles whose sums have one order: chunks of keys at absolute positions.

Host code, numpy only. A sequence is cut at the multiples of `CHUNK`, whatever segments it lies in:
a chunk's keys are *pieces* of one or more segments. Each chunk is folded from an empty state, and
the states of chunks are added up in ascending order (`ordered_fold`). A tile is at most `span`
queries of one kv head against one chunk, or against all of the first ones, which it adds up itself:
the tile table is that of `schedule.TILE_FIELDS`, with the tile's pieces in the place of its keys.

Every query row owns partial slots 0 .. counts[row] - 1, states in ascending order of their chunks.
The first may hold the sum of several chunks, the last is of a chunk that its tail goes on with if
the row's keys here do not end at a multiple of `CHUNK`.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import Item, item_columns, item_positions, item_rows
from hydragen_kernels.schedule import (
    TILE_FIELDS,
    Schedule,
    TileConfig,
    checked_items,
    deal,
    tile_config,
)

KEY_GROUP = 16  # keys that one instruction of the tensor cores adds up; segments are cut there
CHUNK = 1024  # keys; a multiple of KEY_GROUP and of every block_k
PIECE_FIELDS = ("slot", "count", "reach", "closes", "position")
"""Columns of a piece table, int32: token t of a tile sees the keys j with j <= reach + t.

With a piece that closes, the chunk is complete. The first key stands at `position` in the
sequences of the queries, which windows go by.
"""
WRITES_SUM, WRITES_OPEN = 1, 2  # of a tile's field `reach`: which states it has to write
_START_KEYS = 64  # keys that take as long as it takes to begin a tile


@dataclass(frozen=True, slots=True)
class _Piece:
    """Keys of one stretch in one chunk; causal, the i-th query sees i + 1 - `offset` of them."""

    slot: int
    count: int
    offset: int
    causal: bool
    closes: bool
    position: int


@dataclass(slots=True)
class _Unit:
    """Queries start .. stop - 1 against one chunk's pieces."""

    start: int
    stop: int
    pieces: tuple[_Piece, ...]


@dataclass(slots=True)
class _Tables:
    """Tiles and pieces under way."""

    tiles: list[Int32] = field(default_factory=list)
    ranges: list[Int32] = field(default_factory=list)
    keys: list[Int32] = field(default_factory=list)
    pieces: list[tuple[int, int, int, int, int]] = field(default_factory=list)


def ordered_config(head_dim: int, dtype: torch.dtype, group: int) -> TileConfig:
    """Choose the tile shape; measured on an H200, but for fp16.

    Values of fp16 are widened in registers. Then the compiler has an instruction of single warps
    (mma.sync) take in the keys of two instructions in another order than they lie in; one of four
    warps (wgmma) reads them from shared memory as they lie. So tails and tiles both use the former,
    which two warps leave no choice about.

    Args:
        head_dim: elements of a head, at most 256.
        dtype: of queries.
        group: query heads that share a kv head, at most 128.
    """
    config = tile_config(head_dim, dtype.itemsize, group)
    if dtype == torch.float16:
        rows = max(32, 1 << (group - 1).bit_length())
        return replace(config, block_q=rows, block_k=32, num_warps=2)
    if dtype == torch.bfloat16 and head_dim <= 128:
        return TileConfig(128, 64, 8, 3, 1)
    return config


def schedule_ordered(
    items: Int32,
    tokens: int,
    *,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    multiprocessors: int = 132,
    max_partial_slots: int | None = None,
    config: TileConfig | None = None,
    has_tails: bool = True,
) -> Schedule:
    """Cut items into tiles and deal them out.

    Args:
        items: as of `schedule_segments`; each but the last of a path has a multiple of `KEY_GROUP`
            slots.
        tokens: query rows of the call.
        q_heads: query heads; a multiple of kv_heads.
        kv_heads: key/value heads.
        head_dim: elements of a head.
        multiprocessors: of the device.
        max_partial_slots: bound on the partial slots of a row, at least 2.
        config: the tile shape; None: that of `tile_config` for 16 bits.
        has_tails: rows go on in tails of their own, which take in a path's last, incomplete group.

    Raises:
        ValueError: the items break the rules above.
    """
    items = checked_items(items, tokens)
    group = q_heads // kv_heads
    config = config or tile_config(head_dim, 2, group)
    span, programs = config.block_q // group, config.programs_per_sm * multiprocessors
    runs, ends, leads = _runs(items, tokens, has_tails)
    units = _units(runs)
    tables, counts = _tabulate(units, tokens, span, kv_heads, programs, has_tails)
    if max_partial_slots is not None and counts.max(initial=0) > max_partial_slots:
        units = [[_Unit(start, stop, pieces) for start, stop, pieces in _whole(runs)]]
        tables, counts = _tabulate(units, tokens, span, kv_heads, 1, has_tails)
    tiles = np.concatenate([np.empty((0, len(TILE_FIELDS)), np.int32), *tables.tiles])
    ranges = np.concatenate([np.empty((0, 2), np.int32), *tables.ranges])
    keys = np.concatenate([np.empty(0, np.int32), *tables.keys])
    order, starts = deal(keys + float(_START_KEYS), programs)
    pieces = np.array(tables.pieces, np.int32).reshape(-1, len(PIECE_FIELDS))
    prefixes = np.stack([ends, leads])
    return Schedule(config, span, tiles[order], starts, counts, ranges[order], pieces, prefixes)


_Run = tuple[int, int, dict[int, tuple[_Piece, ...]]]


class _Stretch(NamedTuple):
    """Keys that lie behind each other and are met by the same queries.

    Attributes:
        slot: the first.
        keys: so many.
        position: of the first in the sequence.
        causal: a query sees only some of them.
        whole: so many it sees in any case; the i-th query sees i + 1 more.
    """

    slot: int
    keys: int
    position: int
    causal: bool = False
    whole: int = 0


def _runs(items: Int32, tokens: int, has_tails: bool) -> tuple[list[_Run], Int32, Int32]:
    """Queries of one path, and its pieces by chunk; of each query where its prefix ends, and the
    slot of the incomplete group at its end."""
    of, positions = item_columns(items), item_positions(items, tokens).tolist()
    edges = np.unique(np.concatenate([of.query_start, of.query_stop])).tolist()
    paths: list[list[int]] = [[] for _ in edges[1:]]
    first, last = np.searchsorted(edges, of.query_start), np.searchsorted(edges, of.query_stop)
    for index, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for path in paths[start:stop]:
            path.append(index)
    rows = item_rows(items)
    runs: list[_Run] = []
    ends, leads = np.zeros(tokens, np.int32), np.zeros(tokens, np.int32)
    known: dict[_Stretch, list[tuple[int, _Piece]]] = {}
    for start, stop, path in zip(edges[:-1], edges[1:], paths, strict=True):
        if not path:
            continue
        stretches = _stretches([(rows[index], positions[index]) for index in path])
        end = stretches[-1].position + stretches[-1].keys
        lead = end % KEY_GROUP if has_tails else 0
        ends[start:stop], leads[start:stop] = end, rows[path[-1]].slot_stop - lead
        stretches[-1] = stretches[-1]._replace(keys=stretches[-1].keys - lead)
        by_chunk: dict[int, list[_Piece]] = {}
        for stretch in stretches:
            if stretch not in known:
                known[stretch] = _cut(stretch)
            for chunk, piece in known[stretch]:
                by_chunk.setdefault(chunk, []).append(piece)
        runs.append((start, stop, {chunk: tuple(own) for chunk, own in by_chunk.items()}))
    return runs, ends, leads


def _stretches(path: list[tuple[Item[int], int]]) -> list[_Stretch]:
    """A path's items and their positions, what is of one segment together: its earlier tokens, and
    those that see each other."""
    stretches: list[_Stretch] = []
    before: Item[int] | None = None
    for item, position in path:
        if item.causal and before is not None and _goes_on(before, item):
            earlier = stretches.pop()
            keys = earlier.keys + item.slot_count
            stretches.append(earlier._replace(keys=keys, causal=True, whole=earlier.keys))
        elif position % KEY_GROUP:
            raise ValueError(f"items: expected all to begin at a multiple of {KEY_GROUP} keys")
        else:
            count, causal = item.slot_count, bool(item.causal)
            stretches.append(_Stretch(item.slot_start, count, position, causal))
        before = item
    return stretches


def _goes_on(before: Item[int], item: Item[int]) -> bool:
    """Whether an item's keys lie behind those of the one before, and the same queries meet both."""
    return before[:2] == item[:2] and before.slot_stop == item.slot_start and not before.causal


def _cut(stretch: _Stretch) -> list[tuple[int, _Piece]]:
    """A stretch's pieces and their chunks."""
    pieces = []
    offset = 0
    while offset < stretch.keys:
        at = stretch.position + offset
        size = min(stretch.keys - offset, CHUNK - at % CHUNK)
        closes = (at + size) % CHUNK == 0
        slot, behind = stretch.slot + offset, offset - stretch.whole
        pieces.append((at // CHUNK, _Piece(slot, size, behind, stretch.causal, closes, at)))
        offset += size
    return pieces


def _units(runs: list[_Run]) -> list[list[_Unit]]:
    """Of each chunk its units: neighbouring queries that meet the same pieces."""
    n_chunks = max((max(own, default=-1) + 1 for _, _, own in runs), default=0)
    units: list[list[_Unit]] = [[] for _ in range(n_chunks)]
    for start, stop, own in runs:
        for chunk, pieces in own.items():
            before = units[chunk][-1] if units[chunk] else None
            if before is not None and before.stop == start and before.pieces == pieces:
                before.stop = stop
            else:
                units[chunk].append(_Unit(start, stop, pieces))
    return units


def _whole(runs: list[_Run]) -> list[tuple[int, int, tuple[_Piece, ...]]]:
    """Each run's pieces of all chunks together."""
    return [
        (start, stop, tuple(piece for chunk in sorted(own) for piece in own[chunk]))
        for start, stop, own in runs
    ]


def _tabulate(
    units: list[list[_Unit]],
    tokens: int,
    span: int,
    kv_heads: int,
    programs: int,
    has_tails: bool,
) -> tuple[_Tables, Int32]:
    """Makes tiles of units; counts the partial slots of each row.

    Tiles of the first chunks take in those behind them, of the same queries, while the device stays
    full; then several chunks have one partial.
    """
    tables, counts = _Tables(), np.zeros(tokens, np.int32)
    work = sum(-(-(one.stop - one.start) // span) for chunk in units for one in chunk) * kv_heads
    serial = max(1, work // programs) if has_tails else len(units)
    taken: set[tuple[int, int, int]] = set()  # chunk and queries of units in others' tiles
    by_queries = [{(one.start, one.stop): one for one in chunk} for chunk in units]
    for chunk, of_chunk in enumerate(units):
        for unit in of_chunk:
            queries = unit.start, unit.stop
            if (chunk, *queries) in taken:
                continue
            pieces = unit.pieces
            if chunk == 0:
                for later in range(1, min(serial, len(units))):
                    follower = by_queries[later].get(queries)
                    if follower is None:
                        break
                    pieces += follower.pieces
                    taken.add((later, *queries))
            slot = int(counts[unit.start])
            sums = any(piece.closes for piece in pieces)
            opens = not pieces[-1].closes or any(piece.causal for piece in pieces)
            _add_tiles(tables, unit, pieces, slot, sums, opens, span, kv_heads)
            counts[unit.start : unit.stop] += int(sums) + int(opens)
    return tables, counts


def _add_tiles(
    tables: _Tables,
    unit: _Unit,
    pieces: tuple[_Piece, ...],
    slot: int,
    sums: bool,
    opens: bool,
    span: int,
    kv_heads: int,
) -> None:
    """Adds a unit's tiles: kv head outermost, queries innermost."""
    first = np.arange(0, unit.stop - unit.start, span, dtype=np.int64)
    n_q = np.minimum(unit.stop - unit.start - first, span)
    if any(piece.causal for piece in pieces):  # what a tile sees depends on its queries
        queries = zip(first.tolist(), n_q.tolist(), strict=True)
        bounds = [_add_pieces(tables, pieces, *own) for own in queries]
    else:
        bounds = [_add_pieces(tables, pieces, 0, 1)] * first.size
    piece0, n_pieces, keys = np.array(bounds, np.int64).T
    writes = WRITES_SUM * sums + WRITES_OPEN * opens
    per_head = np.stack(
        [unit.start + first, n_q, piece0, n_pieces, *(0 * first + x for x in (0, slot, writes, 0))],
        axis=1,
    )
    for kv_head in range(kv_heads):
        tile = per_head.astype(np.int32)
        tile[:, TILE_FIELDS.index("kv_head")] = kv_head
        tables.tiles.append(tile)
        tables.ranges.append(np.full((first.size, 2), (unit.start, unit.stop), np.int32))
        tables.keys.append(keys.astype(np.int32))


def _add_pieces(
    tables: _Tables, pieces: tuple[_Piece, ...], first: int, n_q: int
) -> tuple[int, int, int]:
    """Adds what queries first .. first + n_q - 1 of a unit see; where it begins, its pieces, keys.

    A chunk that causal queries do not see to its end stays open in the table; adding it as it is
    comes to the same.
    """
    begin, keys = len(tables.pieces), 0
    for piece in pieces:
        reach = first - piece.offset if piece.causal else piece.count
        count = min(piece.count, reach + n_q) if piece.causal else piece.count
        if count <= 0:
            break
        closes = piece.closes and count == piece.count
        tables.pieces.append((piece.slot, count, reach, int(closes), piece.position))
        keys += count
    return begin, len(tables.pieces) - begin, keys
