"""Attention that the kernels of one order compute, and the same in float64."""

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hydragen_kernels.items import Item, item_table
from hydragen_kernels.ordered_schedule import schedule_ordered
from hydragen_kernels.ordered_segment import ordered_segments
from hydragen_kernels.ordered_states import States
from hydragen_kernels.ordered_tail import ordered_tails
from hydragen_kernels.schedule import TileConfig
from hydragen_kernels.segment_tiles import SegmentTiles

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
PAGE = 16


class Case(NamedTuple):
    """A tree of items, with the fields of `Item`, and the length of each row's tail."""

    items: list[tuple[int, int, int, int, int, int]]
    tails: list[int]
    q_heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    softcap: float | None = None
    peaked: float = 1.0
    sinks: bool = False
    window: int | None = None  # keys that a query sees at the most, its own included
    scale: float | None = None

    @property
    def factor(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale


CASES = {
    "one row": Case([(0, 1, 3, 37, 0, 0)], [5]),
    "no prefix": Case([], [1, 70, 130]),
    "no keys before the tail's group": Case([(0, 2, 0, 15, 0, 0)], [1, 2]),
    "a whole chunk": Case([(0, 2, 0, 64, 0, 0)], [1, 64]),
    "tree": Case(
        [
            *[(0, 9, 2, 80, 0, 0), (0, 4, 90, 33, 0, 1), (4, 1, 130, 5, 0, 1)],
            *[(5, 3, 140, 64, 0, 1), (5, 2, 210, 17, 0, 2)],
        ],
        [1, 2, 3, 40, 16, 17, 100, 8, 1],
    ),
    "many rows": Case([(0, 20, 1, 150, 0, 0)], [1 + i % 20 for i in range(20)]),
    "no groups of heads": Case([(0, 3, 0, 70, 0, 0)], [3, 1, 9], q_heads=2),
    "head of 80": Case([(0, 3, 0, 70, 0, 0)], [3, 1, 9], head_dim=80),
    "soft cap": Case([(0, 3, 0, 70, 0, 0)], [3, 1, 9], softcap=20.0, peaked=30.0),
    "peaked scores": Case([(0, 3, 0, 200, 0, 0)], [3, 1, 90], peaked=40.0),
    "sinks": Case([(0, 2, 0, 70, 0, 0)], [3, 1], sinks=True),
    "prefill": Case([(0, 70, 0, 70, 1, 0)], []),
    "prefill from the middle of a group": Case(
        [(0, 50, 0, 32, 0, 0), (0, 50, 32, 37, 0, 1), (0, 50, 69, 50, 1, 2)], []
    ),
    "prefill below a prefix": Case(
        [(0, 40, 0, 48, 0, 0), (0, 13, 48, 13, 1, 1), (13, 27, 64, 27, 1, 1)], []
    ),
}
TREE = CASES["tree"]
PREFILLS = [CASES[name] for name in CASES if name.startswith("prefill")]
CASES |= {f"tree through {n}": TREE._replace(window=n) for n in (1, 16, 30, 90)}
CASES |= {
    f"prefill {i} through {n}": case._replace(window=n)
    for i, case in enumerate(PREFILLS)
    for n in (5, 40)
}
CASES |= {
    "window in the tail's second chunk": Case([(0, 2, 0, 40, 0, 0)], [1, 130], window=30),
    "window with sinks": Case([(0, 2, 0, 170, 0, 0)], [3, 1], sinks=True, window=33),
}


class Inputs(NamedTuple):
    queries: Tensor
    keys: Tensor
    values: Tensor
    pages: Tensor
    lengths: Tensor
    sinks: Tensor | None


def random_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    """Queries, an arena in which slots that nobody reads hold NaN, and the tails' pages."""
    items = [Item(*item) for item in case.items]
    rows = len(case.tails) or max(item.query_stop for item in items)
    lengths = case.tails or [0] * rows
    below = max([item.slot_stop for item in items], default=0)
    first = -(-below // PAGE)
    width = max(1, *(-(-n // PAGE) for n in lengths))
    pages = first + torch.randperm(rows * width).view(rows, width)
    arena = torch.full((2, case.kv_heads, (first + rows * width) * PAGE, case.head_dim), torch.nan)
    used = torch.zeros(arena.shape[2], dtype=torch.bool)
    for item in items:
        used[item.slot_start : item.slot_stop] = True
    for row, n in enumerate(lengths):
        used[slots_of(pages[row], n)] = True
    arena[:, :, used] = torch.randn(2, case.kv_heads, int(used.sum()), case.head_dim)
    queries = case.peaked * torch.randn(rows, case.q_heads, case.head_dim)
    sinks = torch.randn(case.q_heads).to(DEVICE) if case.sinks else None
    keys, values = arena.to(DEVICE, dtype)
    where = pages.to(DEVICE, torch.int32), torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    return Inputs(queries.to(DEVICE, dtype), keys, values, *where, sinks)


def slots_of(pages: Tensor, n: int) -> Tensor:
    at = torch.arange(n)
    return pages.cpu()[at // PAGE] * PAGE + at % PAGE


def first_seen(case: Case, rows: int, lengths: Tensor) -> list[int]:
    """The first position that each query sees."""
    met = [int(n) for n in lengths]
    for item in (Item(*one) for one in case.items):
        for row in range(item.query_start, item.query_stop):
            met[row] += row - item.query_start + 1 if item.causal else item.slot_count
    return [0 if case.window is None else max(0, n - case.window) for n in met]


def states_of_segments(
    case: Case, inputs: Inputs, config: TileConfig, programs: int
) -> tuple[SegmentTiles, States]:
    rows = len(inputs.queries)
    schedule = schedule_ordered(
        item_table(Item(*item) for item in case.items),
        rows,
        q_heads=case.q_heads,
        kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        multiprocessors=programs,
        config=config,
        has_tails=bool(case.tails),
    )
    tables = SegmentTiles(schedule, DEVICE)
    states = States.empty(max(1, schedule.partial_slots), rows, case.q_heads, case.head_dim, DEVICE)
    for part in states:
        part.fill_(torch.nan)
    ordered_segments(
        *(inputs.queries, inputs.keys, inputs.values, tables, states), **options(case, inputs)
    )
    return tables, states


def options(case: Case, inputs: Inputs) -> dict[str, Any]:
    """What both kernels are told of scores."""
    how: dict[str, Any] = {"scale": case.factor, "softcap": case.softcap}
    if case.window is not None:
        seen = first_seen(case, len(inputs.queries), inputs.lengths)
        how["first"] = torch.tensor(seen, dtype=torch.int32, device=DEVICE)
    return how


def found_by_kernels(
    case: Case, inputs: Inputs, config: TileConfig, programs: int = 3, splits: int = 1
) -> Tensor:
    tables, states = states_of_segments(case, inputs, config, programs)
    return ordered_tails(
        inputs.queries,
        inputs.keys,
        inputs.values,
        inputs.pages,
        inputs.lengths,
        PAGE,
        *tables.prefixes,
        states,
        tables.counts,
        sinks=inputs.sinks,
        splits=splits,
        **options(case, inputs),
    )


def expected_in_float64(case: Case, inputs: Inputs) -> Tensor:
    rows = []
    first = first_seen(case, len(inputs.queries), inputs.lengths)
    for row, query in enumerate(inputs.queries.double()):
        slots = []
        for item in (Item(*one) for one in case.items):
            if item.query_start <= row < item.query_stop:
                seen = row - item.query_start + 1 if item.causal else item.slot_count
                slots.append(torch.arange(item.slot_start, item.slot_start + seen))
        slots.append(slots_of(inputs.pages[row], int(inputs.lengths[row])))
        at = torch.cat(slots)[first[row] :].to(DEVICE)
        group = case.q_heads // case.kv_heads
        keys, values = (
            x[:, at].double().repeat_interleave(group, 0) for x in (inputs.keys, inputs.values)
        )
        scores = torch.einsum("hd,hkd->hk", query, keys) * case.factor
        if case.softcap is not None:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        if inputs.sinks is not None:
            scores = torch.cat([scores, inputs.sinks.double()[:, None]], 1)
            values = torch.nn.functional.pad(values, (0, 0, 0, 1))
        weights = scores.softmax(1) if scores.shape[1] else scores
        rows.append(torch.einsum("hk,hkd->hd", weights, values))
    return torch.stack(rows)
