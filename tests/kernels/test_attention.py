"""Attention kernels against the recursive reference: compiled on a GPU, else interpreted.

Run as is, the tables need a GPU. `test_interpreter.py` runs them on the CPU through Triton's
interpreter, which must be asked for before Triton is imported.
"""

import os
from itertools import starmap
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hydragen_kernels import reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in exp2"),  # of soft_cap, meant
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import segment  # noqa: E402
from hydragen_kernels.inputs import FP8  # noqa: E402
from hydragen_kernels.items import Item, item_table  # noqa: E402
from hydragen_kernels.merge import merge  # noqa: E402
from hydragen_kernels.schedule import (  # noqa: E402
    Schedule,
    TileConfig,
    schedule_segments,
    tile_config,
)
from hydragen_kernels.segment import best_config, segment_attention  # noqa: E402
from hydragen_kernels.segment_tiles import SegmentTiles  # noqa: E402
from hydragen_kernels.tail import tail_attention  # noqa: E402

# bf16 products are garbage in the interpreter, which holds bf16 as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])
# of queries, and of keys and values; attention over rounded keys and values is exact again
PAIRS = [
    *[pytest.param(dtype, dtype, id=str(dtype)) for dtype in DTYPES],
    *[pytest.param(dtype, FP8, id=f"{dtype}, fp8") for dtype in DTYPES],
]
# the most a kernel may differ, by relative norm: about twice dense attention's own error
TOLERANCES = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}
LSE_TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Case(NamedTuple):
    """A tree; `items` have the fields of `hydragen_kernels.items.Item`."""

    items: list[tuple[int, int, int, int, int, int]]
    tokens: int
    slots: int
    q_heads: int = 2
    kv_heads: int = 2
    head_dim: int = 64
    softcap: float | None = None
    peaked: float = 1.0
    strided: bool = False
    multiprocessors: int = 3
    pad: int = 0


CASES = {
    "one key": Case([(0, 1, 5, 1, 0, 0)], 1, 8),
    "one row": Case([(0, 1, 3, 300, 0, 0)], 1, 310),
    "ragged tree": Case(
        [
            (0, 9, 2, 70, 0, 0),
            (0, 4, 80, 33, 0, 1),
            (4, 1, 113, 5, 0, 1),
            (5, 3, 120, 64, 0, 1),
            (1, 2, 190, 17, 0, 2),
        ],
        9,
        210,
        q_heads=4,
    ),
    "several roots": Case([(0, 3, 0, 20, 0, 0), (3, 2, 20, 40, 0, 0)], 5, 60),
    "rows without items": Case([(2, 2, 0, 20, 0, 0)], 6, 32),
    "empty items": Case([(0, 0, 0, 9, 0, 0), (0, 3, 4, 0, 0, 0), (0, 3, 9, 10, 0, 1)], 3, 20),
    "nothing at all": Case([], 3, 16),
    "many rows": Case([(0, 140, 1, 150, 0, 0)], 140, 152, q_heads=1, kv_heads=1),
    "group of 5": Case([(0, 30, 0, 40, 0, 0)], 30, 40, q_heads=5, kv_heads=1),
    "group of 16": Case([(0, 17, 0, 130, 0, 0)], 17, 130, q_heads=16, kv_heads=1),
    "split keys": Case([(0, 2, 7, 1030, 0, 0)], 2, 1040, multiprocessors=8),
    "prefill": Case([(0, 70, 0, 70, 1, 0)], 70, 75),
    "prefill below a prefix": Case(
        [(0, 21, 0, 33, 0, 0), (0, 13, 33, 13, 1, 1), (13, 8, 46, 8, 1, 1)], 21, 60, q_heads=4
    ),
    "long prefill": Case([(0, 290, 3, 290, 1, 0)], 290, 300, q_heads=1, kv_heads=1),
    "head of 80": Case([(0, 6, 0, 50, 0, 0)], 6, 64, head_dim=80),
    "head of 96": Case([(0, 40, 1, 50, 0, 0)], 40, 64, head_dim=96),
    "head of 128": Case([(0, 40, 0, 140, 0, 0)], 40, 140, head_dim=128),
    "head of 256": Case([(0, 5, 0, 70, 0, 0), (1, 3, 70, 9, 0, 1)], 5, 96, head_dim=256),
    "head of 40": Case([(0, 5, 3, 70, 0, 0)], 5, 96, head_dim=40),
    "many tiles a program": Case(
        [(0, 200, 1, 250, 0, 0), (0, 75, 260, 129, 0, 1), (75, 125, 390, 140, 0, 1)],
        *(200, 560),
        multiprocessors=1,
    ),
    "soft cap": Case([(0, 6, 0, 90, 0, 0)], 6, 90, softcap=20.0, peaked=30.0),
    "peaked scores": Case([(0, 40, 0, 200, 0, 0)], 40, 200, peaked=40.0),
    "strided": Case([(0, 9, 2, 70, 0, 0)], 9, 80, strided=True),
    "oddly strided": Case([(0, 9, 2, 70, 0, 0)], 9, 80, strided=True, pad=3),
}


