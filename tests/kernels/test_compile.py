"""Attention and its sums, compiled ahead: registers, spills, instructions."""

import re
from pathlib import Path

import pytest

# this one skips, where nothing can be compiled
from tests.kernels.ahead import assert_no_spills, machine_code

# isort: split

from hydragen_kernels.append import _append_kernel
from hydragen_kernels.latent_tail import _latent_tail_kernel, latent_block
from hydragen_kernels.layers import _pairs_kernel, _rotate_kernel
from hydragen_kernels.ordered_matmul import _product_kernel
from hydragen_kernels.schedule import tile_config
from hydragen_kernels.segment import _segment_kernel
from hydragen_kernels.tail import _tail_kernel, block_shape


def segment_code(
    head_dim: int, kv_type: str, tmp_path: Path, capability: int = 90, *, windowed: bool = False
) -> tuple[str, str]:
    """The portable segment kernel for bf16 queries."""
    config = tile_config(head_dim, element_bytes=2)
    arena = f"tensordesc<{kv_type}[1, {config.block_k}, {head_dim}]>"
    return machine_code(
        _segment_kernel,
        {"queries": "*bf16", "keys": arena, "values": arena},
        {
            "GROUP": 4,
            "HEAD_DIM": head_dim,
            "BLOCK_Q": config.block_q,
            "BLOCK_K": config.block_k,
            "BLOCK_D": head_dim,
            "CAPPED": False,
            "PRECISION": "tf32",
            **({} if windowed else {"first": None}),
        },
        tmp_path,
        capability,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def tail_code(
    group: int, kv_type: str, tmp_path: Path, capability: int = 90, *, windowed: bool = False
) -> tuple[str, str]:
    """The tail kernel for bf16 queries and heads of 128."""
    block_k, num_warps, num_stages = block_shape(128, group, 10_000)
    return machine_code(
        _tail_kernel,
        {"queries": "*bf16", "keys": f"*{kv_type}", "values": f"*{kv_type}", "out": "*bf16"},
        {
            "sinks": None,
            "GROUP": group,
            "HEAD_DIM": 128,
            "BLOCK_G": 1 if group == 1 else 16,
            "BLOCK_K": block_k,
            "BLOCK_D": 128,
            "PAGE": 64,
            "SPLITS": 1,
            "CAPPED": False,
            "PRECISION": "tf32",
            **({} if windowed else {"first": None, "positions": None}),
        },
        tmp_path,
        capability,
        num_warps=num_warps,
        num_stages=num_stages,
    )


def append_code(kv_type: str, tmp_path: Path, capability: int = 90) -> tuple[str, str]:
    """The kernel that stores bf16 keys and values, without rotation."""
    return machine_code(
        _append_kernel,
        {"keys": f"*{kv_type}", "values": f"*{kv_type}"}
        | dict.fromkeys(("k", "v", "cos", "sin"), "*bf16"),
        {"HEAD_DIM": 128, "ROTARY_DIM": 0, "BLOCK_H": 8, "BLOCK_D": 128},
        tmp_path,
        capability,
        num_warps=4,
    )


@pytest.mark.parametrize(
    ("head_dim", "kv_type", "windowed"),
    [
        *[(64, "bf16", False), (128, "bf16", False), (256, "bf16", False)],
        *[(64, "fp8e4nv", False), (128, "fp8e4nv", False)],
        *[(128, "bf16", True), (256, "bf16", True)],
    ],
)
def test_segments_use_the_tensor_cores_and_the_copy_engine(
    head_dim: int, kv_type: str, windowed: bool, tmp_path: Path
) -> None:
    config = tile_config(head_dim, element_bytes=2)
    report, disassembly = segment_code(head_dim, kv_type, tmp_path, windowed=windowed)
    if (head_dim, windowed) == (256, True):  # a few values kept over a tile may go to the stack
        assert int(re.search(r"STACK:(\d+)", report)[1]) <= 16  # type: ignore[index]
    else:
        assert_no_spills(report)
    assert "HGMMA" in disassembly
    assert "UTMALDG" in disassembly
    assert "F2F.BF16.F16" not in disassembly  # fp8 by pairs, none of its numbers alone
    registers = int(re.search(r"REG:(\d+)", report)[1])  # type: ignore[index]
    assert registers * config.num_warps * 32 * config.programs_per_sm <= 65536


def test_hopper_segments_keep_products_in_flight(tmp_path: Path) -> None:
    gluon = pytest.importorskip("triton.experimental.gluon.language")
    from hydragen_kernels.segment_hopper import segment_hopper_kernel

    layout = gluon.NVMMASharedLayout(128, 16, rank=3)
    arena = f"tensordesc<bf16[1,128,128],{layout!r}>"
    report, disassembly = machine_code(
        segment_hopper_kernel,
        {"queries": "*bf16", "keys": arena, "values": arena},
        {
            "GROUP": 4,
            "HEAD_DIM": 128,
            "BLOCK_K": 128,
            "BLOCK_D": 128,
            "STAGES": 2,
            "CAPPED": False,
        },
        tmp_path,
        num_warps=4,
    )
    # a few values kept over a tile may go to the stack, nothing of the loop over its keys
    assert int(re.search(r"STACK:(\d+)", report)[1]) <= 192  # type: ignore[index]
    # where ptxas cannot prove the accumulators untouched, it waits after every single product
    waits = disassembly.count("WARPGROUP.DEPBAR")
    assert disassembly.count("HGMMA") >= 4 * waits > 0
    assert "USETMAXREG" in disassembly


@pytest.mark.parametrize("swapped", [False, True])
def test_ordered_products_use_the_tensor_cores(swapped: bool, tmp_path: Path) -> None:
    rows, columns, depth = (32, 64, 128) if swapped else (128, 128, 64)
    sizes = {"BLOCK_R": rows, "BLOCK_N": columns, "BLOCK_K": depth, "CHUNK_K": 4096, "BAND": 16}
    report, disassembly = machine_code(
        _product_kernel,
        {
            "x": f"tensordesc<bf16[{rows}, {depth}]>",
            "weight": f"tensordesc<bf16[{columns}, {depth}]>",
            "out": "*bf16",
        },
        {
            **sizes,
            **{"bias": None, "WHOLE": True, "SPLIT": False, "SWAPPED": swapped},
            "PRECISION": "tf32",
        },
        tmp_path,
        num_warps=4,
        num_stages=4,
        enable_fp_fusion=False,
    )
    assert_no_spills(report)
    assert f"HGMMA.64x{rows if swapped else columns}x16.F32.BF16" in disassembly


@pytest.mark.parametrize(
    ("kv_type", "windowed"), [("bf16", False), ("fp8e4nv", False), ("bf16", True)]
)
@pytest.mark.parametrize("group", [1, 4])
def test_tails_load_16_bytes_a_thread(
    group: int, windowed: bool, kv_type: str, tmp_path: Path
) -> None:
    report, disassembly = tail_code(group, kv_type, tmp_path, windowed=windowed)
    assert_no_spills(report)
    wide = "LDG.E.128" if group == 1 else "LDGSTS.E.BYPASS.128"
    assert wide in disassembly
    assert ("HMMA" in disassembly) == (group > 1)
    assert "F2F.BF16.F16" not in disassembly


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("heads", [16, 128])
def test_tails_of_latent_vectors_keep_to_their_registers(
    heads: int, dtype: str, tmp_path: Path
) -> None:
    block_g, block_k, num_warps, num_stages = latent_block(heads, 2 if dtype == "bf16" else 4)
    precision = "tf32" if dtype == "bf16" else "ieee"
    report, disassembly = machine_code(
        _latent_tail_kernel,
        dict.fromkeys(("queries", "vectors", "out"), f"*{dtype}"),
        {
            **{"RANK": 512, "REST": 64, "BLOCK_C": 512, "BLOCK_R": 64, "PAGE": 64, "SPLITS": 1},
            **{"BLOCK_G": block_g, "BLOCK_K": block_k, "CAPPED": False, "PRECISION": precision},
        },
        tmp_path,
        num_warps=num_warps,
        num_stages=num_stages,
    )
    assert_no_spills(report)
    assert ("HMMA" in disassembly) == (dtype == "bf16")
    assert "LDGSTS.E.BYPASS.128" in disassembly  # on their way while others are multiplied


def test_new_keys_are_stored_without_spills(tmp_path: Path) -> None:
    for kv_type in ("bf16", "u8"):
        report, _ = append_code(kv_type, tmp_path)
        assert_no_spills(report)


@pytest.mark.parametrize(("angles", "half", "second"), [(64, 32, 32), (32, 32, 0), (16, 8, 8)])
def test_rotations_are_made_without_spills(
    angles: int, half: int, second: int, tmp_path: Path
) -> None:
    types = dict.fromkeys(("q", "k", "q_out", "k_out", "cos", "sin"), "*bf16")
    rest = 64 if half < 32 else 0
    sizes = {"DIM": 64, "HALF": half, "ANGLES": angles, "SECOND": second, "Q_HEADS": 64}
    blocks = {"KV_HEADS": 8, "HALF_BLOCK": half, "REST_BLOCK": rest, "HEADS": 32}
    report, _ = machine_code(_rotate_kernel, types, sizes | blocks, tmp_path, num_warps=4)
    assert_no_spills(report)


def test_rotations_of_pairs_are_made_without_spills(tmp_path: Path) -> None:
    types = {"x": "*bf16", "out": "*bf16", "angles": "*fp32"}
    constants = {"TOTAL": 16, "PAIRS": 32, "BLOCK": 32, "HEADS": 32}
    report, _ = machine_code(_pairs_kernel, types, constants, tmp_path, num_warps=4)
    assert_no_spills(report)


def test_fp8_as_bits_where_the_device_has_no_such_type(tmp_path: Path) -> None:
    for capability in (80, 86):
        _, disassembly = segment_code(128, "u8", tmp_path, capability)
        assert "HMMA" in disassembly
        for group in (1, 4):
            report, _ = tail_code(group, "u8", tmp_path, capability)
            assert_no_spills(report)
        append_code("u8", tmp_path, capability)
