"""What is said of a process that failed."""

from pathlib import Path

import pytest

from hydragen_bench.child import last_lines

MOURNING = "Traceback (most recent call last):\n" + "  File 'client.py', in wait\n" * 20
ENGINE = "(EngineCore pid=7) "
LOGGED = ENGINE + "ERROR 11-30 08:44:05 [core.py:1231] "

OUT_OF_MEMORY = f"""\
{LOGGED}Traceback (most recent call last):
{LOGGED}    out = model(new_inputs)
{LOGGED}          ^^^^^^^^^^^^^^^^^
{LOGGED}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 960.00 MiB. See
{ENGINE}Process EngineCore:
{ENGINE}Traceback (most recent call last):
{ENGINE}    out = model(new_inputs)
{ENGINE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 960.00 MiB. See
"""
BEHIND_A_WARNING = f"""\
WARNING 11-30 08:43:59 [env.py:12] no plugins were found (ImportError: no module named plugins)
INFO 11-30 08:44:01 [probe.py:9] trying again after TimeoutError: a lock
{LOGGED}    raise ValueError(
{LOGGED}ValueError: num_expert_group and topk_group must be provided when it is True
INFO 11-30 08:44:06 [core.py:9] Error: shutting down
"""
IN_A_PROCESS_OF_A_PROCESS = """\
ERROR 11-30 08:45:30 [registry.py:999] Error in inspecting model architecture 'Qwen3Next'
ERROR 11-30 08:45:30 [registry.py:999]     raise CalledProcessError(self.returncode)
ERROR 11-30 08:45:30 [registry.py:999] subprocess.CalledProcessError: Command '[...]' returned 1.
ERROR 11-30 08:45:30 [registry.py:999]     raise RuntimeError(
ERROR 11-30 08:45:30 [registry.py:999] RuntimeError: Error raised in subprocess:
ERROR 11-30 08:45:30 [registry.py:999]     from compressed_tensors.quantization import (
ERROR 11-30 08:45:30 [registry.py:999] ModuleNotFoundError: No module named 'compressed_tensors'
ERROR 11-30 08:45:30 [registry.py:999]
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (OUT_OF_MEMORY, "torch.OutOfMemoryError: CUDA out of memory."),
        (BEHIND_A_WARNING, "ValueError: num_expert_group and topk_group must"),
        (IN_A_PROCESS_OF_A_PROCESS, "ModuleNotFoundError: No module named 'compressed_tensors'"),
    ],
)
def test_the_cause_precedes_the_last_lines(log: str, cause: str, tmp_path: Path) -> None:
    """As vLLM's engines failed."""
    path, end = tmp_path / "log", "RuntimeError: initialization failed. See root cause above.\n"
    path.write_text(log + MOURNING + end, encoding="utf-8")
    first, *last = last_lines(path)
    assert cause in first
    assert len(last) == 15
    assert last[-1] == end.strip()


def test_a_warning_alone_is_no_cause(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("WARNING [x.py:1] retried: OSError: busy\n" + "done\n" * 30, encoding="utf-8")
    assert last_lines(path) == ["done"] * 15
