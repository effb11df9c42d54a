"""What a step does besides attention, compiled ahead: registers, spills, instructions."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from triton import next_power_of_2

# this one skips, where nothing can be compiled
from tests.kernels.ahead import assert_no_spills, machine_code

# isort: split

from hydragen_kernels.choose import _row_kernel, _sample_kernel
from hydragen_kernels.copy import _copy_kernel
from hydragen_kernels.draft_queries import _draws_kernel, _queries_kernel
from hydragen_kernels.drafts import MOST_ROWS, _propose_kernel, _share_kernel, _sharers_kernel
from hydragen_kernels.routing import _route_kernel
from hydragen_kernels.settle import _advance_kernel, _lead_kernel, _learn_kernel
from hydragen_kernels.stack import _WRITTEN, _stack_kernel, _weight_kernel, stack_tile
from hydragen_kernels.state_steps import _convolution_kernel, _delta_kernel, _mamba_kernel
from hydragen_kernels.step import _begin_kernel, _end_kernel
from hydragen_kernels.sum_norm import _sum_norm_kernel


@pytest.mark.parametrize(
    ("kernel", "block", "warps", "constants"),
    [
        (_begin_kernel, 1024, 8, {"drafts": None}),
        (_begin_kernel, 1024, 8, {}),
        (_end_kernel, 128, 4, {}),
    ],
)
def test_a_steps_ends_keep_to_their_registers(
    kernel: Any, block: int, warps: int, constants: dict[str, Any], tmp_path: Path
) -> None:
    of_rows = ("pages", "sample_rows", "slots", "new_lengths", "counters", "drafts")
    types = dict.fromkeys((*of_rows, "queue", "chosen", "ring_tokens"), "*i32")
    types |= {"state": "*i64", "control": "*i64", "table": "*i16"}
    logprobs = ("raw_logprobs", "sampled_logprobs", "ring_raw", "ring_sampled")
    types |= dict.fromkeys(logprobs, "*fp32")
    constants = {**constants, "BLOCK": block}
    report, _ = machine_code(kernel, types, constants, tmp_path, num_warps=warps)
    assert_no_spills(report)


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize(
    ("kernel", "block"),
    [
        (_propose_kernel, 32),
        (_sharers_kernel, 128),
        (_share_kernel, MOST_ROWS),
        (_queries_kernel, 128),
        (_draws_kernel, 128),
        (_lead_kernel, 128),
        (_learn_kernel, 128),
        (_advance_kernel, 128),
    ],
)
def test_drafts_keep_to_their_registers(
    kernel: Any, block: int, width: int, tmp_path: Path
) -> None:
    if width == 1 and kernel not in (_propose_kernel, _learn_kernel):
        pytest.skip("never launched")
    words = ("pages", "row_slots", "row_lengths", "drafts", "leads", "chosen", "last_tokens")
    words += ("draft_sources", "token_sources", "chances", "firsts", "query_rows", "sample_rows")
    types = dict.fromkeys((*words, "draw_rows", "draw_counters", "ring_tokens"), "*i32")
    longs = ("state", "control", "entries", "sources", "held", "tallies", "step_counts", "keys")
    types |= dict.fromkeys((*longs, "draw_keys"), "*i64") | {"table": "*i16"}
    floats = ("raw_logprobs", "sampled_logprobs", "last_raw", "last_sampled")
    types |= dict.fromkeys((*floats, "ring_raw", "ring_sampled"), "*fp32")
    if kernel is _queries_kernel:
        types |= dict.fromkeys(("tokens", "positions"), "*i64")
    types |= {"sharers": "*i32"}
    constants = {"WIDTH": width, "ROW_QUERIES": width, "MOST": max(width - 1, 1), "BLOCK": block}
    if width == 1:
        constants["sharers"] = None
    constants = {name: constants[name] for name in constants if name in kernel.arg_names}
    report, _ = machine_code(kernel, types, constants, tmp_path, num_warps=4)
    assert_no_spills(report)


@pytest.mark.parametrize("rows", [16, 32, 64])
def test_blocks_of_signs_are_multiplied_in_registers(rows: int, tmp_path: Path) -> None:
    tile = stack_tile(rows, torch.bfloat16)
    report, disassembly = machine_code(
        _stack_kernel,
        {"x": "*bf16", "signs": "*u8", "sums": "*fp32", "left": "*fp16", "right": "*fp16"},
        {
            **{"RANK": 16, "AT_ONCE": 4, "BLOCK_M": tile.rows, "BLOCK_N": tile.outputs},
            **{"BLOCK_B": tile.n_bytes, "BLOCK_R": 16},
        },
        tmp_path,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    assert_no_spills(report)
    assert "F32.BF16" in disassembly  # rows with weights that were made in registers
    assert disassembly.count("FADD") <= 4 * tile.outputs * tile.n_bytes / 32 / tile.num_warps


@pytest.mark.parametrize(
    ("experts", "choices", "dtype", "sigmoid"),
    [
        (8, 2, "bf16", False),
        (32, 4, "bf16", False),
        (64, 6, "fp32", False),
        (128, 8, "bf16", False),
        (512, 10, "bf16", False),
        (160, 8, "fp32", True),
        (1024, 8, "fp32", True),
    ],
)
def test_a_warp_chooses_experts_without_waiting(
    experts: int, choices: int, dtype: str, sigmoid: bool, tmp_path: Path
) -> None:
    types = {"logits": f"*{dtype}", "bias": "*fp32", "chosen": "*i64", "shares": f"*{dtype}"}
    sizes = {"EXPERTS": experts, "CHOICES": choices}
    blocks = {"BLOCK": max(32, next_power_of_2(experts)), "BLOCK_C": next_power_of_2(choices)}
    report, disassembly = machine_code(
        _route_kernel,
        types,
        {**sizes, **blocks, "SIGMOID": sigmoid, "NORMALISED": True}
        | ({} if sigmoid else {"bias": None}),
        tmp_path,
        num_warps=1,
    )
    assert_no_spills(report)
    assert "SHARED:0 " in report
    assert "BAR.SYNC" not in disassembly
    assert "REDUX" in disassembly  # a whole warp's greatest number in one instruction


STATE_STEPS = [
    (
        _convolution_kernel,
        {"HAS_BIAS": True, "SILU": True, "TAPS": 4, "BLOCK_T": 4, "BLOCK_C": 256},
    ),
    (
        _delta_kernel,
        {"IS_NORMED": True, "KEY_DIM": 128, "VALUE_DIM": 128, "BLOCK_K": 128, "BLOCK_V": 32},
    ),
    (_mamba_kernel, {"HAS_Z": True, "HEAD_DIM": 64, "STATE": 128, "BLOCK_P": 16, "BLOCK_N": 128}),
    (_mamba_kernel, {"HAS_Z": False, "HEAD_DIM": 64, "STATE": 256, "BLOCK_P": 16, "BLOCK_N": 256}),
]


@pytest.mark.parametrize(("kernel", "constants"), STATE_STEPS)
def test_steps_of_states_keep_them_in_registers(
    kernel: Any, constants: dict[str, Any], tmp_path: Path
) -> None:
    types = dict.fromkeys(["x", "weight", "bias", "out", *"qkvabcdz", "beta", "dt"], "*bf16")
    types |= {"states": "*fp32", "g": "*fp32", "a": "*fp32"}
    if kernel is _convolution_kernel:
        types["states"] = "*bf16"
    types |= dict.fromkeys(("source", "target"), "*i64")
    report, code = machine_code(kernel, types, constants, tmp_path, num_warps=4)
    assert_no_spills(report)
    assert "STG.E.128" in code or "STG.E.64" in code


def test_weights_of_blocks_are_made_without_spills(tmp_path: Path) -> None:
    outputs, inputs, warps, stages = _WRITTEN
    report, disassembly = machine_code(
        _weight_kernel,
        {"weight": "*bf16", "signs": "*u8", "left": "*fp16", "right": "*fp16"},
        {"RANK": 16, "BLOCK_N": outputs, "BLOCK_K": inputs, "BLOCK_R": 16},
        tmp_path,
        num_warps=warps,
        num_stages=stages,
    )
    assert_no_spills(report)
    assert "HMMA" in disassembly


def test_copies_move_16_bytes_a_thread(tmp_path: Path) -> None:
    report, disassembly = machine_code(
        _copy_kernel,
        {"keys": "*i16", "values": "*i16", "source": "*i32", "target": "*i32", "tokens": "i32"},
        {"HEAD_DIM": 128, "BLOCK_T": 16, "BLOCK_D": 128},
        tmp_path,
        num_warps=4,
    )
    assert_no_spills(report)
    assert "LDG.E.128" in disassembly
    assert "STG.E.128" in disassembly


def test_sums_of_ranks_wait_for_the_whole_system(tmp_path: Path) -> None:
    given = dict.fromkeys(("part", "residual", "weight", "out", "normed"), "*bf16")
    sizes = {"RANK": 0, "RANKS": 2, "WIDTH": 5120, "BLOCK": 8192}
    report, disassembly = machine_code(
        _sum_norm_kernel,
        {**given, "inboxes": ("i64", "i64")},
        {**sizes, "SLOT_BYTES": 1 << 24, "EMPTY": -(1 << 15), "EPS": 1e-5, "FORM": 0},
        tmp_path,
        num_warps=8,
        enable_fp_fusion=False,
    )
    assert_no_spills(report)
    # looked at once, then again and again, past this processor's cache
    assert len(re.findall(r"LDG\.E\.128\.STRONG\.SYS", disassembly)) >= 2
    assert "ATOM" not in disassembly
    assert not re.search(r"LDG\.E\.U?(16|32|8)\b", disassembly)  # parts come 16 bytes at a time
    assert not re.search(r"STG\.E\.U?(16|32|8)\b", disassembly)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_choice_keeps_to_its_registers(dtype: str, tmp_path: Path) -> None:
    vec = 8 if dtype == "bf16" else 4
    report, _ = machine_code(
        _row_kernel,
        {"logits": f"*{dtype}"},
        {"TOP_K": True, "TOP_P": True, "GREEDY": False, "LANES": 1024, "VEC": vec, "PARTS": 8},
        tmp_path,
        num_warps=32,
    )
    assert_no_spills(report)
    report, _ = machine_code(
        _sample_kernel,
        {"logits": f"*{dtype}"},
        {"GREEDY": False, "BLOCK": 128 * vec, "BLOCK_B": 128},
        tmp_path,
        num_warps=4,
    )
    assert_no_spills(report)
