"""Attention of one order of sums: against float64, and, on a GPU, bit for bit across shapes."""

import math
import os

import numpy as np
import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import ordered_schedule, ordered_tail  # noqa: E402
from hydragen_kernels.inputs import FP8  # noqa: E402
from hydragen_kernels.items import Item, item_table  # noqa: E402
from hydragen_kernels.ordered_schedule import ordered_config, schedule_ordered  # noqa: E402
from hydragen_kernels.ordered_states import States  # noqa: E402
from hydragen_kernels.schedule import TileConfig  # noqa: E402
from tests.kernels.ordered_cases import (  # noqa: E402
    CASES,
    DEVICE,
    Case,
    Inputs,
    expected_in_float64,
    found_by_kernels,
    random_inputs,
    slots_of,
    states_of_segments,
)

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])
TOLERANCES = {torch.float32: 3e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3}
CONFIGS = [TileConfig(16, 16, 4, 2, 1), TileConfig(32, 64, 4, 2, 1)]


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
