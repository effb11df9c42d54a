"""How many rows a batch has where nobody says."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hydragen_tree.branch.budget import available_bytes, batch_rows, padded_rows
from hydragen_tree.model.fingerprint import stored_bytes
from hydragen_tree.model.loading import find_model
from hydragen_tree.shape import KVShape

GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "layers", "kv_heads", "expected"),
    [
        pytest.param(141 * GIB, 30, 3, 16384, id="135M-H200"),
        pytest.param(24 * GIB, 30, 3, 4096, id="135M-24GiB"),
        pytest.param(125 * GIB, 32, 8, 3584, id="8B-H200"),
        pytest.param(8 * GIB, 32, 8, 1024, id="8B-little"),
        pytest.param(0, 32, 8, 1024, id="none"),
    ],
)
def test_rows_that_memory_holds(memory: int, layers: int, kv_heads: int, expected: int) -> None:
    source = find_model("tiny", device="cpu")
    shape = KVShape(layers, 4 * kv_heads, kv_heads, 64 if layers == 30 else 128, 2)
    rows = batch_rows(replace(source, shape=shape), memory)
    assert rows == expected
    assert padded_rows(rows) == rows


def test_a_graph_has_few_rows_too_many() -> None:
    sizes = {rows: padded_rows(rows) for rows in range(1, 16385)}
    assert len(set(sizes.values())) < 50
    assert all(sizes[size] == size for size in sizes.values())
    assert all(rows <= size < rows + max(8, rows) for rows, size in sizes.items() if rows <= 64)
    assert all(size <= rows * 5 / 4 for rows, size in sizes.items() if 512 < rows <= 2048)
    assert all(size <= rows * 9 / 8 for rows, size in sizes.items() if rows > 2048)


def test_the_size_of_the_shipped_model() -> None:
    assert 1e6 < stored_bytes(find_model("tiny", device="cpu")) < 8e6


def test_cached_files_are_no_lost_memory(tmp_path: Path) -> None:
    meminfo = "MemTotal: 24684344 kB\nMemFree: 51200 kB\nMemAvailable: 20802060 kB\nHugePages: 0\n"
    (tmp_path / "meminfo").write_text(meminfo)
    assert available_bytes(tmp_path, tmp_path) == 20802060 * 1024
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path, tmp_path) == 20802060 * 1024
    (tmp_path / "memory.max").write_text("5000000\n")
    assert available_bytes(tmp_path, tmp_path) == 4_000_000
    (tmp_path / "memory.current").write_text("6000000\n")
    assert available_bytes(tmp_path, tmp_path) == 0


def test_systems_that_tell_less(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes(tmp_path, tmp_path) <= whole
    assert 0 < available_bytes() <= whole
