"""The kernel tables on the CPU: Triton's interpreter must be asked for before its import.

Modules of tests share processes, as each imports torch and transformers, which takes seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

TESTS = Path(__file__).parents[1]
# By module, which of its tests: a part of the expression of pytest's `-k`; all, where it is empty.
GROUPS = [
    {"bench/test_kernels": ""},
    {"branch/test_decoder": "", "branch/test_latent_decoder": "triton"},
    {
        "kernels/test_ordered_triton": "not 16x16",
        "kernels/test_ordered_products": "not 16x16",
        "kernels/test_ordered_rows": "",
        "model/test_ordered_gpu": "",
    },
    {
        "branch/test_device_drafts": "two or waiting or windows",
        "kernels/test_drafts": "",
        "kernels/test_step": "",
        "kernels/test_cache": "",
    },
    {
        "attention/test_latent_tails": "triton",
        "attention/test_tree_attention": "fused",
        "attention/test_windows": "fused",
        "kernels/test_attention": "",
        "kernels/test_latent_tail": "",
    },
    {
        "kernels/test_choose": "",
        "kernels/test_experts": "",
        "kernels/test_fp8": "",
        "kernels/test_routing": "",
        "kernels/test_stack": "",
        "model/test_experts": "",
        "model/test_routers": "",
        "model/test_stack_linear": "",
    },
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: next(iter(group)))
def test_tables_under_the_interpreter(group: dict[str, str]) -> None:
    wanted = (
        f"({Path(module).name}.py and ({tests}))" if tests else f"{Path(module).name}.py"
        for module, tests in group.items()
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rp", "-p", "no:cacheprovider"]
    command += ["-k", " or ".join(wanted), *(str(TESTS / f"{module}.py") for module in group)]
    run = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for module in group:
        assert f"PASSED tests/{module}.py::" in run.stdout, module
