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
        ("kernels/test_attention", ""),
        ("kernels/test_cache", ""),
        ("kernels/test_choose", ""),
        ("kernels/test_drafts", ""),
        ("kernels/test_experts", ""),
        ("kernels/test_fp8", ""),
        ("kernels/test_latent_tail", ""),
        ("kernels/test_ordered_rows", ""),
        ("kernels/test_ordered_triton", "not 16x16"),
        ("kernels/test_stack", ""),
        ("kernels/test_step", ""),
        ("attention/test_latent_tails", "triton"),
        ("attention/test_tree_attention", "fused"),
        ("attention/test_windows", "fused"),
        ("branch/test_decoder", ""),
        ("branch/test_latent_decoder", "triton"),
        ("branch/test_device_drafts", "two or waiting or windows"),
        ("model/test_experts", ""),
        ("model/test_ordered_gpu", ""),
        ("model/test_stack_linear", ""),
        ("bench/test_kernels", ""),
    ],
)
def test_tables_under_the_interpreter(module: str, tests: str) -> None:
    path = Path(__file__).parents[1] / f"{module}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    command += ["-k", tests]
    run = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=path.parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
