"""Attention of one order of sums: against float64, and, on a GPU, bit for bit across shapes."""

import math
import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import ordered_schedule, ordered_tail  # noqa: E402
from hydragen_kernels.inputs import FP8  # noqa: E402
from hydragen_kernels.items import Item, item_table  # noqa: E402
from hydragen_kernels.ordered_schedule import ordered_config, schedule_ordered  # noqa: E402
from hydragen_kernels.ordered_segment import ordered_segments  # noqa: E402
from hydragen_kernels.ordered_states import States  # noqa: E402
from hydragen_kernels.ordered_tail import ordered_tails  # noqa: E402
from hydragen_kernels.schedule import TileConfig  # noqa: E402
from hydragen_kernels.segment_tiles import SegmentTiles  # noqa: E402

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCES = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}
PAGE = 16


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def worst_row(found: Tensor, expected: Tensor) -> float:
    """The greatest relative error of a row, by the Euclidean norm."""
    difference = (found.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1).clamp(min=1e-9)).max())


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so short that small inputs have several."""
    monkeypatch.setattr(ordered_schedule, "CHUNK", 64)
    monkeypatch.setattr(ordered_tail, "CHUNK", 64)


# -- attention -----------------------------------------------------------------------------------


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


CONFIGS = [TileConfig(16, 16, 4, 2, 1), TileConfig(32, 64, 4, 2, 1)]


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # of soft_cap, meant
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: f"{one.block_q}x{one.block_k}")
@pytest.mark.parametrize("name", CASES)
def test_attention(name: str, config: TileConfig, dtype: torch.dtype, short_chunks: None) -> None:
    case = CASES[name]
    torch.manual_seed(len(name))
    inputs = random_inputs(case, dtype)
    found = found_by_kernels(case, inputs, config)
    assert found.dtype == dtype
    # Scores have an absolute error of 2^-14 by their grid, and with it weights a relative one. A
    # mass adds up weights before values round them: in bf16 by 2^-8 at the most, which rows of a
    # single key, as the first of a prefill is, do not even out.
    has_few_keys = case.window == 5 or dtype == torch.bfloat16
    bound = TOLERANCES[dtype] * (2.0 if case.peaked > 1 or has_few_keys else 1.0)
    assert worst_row(found, expected_in_float64(case, inputs)) < bound


@pytest.mark.parametrize("splits", [2, 5])
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].tails])
def test_programs_that_share_a_tail(name: str, splits: int, short_chunks: None) -> None:
    case = CASES[name]
    if len(case.items) < 2 and case.head_dim == 64:  # rows whose tails have several chunks
        case = case._replace(tails=[n + 70 * i for i, n in enumerate(case.tails[:4])])
        case = case._replace(items=[(0, min(4, one[1]), *one[2:]) for one in case.items])
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    inputs = random_inputs(case, dtype)
    expected = found_by_kernels(case, inputs, CONFIGS[1])
    found = found_by_kernels(case, inputs, CONFIGS[1], splits=splits)
    if INTERPRETED:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(found, expected)


def test_rows_that_meet_nothing() -> None:
    case = Case([(1, 1, 0, 20, 0, 0)], [0, 3, 0])
    inputs = random_inputs(case, torch.float32)
    found = found_by_kernels(case, inputs, CONFIGS[0])
    assert not found[0].any()
    assert not found[2].any()


# The same sequence, its keys cut into segments and a tail in several ways, beside other rows.
COMPANIES = {
    "a tail alone": ([], 0),
    "a segment": ([(0, 1, 0, 192, 0, 0)], 0),
    "a segment and an incomplete group": ([(0, 5, 0, 183, 0, 0)], 4),
    "cut": ([(0, 9, 0, 16, 0, 0), (0, 7, 16, 96, 0, 1), (0, 2, 112, 91, 0, 2)], 8),
}


@pytest.mark.parametrize("in_8_bits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32] if INTERPRETED else DTYPES, ids=str)
@pytest.mark.parametrize("window", [None, 20, 100])
@pytest.mark.parametrize("programs", [1, 50])
@pytest.mark.parametrize("name", COMPANIES)
def test_a_row_has_the_same_bits_in_any_company(
    name: str,
    programs: int,
    window: int | None,
    dtype: torch.dtype,
    in_8_bits: bool,
    short_chunks: None,
) -> None:
    """Its first 192 or so keys lie where the items say; in the interpreter numpy adds them up."""
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 2, 215, 64, generator=generator).to(DEVICE)
    query = 4 * torch.randn(1, 4, 64, generator=generator).to(DEVICE)

    def found(items: list[tuple[int, int, int, int, int, int]], others: int) -> Tensor:
        prefix = max([slot + count for _, _, slot, count, _, _ in items], default=0)
        tail = 215 - prefix
        case = Case(items, [tail] + [1] * others, window=window)
        inputs = random_inputs(case, torch.float32)
        arena = torch.stack([inputs.keys, inputs.values]).nan_to_num()
        own = slots_of(inputs.pages[0], tail)
        for whole, new in zip(arena, (keys, values), strict=True):
            whole[:, :prefix] = new[:, :prefix]
            whole[:, own] = new[:, prefix:]
        queries = inputs.queries.clone()
        queries[:1] = query
        kinds = dtype, *2 * [FP8 if in_8_bits else dtype]
        given = (x.to(DEVICE, kind) for x, kind in zip((queries, *arena), kinds, strict=True))
        config = CONFIGS[1] if INTERPRETED else ordered_config(64, dtype, 2)
        return found_by_kernels(case, Inputs(*given, *inputs[3:]), config, programs)[0]

    expected = found([], 0)
    items, others = COMPANIES[name]
    if INTERPRETED:
        torch.testing.assert_close(found(items, others), expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(found(items, others), expected)


@pytest.mark.parametrize("dtype", [kind for kind in DTYPES if kind.itemsize == 2], ids=str)
@pytest.mark.parametrize("window", [None, 1, 20, 100])
@pytest.mark.parametrize("name", COMPANIES)
def test_sums_that_round_nothing_are_exact(
    name: str, window: int | None, dtype: torch.dtype, short_chunks: None
) -> None:
    """Weights are powers of two and values whole, so that only a wrong set of keys could differ."""
    items, others = COMPANIES[name]
    tails = [215 - max([slot + count for _, _, slot, count, _, _ in items], default=0)]
    case = Case(items, tails + [1] * others, window=window, scale=math.log(2.0))
    inputs = random_inputs(case, torch.float32)
    keys, values = (arena.nan_to_num().round() for arena in (inputs.keys, inputs.values))
    heads = torch.eye(4, 64, device=DEVICE).expand(len(case.tails), 4, 64)  # each has its number
    exact = inputs._replace(
        queries=heads.to(dtype), keys=keys.clamp(-3, 3).to(dtype), values=values.to(dtype)
    )
    found = found_by_kernels(case, exact, CONFIGS[1])
    once = 0.0 if INTERPRETED else torch.finfo(dtype).eps  # a GPU's division is not quite exact
    expected = expected_in_float64(case, exact).to(dtype)
    # numerators are whole eighths and denominators below 2^11, so what is not zero is at least
    # 2^-14; float64's weights of a logarithm leave some 1e-16 of a zero, which bf16 can hold
    torch.testing.assert_close(found, expected, rtol=once, atol=2.0**-40)


# Trees whose tiles have many rows, and pieces that end anywhere in a block of keys.
WIDE_CASES = {
    "several tiles": Case([(0, 200, 3, 300, 0, 0)], [1] * 200),
    "short and long pieces": Case(
        [
            *[(0, 150, 0, 48, 0, 0), (0, 70, 50, 208, 0, 1), (70, 80, 260, 16, 0, 1)],
            *[(0, 30, 280, 32, 0, 2), (70, 40, 320, 100, 0, 2)],
        ],
        [1] * 150,
    ),
    "a long prefill": Case([(0, 330, 0, 330, 1, 0)], []),
    "a long prefill below a prefix": Case([(0, 200, 0, 96, 0, 0), (0, 200, 96, 200, 1, 1)], []),
}
HOPPER_CONFIGS = [TileConfig(128, 128, 4, 2, 1, specialized=True)]


@pytest.mark.skipif(
    INTERPRETED or torch.cuda.get_device_capability() != (9, 0), reason="the form is for Hopper"
)
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("chunk", [64, 1024])
@pytest.mark.parametrize("programs", [1, 50])
@pytest.mark.parametrize("config", HOPPER_CONFIGS, ids=lambda one: f"{one.block_q}x{one.block_k}")
def test_the_hopper_form_gives_the_same_states(
    config: TileConfig, programs: int, chunk: int, head_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered_schedule, "CHUNK", chunk)
    for name, case in {**CASES, **WIDE_CASES}.items():
        if case.window is not None:
            continue
        case = case._replace(head_dim=head_dim)
        torch.manual_seed(len(name))
        inputs = random_inputs(case, torch.bfloat16)
        forms = config, TileConfig(128, 64, 8, 3, 1)
        found, expected = (states_of_segments(case, inputs, one, programs)[1] for one in forms)
        found, expected = (one._replace(mass=digits(one.mass)) for one in (found, expected))
        for part, own, other in zip(States._fields, found, expected, strict=True):
            assert torch.equal(own.view(torch.int32), other.view(torch.int32)), (name, part)


def digits(mass: torch.Tensor) -> torch.Tensor:
    """A mass's sums that have all their digits, and behind them the total.

    No weight below 2^-126 has them whatever the peak was in between. One of the sums may have
    nothing but such weights, which the total, at least a half, does not see. Numbers from 2^-80 on
    are 2^-103 apart: what is lost below moves none of them.
    """
    sums = torch.where(mass < 2.0**-80, 0.0, mass)
    return torch.cat([sums, total_of(mass)], dim=-1)


def total_of(mass: torch.Tensor) -> torch.Tensor:
    """As `total_mass` adds up, bit for bit; `[..., 1]`."""
    while mass.shape[-1] > 1:
        left, right = mass.chunk(2, dim=-1)
        mass = left + right
    return mass


# -- the schedule --------------------------------------------------------------------------------


def ordered_tiles(items: list[tuple[int, int, int, int, int, int]], tokens: int, **how: int):
    return schedule_ordered(
        item_table(Item(*item) for item in items),
        tokens,
        q_heads=4,
        kv_heads=2,
        head_dim=64,
        config=CONFIGS[0],
        **how,
    )


def test_segments_begin_with_a_group() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        ordered_tiles([(0, 2, 0, 17, 0, 0), (0, 1, 20, 5, 0, 1)], 2)


def test_few_partials_where_there_is_little_room(short_chunks: None) -> None:
    items = [(0, 2, 0, 160, 0, 0), (0, 1, 160, 500, 0, 1), (1, 1, 700, 500, 0, 1)]
    assert ordered_tiles(items, 2, multiprocessors=100).partial_slots == 11
    assert ordered_tiles(items, 2, multiprocessors=100, max_partial_slots=2).partial_slots == 2


def test_first_chunks_are_added_up_where_tiles_are_many(short_chunks: None) -> None:
    schedule = ordered_tiles([(0, 64, 0, 64 * 10 + 32, 0, 0)], 64, multiprocessors=4)
    assert schedule.partial_slots == 2
    assert np.all(schedule.counts == 2)
    assert np.all(schedule.prefixes[0] == 672)
