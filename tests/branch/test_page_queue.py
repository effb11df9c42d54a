"""Pages that a device takes by itself come back when, and only when, no row has them any more."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from hydragen_tree.branch.device_batch import DeviceBatch
from hydragen_tree.branch.page_queue import PageQueue
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape

SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)


def queue_of(pages: int) -> tuple[KVCache, DeviceBatch, PageQueue]:
    device = torch.device("cpu")
    cache = KVCache(SHAPE, pages, 4, torch.float32, device)
    batch = DeviceBatch(4, 4, 3, pages, device)
    return cache, batch, PageQueue(cache, batch)


def tables(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def test_pages_that_were_taken_and_are_nobodys_come_back() -> None:
    cache, batch, queue = queue_of(8)
    queue.fill(5)
    assert queue.waiting == 5
    assert cache.free_pages == 3
    first = batch.state.queue[:5].tolist()
    queue.fill(4)  # there are more
    assert cache.free_pages == 3
    queue.seen(tables([first[0], first[2]], [first[0], -1]), 3, 0)
    assert queue.waiting == 2
    assert cache.free_pages == 4, "the second has been taken, and no row names it"
    queue.seen(tables([first[0], -1]), 3, 1)
    assert cache.free_pages == 5
    queue.seen(tables([first[0], -1]), 3, 2)
    assert cache.free_pages == 5, "a page came back twice"


def test_the_queue_goes_round() -> None:
    cache, batch, queue = queue_of(4)
    taken = 0
    for chunk in range(9):
        queue.fill(3)
        assert queue.waiting == 3
        expected = [batch.state.queue[(taken + at) % 4].item() for at in range(3)]
        assert sorted(np.flatnonzero(cache.arenas[0].users).tolist()) == sorted(expected)
        assert batch.control.given.item() == taken + 3
        taken += 2
        queue.seen(tables([-1]), taken, chunk)
    queue.fill(99)
    assert cache.free_pages == 0
    assert queue.waiting == 4
    queue.drain()
    assert cache.free_pages == 4
    assert queue.waiting == 0
    assert batch.control.given.item() == taken


def test_pages_of_admitted_rows_are_theirs_until_a_chunk_that_has_them() -> None:
    cache, _, queue = queue_of(6)
    own = cache.take(2)
    queue.admit(own, 1)
    queue.seen(tables([-1]), 0, 0)
    assert cache.free_pages == 4, "a chunk that was launched before tells nothing of them"
    queue.seen(tables([own[0], -1]), 0, 1)
    assert cache.free_pages == 5
    queue.seen(tables([-1]), 0, 2)
    assert cache.free_pages == 6
