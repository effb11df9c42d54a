"""Ahead-of-time compilation, which needs no GPU: registers, spills, instructions."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.experimental.gluon._runtime import GluonASTSource  # noqa: E402

from hydragen_kernels.append import _append_kernel  # noqa: E402
from hydragen_kernels.choose import _row_kernel, _sample_kernel  # noqa: E402
from hydragen_kernels.copy import _copy_kernel  # noqa: E402
from hydragen_kernels.draft_queries import _draws_kernel, _queries_kernel  # noqa: E402
from hydragen_kernels.drafts import (  # noqa: E402
    MOST_ROWS,
    _propose_kernel,
    _share_kernel,
    _sharers_kernel,
)
from hydragen_kernels.latent_tail import _latent_tail_kernel, latent_block  # noqa: E402
from hydragen_kernels.ordered_matmul import _product_kernel  # noqa: E402
from hydragen_kernels.schedule import tile_config  # noqa: E402
from hydragen_kernels.segment import _segment_kernel  # noqa: E402
from hydragen_kernels.settle import _advance_kernel, _lead_kernel, _learn_kernel  # noqa: E402
from hydragen_kernels.stack import _WRITTEN, _stack_kernel, _weight_kernel, stack_tile  # noqa: E402
from hydragen_kernels.state_steps import (  # noqa: E402
    _convolution_kernel,
    _delta_kernel,
    _mamba_kernel,
)
from hydragen_kernels.step import _begin_kernel, _end_kernel  # noqa: E402
from hydragen_kernels.sum_norm import _sum_norm_kernel  # noqa: E402
from hydragen_kernels.tail import _tail_kernel, block_shape  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {
    "page_table": "*i32",
    "lengths": "*i32",
    "counts": "*i32",
    "tiles": "*i32",
    "starts": "*i32",
    **dict.fromkeys(("pieces", "prefixes", "leads"), "*i32"),
    "accs": "*fp32",
    "partial_out": "*fp32",
    "partial_lse": "*fp32",
    "lse": "*fp32",
    "sample_rows": "*i32",
    "stream_keys": "*i64",
    "positions": "*i32",
    **dict.fromkeys(("first", "firsts"), "*i32"),
    "slots": "*i32",
    "floors": "*fp32",
    "peaks": "*fp32",
    "raw_lses": "*fp32",
    "best": "*i32",
    "masses": "*fp64",
    "tokens": "*i32",
    "raw_logprobs": "*fp32",
    "sampled_logprobs": "*fp32",
}
NUMBERS = dict.fromkeys(("scale", "cap", "rate", "top_p", "least", "lowest", "nucleus"), "fp32")


def compiled(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    capability: int = 90,
    **options: int,
) -> Any:
    """What Triton makes of a kernel for aligned arguments."""
    types = {**POINTERS, **NUMBERS, **types}
    signature, constexprs, attributes = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            constexprs[(index,)] = constants[name]
            continue
        signature[name] = types.get(name, "i32")
        if signature[name][0] in "*i":
            attributes[(index,)] = [["tt.divisibility", 16]]
    kind = GluonASTSource if kernel.is_gluon() else ASTSource
    source = kind(kernel, signature, constexprs, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def machine_code(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    tmp_path: Path,
    capability: int = 90,
    **options: int,
) -> tuple[str, str]:
    """Compile for aligned arguments; return the resource report and the disassembly."""
    return read_code(compiled(kernel, types, constants, capability, **options), tmp_path)


def read_code(made: Any, tmp_path: Path) -> tuple[str, str]:
    """The resource report and the disassembly of what was compiled."""
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(made.asm["cubin"])
    report, disassembly = (
        subprocess.run([TOOLS / tool, *flags, binary], capture_output=True, text=True, check=True)
        for tool, *flags in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
    )
    return report.stdout, disassembly.stdout


def assert_no_spills(report: str) -> None:
    assert re.search(r"STACK:0 .*LOCAL:0 ", report), report


@pytest.fixture(autouse=True)
def _fused_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # unset, Triton 3.9 warns


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


def test_fp8_as_bits_where_the_device_has_no_such_type(tmp_path: Path) -> None:
    for capability in (80, 86):
        _, disassembly = segment_code(128, "u8", tmp_path, capability)
        assert "HMMA" in disassembly
        for group in (1, 4):
            report, _ = tail_code(group, "u8", tmp_path, capability)
            assert_no_spills(report)
        append_code("u8", tmp_path, capability)


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
