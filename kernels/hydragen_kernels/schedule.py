"""Cut a plan's segment items into tiles and deal them to the programs of one persistent launch.

Host code, numpy only; the same schedule serves every layer of a model. An item says "these queries
meet the keys of this segment". A tile is what one program does at a time: at most `block_q` rows
(query tokens x grouped heads) of one kv head against one range of keys, giving one partial a row.

Every query row owns partial slots 0 .. counts[row] - 1: one a level, more where an item's keys are
split because too few rows meet them to fill the device.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]

ITEM_FIELDS = ("query_start", "query_count", "slot_start", "slot_count", "causal", "level")
"""Columns of an item table, int32."""

TILE_FIELDS = ("q0", "n_q", "kv0", "n_kv", "kv_head", "partial_slot", "reach")
"""Columns of a tile table, int32: its token t sees the keys j with j < n_kv and j <= reach + t."""

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
SHORTEST_CHUNK = 256  # keys; a shorter range does not repay writing and merging its partial
CHUNK_STEP = 128  # keys; a multiple of every block_k, so that only a segment's end is ragged
FULL_ROUNDS = 16  # from so many tiles a program on, splitting cannot even out much

# Rates of one H200, measured (BENCHMARKS.md). Only their ratios matter, and only for speed.
BYTES_PER_NS = 4000.0
FLOPS_PER_NS = 500_000.0
TILE_NS = 2500.0


@dataclass(frozen=True, slots=True)
class TileConfig:
    """The compile-time shape of one tile family, and how it fills the device.

    Args:
        block_q: rows of a tile.
        block_k: keys of one step of its inner loop.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        programs_per_sm: persistent programs started for each multiprocessor.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int
    programs_per_sm: int


@dataclass(frozen=True, slots=True)
class TileConfigs:
    """The two families: `large` tiles keep the tensor cores busy, `small` ones waste few rows."""

    large: TileConfig
    small: TileConfig


