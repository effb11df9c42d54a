"""Cut a plan's segment items into tiles and deal them to the programs of one persistent launch.

Host code, numpy only; the same schedule serves every layer of a model. An item says "these queries
meet the keys of this segment". A tile is what one program does at a time: at most `block_q` rows
(query tokens x grouped heads) of one kv head against one range of keys, giving one partial a row.

Every query row owns partial slots 0 .. counts[row] - 1: one a level, more where an item's keys are
split because too few rows meet them to fill the device.
"""

import heapq
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import WIDTH, item_columns, item_positions

FloatArray = npt.NDArray[np.float64]

TILE_FIELDS = ("q0", "n_q", "kv0", "n_kv", "kv_head", "partial_slot", "reach", "position")
"""Columns of a tile table, int32: its token t sees the keys j with j < n_kv and j <= reach + t.

The first key stands at `position` in the sequences of the queries, which windows go by.
"""

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
SHORTEST_CHUNK = 256  # keys; a shorter range does not repay writing and merging its partial
CHUNK_STEP = 128  # keys; a multiple of every block_k, so that only a segment's end is ragged
FULL_ROUNDS = 16  # from so many tiles a program on, splitting cannot even out much

# Rates of one H200 (NOTES.md). Only their ratios matter, and only for speed.
BYTES_PER_NS = 4000.0
FLOPS_PER_NS = 690_000.0
TILE_NS = 4000.0


@dataclass(frozen=True, slots=True)
class TileConfig:
    """The compile-time shape of a tile, and how the programs fill the device.

    Args:
        block_q: rows of a tile.
        block_k: keys of one step of its inner loop.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        programs_per_sm: persistent programs started for each multiprocessor.
        specialized: whether `segment_hopper.py` runs it; its `num_warps` are those of one consumer.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    programs_per_sm: int
    specialized: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one call of `segment_attention` does.

    Args:
        config: the shape of the tiles.
        span: queries of a tile at the most.
        tiles: `[n, fields]` int32, columns `TILE_FIELDS`, in the order the programs work through
            them.
        starts: `[programs + 1]` int32; program p does tiles `starts[p]` to `starts[p + 1] - 1`.
        counts: `[tokens]` int32, partial slots each query row owns.
        ranges: `[n, 2]` int32, where the queries of each tile's item begin and end.
        pieces: `[pieces, fields]` int32, of an ordered schedule, columns
            `ordered_schedule.PIECE_FIELDS`.
        prefixes: `[2, tokens]` int32, of an ordered schedule: keys that each row meets before its
            tail, and the slot of the incomplete group at their end.
    """

    config: TileConfig
    span: int
    tiles: Int32
    starts: Int32
    counts: Int32
    ranges: Int32
    pieces: Int32 | None = None
    prefixes: Int32 | None = None

    @property
    def partial_slots(self) -> int:
        """Slots the partial buffers must have."""
        return int(self.counts.max(initial=0))


def tile_config(head_dim: int, element_bytes: int, group: int = 1) -> TileConfig:
    """Choose the tile shape of the portable kernel; measured on an H200.

    Two tiles of 64 rows a multiprocessor beat one of 128: the softmax of one overlaps the products
    of the other. They also stream keys for few rows as fast as smaller tiles do.

    Args:
        head_dim: elements of a head, at most 256.
        element_bytes: size of an element of the products, in bytes: that of the queries.
        group: query heads that share a kv head, at most 128; those of a token share a tile.

    Raises:
        ValueError: a head or a group is too wide.
    """
    if not 1 <= head_dim <= 256:
        raise ValueError(f"head_dim: expected 1 to 256, got {head_dim}")
    if not 1 <= group <= 128:
        raise ValueError(f"group: expected 1 to 128 query heads a kv head, got {group}")
    if element_bytes > 2:  # fp32 products are three tf32 products each: more registers
        if head_dim <= 64:
            config = TileConfig(64, 32, 4, 2, 3)
        elif head_dim <= 128:
            config = TileConfig(32, 32, 4, 2, 2)
        else:
            config = TileConfig(16, 32, 4, 1, 2)
    elif head_dim <= 64:
        config = TileConfig(64, 64, 4, 3, 3)
    elif head_dim <= 128:
        config = TileConfig(64, 64, 4, 3, 2)
    else:
        config = TileConfig(64, 64, 8, 2, 1)
    least = 1 << (group - 1).bit_length()
    if least <= config.block_q:
        return config
    warps = 8 if least == 128 else config.num_warps
    return replace(config, block_q=least, num_warps=warps, programs_per_sm=1)


