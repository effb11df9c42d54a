"""Kernels compiled ahead of time, which needs no GPU: what is made of them, and what it takes.

Importing it skips the module that does where there is no Triton, or its interpreter.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.experimental.gluon._runtime import GluonASTSource  # noqa: E402

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
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # unset, Triton 3.9 warns
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