@dataclass(frozen=True, slots=True)
class TileTable:
    """Tiles of one family, in the order in which the programs work through them.

    Args:
        config: the family's shape.
        tiles: `[n, 7]` int32, columns `TILE_FIELDS`.
        starts: `[programs + 1]` int32; program p does tiles `starts[p]` to `starts[p + 1] - 1`.
    """

    config: TileConfig
    tiles: IntArray
    starts: IntArray


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one call of `segment_attention` does.

    Args:
        large: tiles of more rows than a small tile holds.
        small: the other tiles.
        counts: `[tokens]` int32, partial slots each query row owns.
    """

    large: TileTable
    small: TileTable
    counts: IntArray

    @property
    def partial_slots(self) -> int:
        """Slots the partial buffers must have."""
        return int(self.counts.max(initial=0))


def tile_configs(head_dim: int, element_bytes: int, group: int = 1) -> TileConfigs:
    """Choose tile shapes.

    A token's `group` query heads never span two tiles, so a wide group needs tall tiles.

    Args:
        head_dim: elements of a head, at most 256.
        element_bytes: size of a key element, in bytes.
        group: query heads that share a kv head, at most 128.

    Raises:
        ValueError: a head or a group is too wide.
    """
    if not 1 <= head_dim <= 256:
        raise ValueError(f"head_dim: expected 1 to 256, got {head_dim}")
    if not 1 <= group <= 128:
        raise ValueError(f"group: expected 1 to 128 query heads a kv head, got {group}")
    wide = head_dim > 128
    least = 1 << (group - 1).bit_length()
    if element_bytes > 2:  # exact fp32 products run outside the tensor cores: small tiles
        large = TileConfig(max(32, least), 32, 4, 1, 2)
        small = TileConfig(max(16, least), 32, 4, 1, 2)
    else:
        large = TileConfig(128, 64 if wide else 128, 8, 2, 1)
        small = TileConfig(max(32, least), 64, 4, 2 if wide else 3, 1 if wide else 2)
    return TileConfigs(large, small)


def schedule_segments(
    items: IntArray,
    tokens: int,
    *,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    element_bytes: int = 2,
    multiprocessors: int = 132,
    max_partial_slots: int | None = None,
    configs: TileConfigs | None = None,
) -> Schedule:
    """Cut items into tiles, split long keys where rows are few, and deal the tiles out.

    Deterministic: equal arguments give equal tables. Tiles go longest first, each to the program
    with the least work so far. Tiles that share keys stay neighbours, so that they meet in L2.

    Args:
        items: `[n, 6]` int32, columns `ITEM_FIELDS`. Query ranges of one level are disjoint, and
            each lies where all rows have met equally many levels before. Causal items have as many
            queries as slots. Items without queries or without slots are ignored.
        tokens: query rows of the call.
        q_heads: query heads; a multiple of kv_heads.
        kv_heads: key/value heads.
        head_dim: elements of a head.
        element_bytes: size of a key element, in bytes.
        multiprocessors: of the device.
        max_partial_slots: bound on the partial slots of a row; fewer splits are made to keep it.
        configs: tile shapes, if not those of `tile_configs`.

    Raises:
        ValueError: the items break the rules above, or need more slots than allowed.
    """
    items = _checked(items, tokens)
    if kv_heads < 1 or q_heads % kv_heads:
        raise ValueError(f"q_heads: expected a multiple of kv_heads {kv_heads}, got {q_heads}")
    group = q_heads // kv_heads
    configs = configs or tile_configs(head_dim, element_bytes, group)
    families = (configs.large, configs.small)
    programs = [config.programs_per_sm * multiprocessors for config in families]
    merge_ns = tokens * q_heads * head_dim * 8 / BYTES_PER_NS  # one slot: written once, read once

    best_ns, best = np.inf, None
    longest = int(items[:, 3].max(initial=0))
    for splits in SPLITS:
        chunk = -(-longest // splits)
        if splits > 1 and chunk < SHORTEST_CHUNK:
            break
        chunks = _even_chunks(items, chunk)
        parts = -(-items[:, 3] // chunks)
        counts, bases = _assign_slots(items, parts, tokens)
        if max_partial_slots is not None and counts.max(initial=0) > max_partial_slots:
            if best is None:
                raise ValueError(
                    f"items: {counts.max()} partial slots needed, {max_partial_slots} allowed"
                )
            break
        tiles = _cut(items, chunks, parts, bases, group, kv_heads, configs)
        costs = [
            _tile_ns(rows, config, head_dim, element_bytes, started)
            for rows, config, started in zip(tiles, families, programs, strict=True)
        ]
        busiest = sum(map(_busiest_ns, costs, programs))
        total_ns = busiest + merge_ns * int(counts.max(initial=0))
        if total_ns < best_ns:
            best_ns, best = total_ns, (tiles, costs, counts)
        if all(len(rows) >= FULL_ROUNDS * n for rows, n in zip(tiles, programs, strict=True)):
            break
    assert best is not None  # the first candidate was taken, or refused above
    tiles, costs, counts = best
    large, small = (
        _deal(rows, cost, config, started)
        for rows, cost, config, started in zip(tiles, costs, families, programs, strict=True)
    )
    return Schedule(large, small, counts)


def _checked(items: IntArray, tokens: int) -> IntArray:
    """Return the items that have work, level by level."""
    items = np.asarray(items, dtype=np.int32)
    if items.ndim != 2 or items.shape[1] != len(ITEM_FIELDS):
        raise ValueError(f"items: expected shape [n, {len(ITEM_FIELDS)}], got {items.shape}")
    if (items < 0).any():
        raise ValueError("items: expected no negative entries")
    start, count, _, slots, causal, _ = items.T
    if (start.astype(np.int64) + count > tokens).any():
        raise ValueError(f"items: a query range ends beyond the {tokens} query rows")
    if (count[causal != 0] != slots[causal != 0]).any():
        raise ValueError("items: a causal item needs as many queries as slots")
    items = items[(count > 0) & (slots > 0)]
    return items[np.lexsort((items[:, 0], items[:, 5]))]


def _even_chunks(items: IntArray, longest: int) -> npt.NDArray[np.int64]:
    """Split each item's keys evenly into ranges of about `longest`; causal items stay whole."""
    slots = items[:, 3].astype(np.int64)
    parts = np.where(items[:, 4] != 0, 1, -(-slots // max(longest, 1)))
    even = -(-slots // np.maximum(parts, 1))
    return np.where(parts > 1, -(-even // CHUNK_STEP) * CHUNK_STEP, np.maximum(slots, 1))


def _assign_slots(
    items: IntArray, parts: npt.NDArray[np.int64], tokens: int
) -> tuple[IntArray, IntArray]:
    """Give each item its first partial slot; count the slots of every row."""
    counts = np.zeros(tokens, dtype=np.int32)
    bases = np.zeros(len(items), dtype=np.int32)
    level, level_end = -1, 0
    for index, (start, count, _, _, _, item_level) in enumerate(items.tolist()):
        if item_level != level:
            level, level_end = item_level, 0
        rows = counts[start : start + count]
        if start < level_end or rows.min() != rows.max():
            raise ValueError(
                f"items: queries {start} to {start + count - 1} of level {level} overlap another "
                "item of their level, or do not lie within one item of each level above"
            )
        bases[index] = rows[0]
        rows += parts[index]
        level_end = start + count
    return counts, bases


def _cut(
    items: IntArray,
    chunks: npt.NDArray[np.int64],
    parts: npt.NDArray[np.int64],
    bases: IntArray,
    group: int,
    kv_heads: int,
    configs: TileConfigs,
) -> tuple[IntArray, IntArray]:
    """Cut items into tiles of the two families: kv head outermost, query tile innermost."""
    start, count, slot_start, slot_count, causal, _ = items.astype(np.int64).T
    span = configs.large.block_q // group  # tokens of a large tile
    q_tiles = -(-count // span)
    tiles_of_item = q_tiles * parts * kv_heads
    item = np.repeat(np.arange(len(items)), tiles_of_item)
    index = np.arange(len(item)) - np.repeat(
        np.cumsum(tiles_of_item) - tiles_of_item, tiles_of_item
    )
    q_tile = index % q_tiles[item]
    part = index // q_tiles[item] % parts[item]
    kv_head = index // (q_tiles * parts)[item]

    first_query = q_tile * span
    n_q = np.minimum(count[item] - first_query, span)
    chunk = chunks[item]
    first_key = part * chunk
    is_causal = causal[item] != 0
    end = np.where(is_causal, first_query + n_q, slot_count[item])
    n_kv = np.minimum(end - first_key, chunk)
    columns = (
        start[item] + first_query,
        n_q,
        slot_start[item] + first_key,
        n_kv,
        kv_head,
        bases[item] + part,
        np.where(is_causal, first_query, n_kv),
    )
    tiles = np.stack(columns, axis=1).astype(np.int32)
    small = n_q * group <= configs.small.block_q
    return tiles[~small], tiles[small]


def _tile_ns(
    tiles: IntArray, config: TileConfig, head_dim: int, element_bytes: int, programs: int
) -> FloatArray:
    """Estimate the time of each tile, with every program busy."""
    block_bytes = 2 * config.block_k * head_dim * element_bytes
    block_flops = 4 * config.block_q * config.block_k * head_dim
    block_ns = programs * max(block_bytes / BYTES_PER_NS, block_flops / FLOPS_PER_NS)
    blocks = (-(-tiles[:, 3] // config.block_k)).astype(np.float64)
    return blocks * block_ns + TILE_NS


def _busiest_ns(costs: FloatArray, programs: int) -> float:
    """Bound the time of the busiest program by dealing the sorted tiles back and forth."""
    rounds = -(-len(costs) // programs)
    padded = np.zeros(rounds * programs)
    padded[: len(costs)] = np.sort(costs)[::-1]
    table = padded.reshape(rounds, programs)
    table[1::2] = table[1::2, ::-1]
    return float(table.sum(axis=0).max(initial=0.0))


def _deal(tiles: IntArray, costs: FloatArray, config: TileConfig, programs: int) -> TileTable:
    """Give the tiles, longest first, each to the program with the least work so far."""
    order = np.argsort(-costs, kind="stable")
    owner = np.empty(len(tiles), dtype=np.int64)
    loads = [(0.0, program) for program in range(programs)]
    for index, cost in zip(order.tolist(), costs[order].tolist(), strict=True):
        load, program = loads[0]
        owner[index] = program
        heapq.heapreplace(loads, (load + cost, program))
    by_program = order[np.argsort(owner[order], kind="stable")]
    starts = np.zeros(programs + 1, dtype=np.int32)
    np.cumsum(np.bincount(owner, minlength=programs), out=starts[1:])
    return TileTable(config, tiles[by_program], starts)
