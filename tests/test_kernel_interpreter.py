"""The kernel tables on the CPU: Triton's interpreter must be asked for before its import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        ("test_kernel_attention", ""),
        ("test_kernel_cache", ""),
        ("test_kernel_choose", ""),
        ("test_kernel_fp8", ""),
        ("test_kernel_step", ""),
        ("test_attention", "fused"),
        ("test_decoder", ""),
        ("test_bench_kernels", ""),
    ],
)
def test_tables_under_the_interpreter(module: str, tests: str) -> None:
    path = Path(__file__).with_name(f"{module}.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    command += ["-k", tests]
    run = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=path.parent.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
