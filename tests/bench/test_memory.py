"""Memory on a CPU: what is reserved is not taken, and a run takes little beyond what it must."""

import pytest
import torch

from hydragen_bench.memory import measure, resident_bytes
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape


def test_an_arena_takes_memory_only_where_it_is_written() -> None:
    shape = KVShape(layers=4, q_heads=8, kv_heads=8, head_dim=64, itemsize=4)
    before = resident_bytes("VmRSS")
    cache = KVCache(shape, 4096, 16, torch.float32, torch.device("cpu"))
    arenas = (cache.keys, cache.values)
    assert sum(arena.nbytes for arena in arenas) == 1 << 30
    assert resident_bytes("VmRSS") - before < 16 << 20
    slots = torch.arange(160)
    for layer in range(4):
        cache.arenas[0].write(layer, slots, torch.ones(8, 160, 64), torch.ones(8, 160, 64))
    assert not any(arena[:, :, 160:240].any() for arena in arenas)
    assert resident_bytes("VmRSS") - before < 32 << 20


@pytest.mark.slow
def test_a_run_takes_at_most_half_more_than_weights_and_distinct_keys_and_values() -> None:
    assert measure(n=400)["ratio"] < 1.5