def random_inputs(
    case: Case, dtype: torch.dtype, kv_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and an arena; slots no item names hold NaN."""
    generator = torch.Generator().manual_seed(len(case.items) * 1000 + case.tokens)
    queries = torch.randn(case.tokens, case.q_heads, case.head_dim, generator=generator)
    arena = torch.full((2, case.kv_heads, case.slots, case.head_dim), torch.nan)
    for item in starmap(Item, case.items):
        shape = (2, case.kv_heads, item.slot_count, case.head_dim)
        arena[:, :, item.slot_start : item.slot_stop] = torch.randn(shape, generator=generator)
    queries, arena = (queries * case.peaked).to(DEVICE, dtype), arena.to(DEVICE, kv_dtype)
    if case.strided:
        wide = torch.nn.functional.pad(queries, (case.pad, case.head_dim), value=torch.nan)
        queries = wide[:, :, case.pad : case.pad + case.head_dim]
        arena = arena.transpose(1, 2).contiguous().transpose(1, 2)
    return queries, arena[0], arena[1]


def schedule(case: Case, dtype: torch.dtype, config: TileConfig | None = None) -> Schedule:
    return schedule_segments(
        item_table(starmap(Item, case.items)),
        case.tokens,
        q_heads=case.q_heads,
        kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        element_bytes=dtype.itemsize,
        multiprocessors=case.multiprocessors,
        config=config,
    )


def poisoned_partials(case: Case, slots: int) -> tuple[Tensor, Tensor]:
    shape = (slots, case.tokens, case.q_heads)
    out = torch.full((*shape, case.head_dim), torch.nan, device=DEVICE)
    return out, torch.full(shape, torch.nan, device=DEVICE)


def expected_partial(
    case: Case, queries: Tensor, keys: Tensor, values: Tensor
) -> reference.Partial:
    """The merge of every row's items, in float64."""
    queries, keys, values = queries.double(), keys.double(), values.double()
    result = reference.empty(queries)
    for item in starmap(Item, case.items):
        rows = slice(item.query_start, item.query_stop)
        own = slice(item.slot_start, item.slot_stop)
        part = reference.partial(
            queries[rows],
            keys[:, own],
            values[:, own],
            scale=case.head_dim**-0.5,
            causal=bool(item.causal),
            softcap=case.softcap,
        )
        before = reference.Partial(result.out[rows], result.lse[rows])
        result.out[rows], result.lse[rows] = reference.merge(before, part)
    return result


def assert_close(out: Tensor, lse: Tensor, expected: reference.Partial, dtype: torch.dtype) -> None:
    assert out.isfinite().all()
    error = (out.double() - expected.out).norm() / expected.out.norm().clamp(min=1e-30)
    assert error <= TOLERANCES[dtype]
    has_keys = expected.lse.isfinite()
    assert torch.equal(lse.isfinite(), has_keys)
    torch.testing.assert_close(
        lse[has_keys].double(), expected.lse[has_keys], rtol=1e-3, atol=LSE_TOLERANCES[dtype]
    )


@pytest.mark.parametrize("portable", [True] if INTERPRETED else [True, False])
@pytest.mark.parametrize(("dtype", "kv_dtype"), PAIRS)
@pytest.mark.parametrize("name", CASES)
def test_segments_and_merge(
    name: str, dtype: torch.dtype, kv_dtype: torch.dtype, portable: bool
) -> None:
    case = CASES[name]
    if case.head_dim * kv_dtype.itemsize % 16:
        pytest.skip("rows of keys that do not fill 16 bytes are refused")
    group = case.q_heads // case.kv_heads
    config = tile_config(case.head_dim, dtype.itemsize, group)
    if not portable:
        config, slow = best_config(DEVICE, dtype, case.head_dim, group, kv_dtype), config
        if config == slow:
            pytest.skip("no other kernel for this device, type or head")
    queries, keys, values = random_inputs(case, dtype, kv_dtype)
    plan = schedule(case, dtype, config)
    tables = SegmentTiles(plan, DEVICE)
    partial_out, partial_lse = poisoned_partials(case, plan.partial_slots)
    segment_attention(
        queries,
        keys,
        values,
        tables,
        partial_out,
        partial_lse,
        scale=case.head_dim**-0.5,
        softcap=case.softcap,
    )
    out, lse = merge(partial_out, partial_lse, tables.counts)
    assert_close(out, lse, expected_partial(case, queries, keys, values), dtype)


class TailCase(NamedTuple):
    """Rows with tails of given lengths, below `prefix` shared tokens."""

    lengths: list[int]
    page_tokens: int = 16
    prefix: int = 0
    q_heads: int = 2
    kv_heads: int = 2
    head_dim: int = 64
    softcap: float | None = None
    sinks: bool = False
    splits: int = 1
    strided: bool = False


TAIL_CASES = {
    "no tails": TailCase([0, 0, 0], prefix=20),
    "no keys at all": TailCase([0, 0]),
    "sinks without keys": TailCase([0, 0, 3], sinks=True),
    "some empty": TailCase([0, 1, 16, 17, 64, 0, 65], prefix=20),
    "tails alone": TailCase([5, 90, 33]),
    "grouped": TailCase([0, 1, 31, 32, 100], prefix=20, q_heads=8),
    "group of 5": TailCase([7, 70], prefix=9, q_heads=5, kv_heads=1),
    "group of 20": TailCase([7, 70], q_heads=20, kv_heads=1),
    "pages of 64": TailCase([0, 63, 64, 65, 130], page_tokens=64, prefix=3),
    "pages of 128": TailCase([129, 4], page_tokens=128, q_heads=4),
    "head of 80": TailCase([20, 70], head_dim=80, prefix=5),
    "head of 96": TailCase([20, 70], head_dim=96, q_heads=8),
    "head of 128": TailCase([20, 70], head_dim=128, prefix=5),
    "head of 256": TailCase([20, 70], head_dim=256, q_heads=8),
    "soft cap and sinks": TailCase([20, 0, 70], prefix=5, softcap=5.0, sinks=True),
    "split": TailCase([600, 0, 1, 257], prefix=30, splits=4, sinks=True),
    "split, grouped": TailCase([300, 20], prefix=30, splits=2, q_heads=8),
    "strided": TailCase([20, 70], prefix=30, strided=True),
}


@pytest.mark.parametrize(("dtype", "kv_dtype"), PAIRS)
@pytest.mark.parametrize("name", TAIL_CASES)
def test_tails(name: str, dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    tail = TAIL_CASES[name]
    rows, page_tokens = len(tail.lengths), tail.page_tokens
    generator = torch.Generator().manual_seed(rows + tail.prefix)
    pages_needed = [-(-length // page_tokens) for length in tail.lengths]
    first_page = -(-tail.prefix // page_tokens)
    order = torch.randperm(sum(pages_needed), generator=generator) + first_page
    page_table = torch.full((rows, max(pages_needed) + 1), -1, dtype=torch.int32)
    for row, (pages, own) in enumerate(zip(order.split(pages_needed), pages_needed, strict=True)):
        page_table[row, :own] = pages
    slots = (first_page + sum(pages_needed) + 1) * page_tokens

    items = [(0, rows, 0, tail.prefix, 0, 0)]
    case = Case(
        items,
        rows,
        slots,
        tail.q_heads,
        tail.kv_heads,
        tail.head_dim,
        tail.softcap,
        strided=tail.strided,
    )
    queries, keys, values = random_inputs(case, dtype, kv_dtype)
    own_slots = []
    for row, length in enumerate(tail.lengths):
        position = torch.arange(length)
        own = page_table[row, position // page_tokens].long() * page_tokens + position % page_tokens
        own_slots.append(own)
        shape = (tail.kv_heads, length, tail.head_dim)
        keys[:, own] = torch.randn(shape, generator=generator).to(keys)
        values[:, own] = torch.randn(shape, generator=generator).to(values)
    sinks = torch.randn(tail.q_heads, generator=generator).to(DEVICE) if tail.sinks else None

    plan = schedule(case, dtype)
    tables = SegmentTiles(plan, DEVICE)
    partial_out, partial_lse = poisoned_partials(case, max(1, plan.partial_slots))
    scale = case.head_dim**-0.5
    arguments = {"scale": scale, "softcap": tail.softcap}
    segment_attention(queries, keys, values, tables, partial_out, partial_lse, **arguments)
    out, lse = tail_attention(
        queries,
        keys,
        values,
        page_table.to(DEVICE),
        torch.tensor(tail.lengths, dtype=torch.int32, device=DEVICE),
        page_tokens,
        partial_out,
        partial_lse,
        tables.counts,
        sinks=sinks,
        splits=tail.splits,
        **arguments,
    )

    expected = expected_partial(case, queries, keys, values)
    for row, own in enumerate(own_slots):
        here = slice(row, row + 1)
        part = reference.partial(
            queries[here].double(), keys[:, own].double(), values[:, own].double(), **arguments
        )
        before = reference.Partial(expected.out[here], expected.lse[here])
        expected.out[here], expected.lse[here] = reference.merge(before, part)
    if sinks is not None:
        sink = reference.Partial(
            torch.zeros_like(expected.out), sinks.double().expand_as(expected.lse)
        )
        expected = reference.merge(expected, sink)
    assert out.dtype == dtype
    assert_close(out, lse, expected, dtype)


@pytest.mark.parametrize("slots", [1, 2, 9])
def test_merge_of_owned_slots_ignores_the_others(slots: int) -> None:
    generator = torch.Generator().manual_seed(slots)
    out = torch.randn(slots, 5, 3, 80, generator=generator).to(DEVICE)
    lse = (torch.randn(slots, 5, 3, generator=generator) * 8).to(DEVICE)
    counts = torch.tensor([0, 1, slots, slots // 2, slots], dtype=torch.int32, device=DEVICE)
    lse[0, 2] = -torch.inf  # an empty partial among others
    out[0, 2] = 0.0
    for row, count in enumerate(counts.tolist()):
        out[count:, row], lse[count:, row] = torch.nan, torch.nan
    merged_out, merged_lse = merge(out, lse, counts)
    for row, count in enumerate(counts.tolist()):
        expected = reference.empty(out[0, row : row + 1].double())
        for slot in range(count):
            one = reference.Partial(
                out[slot, row : row + 1].double(), lse[slot, row : row + 1].double()
            )
            expected = reference.merge(expected, one)
        here = slice(row, row + 1)
        torch.testing.assert_close(merged_out[here].double(), expected.out, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(merged_lse[here].double(), expected.lse, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="a CUDA graph needs a GPU")
def test_a_captured_graph_survives_a_change_of_plan() -> None:
    before, after = (
        CASES["ragged tree"],
        CASES["ragged tree"]._replace(
            items=[(0, 2, 0, 20, 0, 0), (2, 7, 100, 90, 0, 0), (3, 2, 30, 40, 0, 1)]
        ),
    )
    dtype = torch.bfloat16
    queries, keys, values = random_inputs(before, dtype, dtype)
    for arena in (keys, values):
        arena.nan_to_num_(0.5)
    config = best_config(DEVICE, dtype, before.head_dim, before.q_heads // before.kv_heads)
    tables = SegmentTiles(schedule(before, dtype, config), DEVICE, capacity=64)
    partial_out, partial_lse = poisoned_partials(before, 4)

    def step() -> tuple[Tensor, Tensor]:
        arguments = (queries, keys, values, tables, partial_out, partial_lse)
        segment_attention(*arguments, scale=0.125)
        return merge(partial_out, partial_lse, tables.counts)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = step()
    tables.load(schedule(after, dtype, config))
    graph.replay()
    assert_close(out, lse, expected_partial(after, queries, keys, values), dtype)


def test_a_hopper_device_without_its_kernel_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(segment, "_hopper_kernel", lambda: "Triton 0 has no Gluon for it")
    segment._warn_once.cache_clear()
    hopper = torch.device("cuda")
    for _ in range(2):
        assert not best_config(hopper, torch.bfloat16, 128).specialized
    assert [record.message.split(": ")[-1] for record in caplog.records] == [
        "Triton 0 has no Gluon for it"
    ]
    assert segment.why_not_hopper(hopper) == "Triton 0 has no Gluon for it"
    assert segment.why_not_hopper(torch.device("cpu")) is None