def schedule_segments(
    items: Int32,
    tokens: int,
    *,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    element_bytes: int = 2,
    multiprocessors: int = 132,
    max_partial_slots: int | None = None,
    config: TileConfig | None = None,
) -> Schedule:
    """Cut items into tiles, split long keys where rows are few, and deal the tiles out.

    Deterministic: equal arguments give equal tables. Tiles go longest first, each to the program
    with the least work so far. Tiles that share keys stay neighbours, so that they meet in L2.

    Args:
        items: a table of `items.Item`. Query ranges of one level are disjoint, and each lies where
            all rows have met equally many levels before. Causal items have as many queries as
            slots. Items without queries or without slots are ignored.
        tokens: query rows of the call.
        q_heads: query heads; a multiple of kv_heads.
        kv_heads: key/value heads.
        head_dim: elements of a head.
        element_bytes: size of a key element, in bytes.
        multiprocessors: of the device.
        max_partial_slots: bound on the partial slots of a row; fewer splits are made to keep it.
        config: the tile shape, as `segment.best_config` chooses; None: that of `tile_config`.

    Raises:
        ValueError: the items break the rules above, or need more slots than allowed.
    """
    items = checked_items(items, tokens)
    if kv_heads < 1 or q_heads % kv_heads:
        raise ValueError(f"q_heads: expected a multiple of kv_heads {kv_heads}, got {q_heads}")
    group = q_heads // kv_heads
    config = config or tile_config(head_dim, element_bytes, group)
    span = config.block_q // group
    programs = config.programs_per_sm * multiprocessors
    merge_ns = tokens * q_heads * head_dim * 8 / BYTES_PER_NS  # one slot: written once, read once

    best_ns, best = np.inf, None
    slot_counts, positions = item_columns(items).slot_count, item_positions(items, tokens)
    longest = int(slot_counts.max(initial=0))
    for splits in SPLITS:
        chunk = -(-longest // splits)
        if splits > 1 and chunk < SHORTEST_CHUNK:
            break
        chunks = _even_chunks(items, chunk)
        parts = -(-slot_counts // chunks)
        counts, bases = _assign_slots(items, parts, tokens)
        slots = int(counts.max(initial=0))
        if max_partial_slots is not None and slots > max_partial_slots:
            if best is None:
                raise ValueError(
                    f"items: {slots} partial slots needed, {max_partial_slots} allowed"
                )
            break
        tiles, ranges = _cut(items, positions, chunks, parts, bases, span, kv_heads)
        costs = _tile_ns(tiles, config, head_dim, element_bytes, programs)
        total_ns = _busiest_ns(costs, programs) + merge_ns * slots
        if total_ns < best_ns:
            best_ns, best = total_ns, (tiles, costs, counts, ranges)
        if len(tiles) >= FULL_ROUNDS * programs:
            break
    assert best is not None  # the first candidate was taken, or refused above
    tiles, costs, counts, ranges = best
    order, starts = deal(costs, programs)
    return Schedule(config, span, tiles[order], starts, counts, ranges[order])


def checked_items(items: Int32, tokens: int) -> Int32:
    """Return the items that have work, level by level."""
    items = np.asarray(items, dtype=np.int32)
    if items.ndim != 2 or items.shape[1] != WIDTH:
        raise ValueError(f"items: expected shape [n, {WIDTH}], got {items.shape}")
    if (items < 0).any():
        raise ValueError("items: expected no negative entries")
    of = item_columns(items)
    if (of.query_start.astype(np.int64) + of.query_count > tokens).any():
        raise ValueError(f"items: a query range ends beyond the {tokens} query rows")
    if ((of.causal != 0) & (of.query_count != of.slot_count)).any():
        raise ValueError("items: a causal item needs as many queries as slots")
    items = items[(of.query_count > 0) & (of.slot_count > 0)]
    of = item_columns(items)
    return items[np.lexsort((of.query_start, of.level))]


def _even_chunks(items: Int32, longest: int) -> npt.NDArray[np.int64]:
    """Split each item's keys evenly into ranges of about `longest`; causal items stay whole."""
    of = item_columns(items)
    slots = of.slot_count.astype(np.int64)
    parts = np.where(of.causal != 0, 1, -(-slots // max(longest, 1)))
    even = -(-slots // np.maximum(parts, 1))
    return np.where(parts > 1, -(-even // CHUNK_STEP) * CHUNK_STEP, np.maximum(slots, 1))


def _assign_slots(items: Int32, parts: npt.NDArray[np.int64], tokens: int) -> tuple[Int32, Int32]:
    """Give each item its first partial slot; count the slots of every row."""
    counts = np.zeros(tokens, dtype=np.int32)
    bases = np.zeros(len(items), dtype=np.int32)
    of = item_columns(items)
    for level in np.unique(of.level):
        own = np.flatnonzero(of.level == level)
        start, end = of.query_start[own], of.query_stop[own]
        changes = np.concatenate([[0], np.cumsum(counts[1:] != counts[:-1])])
        is_wrong = changes[start] != changes[end - 1]
        is_wrong[1:] |= start[1:] < end[:-1]
        if is_wrong.any():
            first = int(np.argmax(is_wrong))
            raise ValueError(
                f"items: queries {start[first]} to {end[first] - 1} of level {level} overlap "
                "another item of their level, or do not lie within one item of each level above"
            )
        bases[own] = counts[start]
        steps = np.zeros(tokens + 1, dtype=np.int32)
        steps[start] = parts[own]
        steps[end] -= parts[own].astype(np.int32)
        counts += np.cumsum(steps[:-1], dtype=np.int32)
    return counts, bases


def _cut(
    items: Int32,
    positions: Int32,
    chunks: npt.NDArray[np.int64],
    parts: npt.NDArray[np.int64],
    bases: Int32,
    span: int,
    kv_heads: int,
) -> tuple[Int32, Int32]:
    """Cut items into tiles of `span` queries: kv head outermost, query tile innermost.

    Returns:
        the tiles, and where the queries of their items begin and end.
    """
    of = item_columns(items.astype(np.int64))
    q_tiles = -(-of.query_count // span)
    tiles_of_item = q_tiles * parts * kv_heads
    item = np.repeat(np.arange(len(items)), tiles_of_item)
    index = np.arange(len(item)) - np.repeat(
        np.cumsum(tiles_of_item) - tiles_of_item, tiles_of_item
    )
    q_tile = index % q_tiles[item]
    part = index // q_tiles[item] % parts[item]
    kv_head = index // (q_tiles * parts)[item]

    first_query = q_tile * span
    n_q = np.minimum(of.query_count[item] - first_query, span)
    chunk = chunks[item]
    first_key = part * chunk
    is_causal = of.causal[item] != 0
    end = np.where(is_causal, first_query + n_q, of.slot_count[item])
    n_kv = np.minimum(end - first_key, chunk)
    columns = (
        of.query_start[item] + first_query,
        n_q,
        of.slot_start[item] + first_key,
        n_kv,
        kv_head,
        bases[item] + part,
        np.where(is_causal, first_query, n_kv),
        positions[item] + first_key,
    )
    ranges = np.stack([of.query_start[item], of.query_stop[item]], axis=1)
    return np.stack(columns, axis=1).astype(np.int32), ranges.astype(np.int32)


def _tile_ns(
    tiles: Int32, config: TileConfig, head_dim: int, element_bytes: int, programs: int
) -> FloatArray:
    """Estimate the time of each tile, with every program busy."""
    block_bytes = 2 * config.block_k * head_dim * element_bytes
    block_flops = 4 * config.block_q * config.block_k * head_dim
    block_ns = programs * max(block_bytes / BYTES_PER_NS, block_flops / FLOPS_PER_NS)
    n_kv = tiles[:, TILE_FIELDS.index("n_kv")]
    blocks = (-(-n_kv // config.block_k)).astype(np.float64)
    return blocks * block_ns + TILE_NS


def _busiest_ns(costs: FloatArray, programs: int) -> float:
    """Bound the time of the busiest program by dealing the sorted tiles back and forth."""
    rounds = -(-len(costs) // programs)
    padded = np.zeros(rounds * programs)
    padded[: len(costs)] = np.sort(costs)[::-1]
    table = padded.reshape(rounds, programs)
    table[1::2] = table[1::2, ::-1]
    return float(table.sum(axis=0).max(initial=0.0))


def deal(costs: FloatArray, programs: int) -> tuple[npt.NDArray[np.int64], Int32]:
    """Give the tiles, longest first, each to the program with the least work so far.

    Returns:
        the tiles' order, program by program, and where each program's tiles start.
    """
    order = np.argsort(-costs, kind="stable")
    owner = np.empty(len(costs), dtype=np.int64)
    loads = [(0.0, program) for program in range(programs)]
    for index, cost in zip(order.tolist(), costs[order].tolist(), strict=True):
        load, program = loads[0]
        owner[index] = program
        heapq.heapreplace(loads, (load + cost, program))
    starts = np.zeros(programs + 1, dtype=np.int32)
    np.cumsum(np.bincount(owner, minlength=programs), out=starts[1:])
    return order[np.argsort(owner[order], kind="stable")], starts
