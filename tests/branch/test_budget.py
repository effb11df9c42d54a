"""How many rows a batch has where nobody says."""

from dataclasses import replace

import pytest

from hydragen_tree.branch.budget import batch_rows
from hydragen_tree.model.loading import find_model, stored_bytes
from hydragen_tree.shape import KVShape

GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "layers", "kv_heads", "expected"),
    [
        pytest.param(141 * GIB, 30, 3, 16384, id="135M-H200"),
        pytest.param(24 * GIB, 30, 3, 4096, id="135M-24GiB"),
        pytest.param(125 * GIB, 32, 8, 2048, id="8B-H200"),
        pytest.param(8 * GIB, 32, 8, 1024, id="8B-little"),
        pytest.param(0, 32, 8, 1024, id="none"),
    ],
)
def test_rows_that_memory_holds(memory: int, layers: int, kv_heads: int, expected: int) -> None:
    source = find_model("tiny", device="cpu")
    shape = KVShape(layers, 4 * kv_heads, kv_heads, 64 if layers == 30 else 128, 2)
    assert batch_rows(replace(source, shape=shape), memory) == expected


def test_the_size_of_the_shipped_model() -> None:
    assert 1e6 < stored_bytes(find_model("tiny", device="cpu")) < 8e6
