"""Sums of one order, compiled ahead: whether all their forms take in numbers alike."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

# this one skips, where nothing can be compiled
from tests.kernels.ahead import compiled, read_code

# isort: split

from hydragen_kernels.experts import ExpertTile, _product_kernel, expert_tiles
from hydragen_kernels.inputs import FP8
from hydragen_kernels.ordered_schedule import ordered_config
from hydragen_kernels.ordered_segment import _ordered_segment_kernel, ordered_tiles
from hydragen_kernels.ordered_tail import _ordered_tail_kernel, ordered_splits

TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", FP8: "fp8e4nv"}
CASES = [
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.bfloat16, FP8),
    (torch.float16, FP8),
]
HEADS = {"GROUP": 4, "HEAD_DIM": 128, "BLOCK_D": 128, "CAPPED": False, "PRECISION": "tf32"}


def tails(dtype: torch.dtype, kv_dtype: torch.dtype, windowed: bool) -> Any:
    types = dict.fromkeys(("queries", "out"), f"*{TYPES[dtype]}") | {"masses": "*fp32"}
    types |= dict.fromkeys(("keys", "values"), f"*{TYPES[kv_dtype]}")
    types |= dict.fromkeys(("part_peaks", "part_masses", "part_accs"), "*fp32")
    sizes = {"BLOCK_G": 16, "BLOCK_K": 16, "PAGE": 64, "CHUNK_K": 1024, "SPLITS": 1}
    sizes |= {"sinks": None}
    sizes |= {} if windowed else {"firsts": None}
    options = {"num_warps": 1, "num_stages": 3, "enable_fp_fusion": False}
    return compiled(_ordered_tail_kernel, types, HEADS | sizes, **options)


def segments(dtype: torch.dtype, kv_dtype: torch.dtype, windowed: bool) -> Any:
    config = ordered_config(128, dtype, 4)
    arena = f"tensordesc<{TYPES[kv_dtype]}[1, {config.block_k}, 128]>"
    types = {"queries": f"*{TYPES[dtype]}", "masses": "*fp32"}
    types |= dict.fromkeys(("keys", "values"), arena)
    sizes = {"BLOCK_Q": config.block_q, "BLOCK_K": config.block_k}
    sizes |= {} if windowed else {"firsts": None}
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    constants = HEADS | sizes
    return compiled(_ordered_segment_kernel, types, constants, **options, enable_fp_fusion=False)


def widths(made: Any) -> set[tuple[str, int]]:
    """Of the single warps' products: types of operands, and how many neighbours a thread holds.

    As many as fit into 32 bits is the order in which they lie; with more, an instruction takes in
    every second or fourth.
    """
    operand = r"x([a-z]+\d+), #ttg.dot_op<\{opIdx = 0, parent = #mma\w*, kWidth = (\d)\}>> \*"
    operand += " tensor"  # not what lies in shared memory
    return {(kind, int(width)) for kind, width in re.findall(operand, made.asm["ttgir"])}


def as_they_lie(order: set[tuple[str, int]]) -> bool:
    return all(width * int(re.sub(r"\D", "", kind)) == 32 for kind, width in order)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize(("dtype", "kv_dtype"), CASES, ids=str)
def test_segments_and_tails_take_in_keys_in_one_order(
    dtype: torch.dtype, kv_dtype: torch.dtype, windowed: bool, tmp_path: Path
) -> None:
    of_tails, of_segments = (make(dtype, kv_dtype, windowed) for make in (tails, segments))
    report, disassembly = read_code(of_tails, tmp_path)
    assert int(re.search(r"STACK:(\d+)", report)[1]) <= 96  # type: ignore[index]
    assert "HGMMA" not in disassembly
    products = {"16816.F32.BF16"} if dtype == torch.bfloat16 else {"16816.F32", "1688.F32.TF32"}
    assert set(re.findall(r"HMMA\.([\w.]+)", disassembly)) == products
    report, disassembly = read_code(of_segments, tmp_path)
    most = 448 if (dtype, kv_dtype) == CASES[-1] else 192
    assert int(re.search(r"STACK:(\d+)", report)[1]) <= most  # type: ignore[index]
    if "HGMMA" in disassembly:
        assert as_they_lie(widths(of_tails))
    else:
        assert set(re.findall(r"HMMA\.([\w.]+)", disassembly)) == products
        assert widths(of_segments) == widths(of_tails)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_hopper_segments_keep_products_in_flight(head_dim: int, tmp_path: Path) -> None:
    gluon = pytest.importorskip("triton.experimental.gluon.language")
    from hydragen_kernels.ordered_segment_hopper import ordered_segment_hopper_kernel

    layout = gluon.NVMMASharedLayout(128, 16, rank=3)
    arena = f"tensordesc<bf16[1,128,{head_dim}],{layout!r}>"
    sizes = {"GROUP": 4, "HEAD_DIM": head_dim, "BLOCK_D": head_dim, "BLOCK_K": 128, "STAGES": 2}
    made = compiled(
        ordered_segment_hopper_kernel,
        {"queries": "*bf16", "keys": arena, "values": arena, "masses": "*fp32"},
        {**sizes, "CAPPED": False},
        num_warps=4,
        enable_fp_fusion=False,
    )
    report, disassembly = read_code(made, tmp_path)
    # values kept over a tile may go to the stack, nothing of the loop over its keys
    assert int(re.search(r"STACK:(\d+)", report)[1]) <= 384  # type: ignore[index]
    both = head_dim // 16 + 8  # instructions of a block's scores and of its values
    loops = [one for one in disassembly.split("\n.L_") if one.count("HGMMA") >= both]
    assert len(loops) == 2  # one of each consumer
    assert all("LDL" not in one.split("WARPGROUP.DEPBAR")[0] for one in loops)
    # where ptxas cannot prove the accumulators untouched, it waits after every single product
    waits = disassembly.count("WARPGROUP.DEPBAR")
    assert disassembly.count("HGMMA") >= 4 * waits > 0
    # a block's powers come before the wait for the products of the block before, not behind it
    assert disassembly.count("gsb0, 0x1") == 2
    for after in disassembly.split("gsb0, 0x1")[1:]:
        assert after.split("gsb0, 0x0")[0].count("MUFU.EX2") >= 64
    assert "USETMAXREG" in disassembly


@pytest.mark.parametrize(
    ("dtype", "head_dim", "kv_dtype", "windowed", "capability", "taken"),
    [
        (torch.bfloat16, 128, None, False, (9, 0), True),
        (torch.bfloat16, 80, torch.bfloat16, False, (9, 0), True),
        (torch.bfloat16, 256, None, False, (9, 0), False),
        (torch.bfloat16, 32, None, False, (9, 0), False),
        (torch.float16, 128, None, False, (9, 0), False),
        (torch.float32, 128, None, False, (9, 0), False),
        (torch.bfloat16, 128, FP8, False, (9, 0), False),
        (torch.bfloat16, 128, None, True, (9, 0), False),
        (torch.bfloat16, 128, None, False, (8, 0), False),
    ],
)
def test_where_segments_take_the_hopper_form(
    dtype: torch.dtype,
    head_dim: int,
    kv_dtype: torch.dtype | None,
    windowed: bool,
    capability: tuple[int, int],
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    found = ordered_tiles("cuda", dtype, head_dim, 4, kv_dtype, is_windowed=windowed)
    assert found.specialized == taken
    assert taken or found == ordered_config(head_dim, dtype, 4)


@pytest.mark.parametrize(
    ("rows", "longest", "splits"),
    [(1, 100, 1), (1, 2047, 1), (1, 5000, 8), (32, 5000, 4), (66, 1 << 20, 1), (1024, 5000, 1)],
)
def test_programs_that_share_a_tail(rows: int, longest: int, splits: int) -> None:
    assert ordered_splits(rows, 8, longest) == splits


@pytest.mark.parametrize("tile", expert_tiles(torch.bfloat16), ids=lambda one: f"{one.rows}")
def test_sums_of_experts_do_not_begin_with_a_bias(tile: ExpertTile) -> None:
    """As the compiler has them where it sees a single product, which is so in some tiles only."""
    types = dict.fromkeys(("x", "weight", "bias", "out"), "*bf16")
    types |= dict.fromkeys(("order", "starts"), "*i32")
    sizes = {"EXPERTS": 4, "OUTPUTS": 192, "INPUTS": tile.inputs, "CHOICES": 2, "BY_TOKEN": True}
    sizes |= {"EXPERTS_BLOCK": 4, "BLOCK_M": tile.rows, "BLOCK_N": tile.outputs}
    made = compiled(
        _product_kernel,
        types,
        sizes | {"BLOCK_K": tile.inputs},
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    assert "arith.addf" in made.asm["ttgir"]
