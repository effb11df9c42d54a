"""Who has which pages of two arenas: counted by hand."""

from dataclasses import replace

import pytest
import torch

from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape

PAGE = 4
# three layers, of which two see 8 tokens
SHAPE = KVShape(3, 2, 1, 2, 4, windowed=frozenset({0, 2}), window_tokens=8)
LAYER_PAGE = 2 * PAGE * 2 * 4  # bytes of a page's keys and values in one layer


def cache_of(shape: KVShape, n_pages: int, run_pages: int | None = None) -> KVCache:
    device = torch.device("cpu")
    return KVCache(shape, n_pages, PAGE, torch.float32, device, run_pages=run_pages)


def test_tails_have_every_page_that_is_free_in_both_arenas() -> None:
    """Of a prompt of 10 pages windowed layers keep 2; tails get all of the others there."""
    cache = cache_of(SHAPE, 14, 22)
    slots = cache.take_run(40)
    assert slots is not None
    windowed = cache.windowed
    assert windowed is not None
    assert cache.peak_bytes == LAYER_PAGE * (10 + 2 * 10)
    windowed.release_run(slots[1], 32)
    pages = cache.take(12)
    assert sorted(pages.tolist()) == list(range(12))
    assert cache.peak_bytes == LAYER_PAGE * ((10 + 12) + 2 * (2 + 12))
    with pytest.raises(CapacityError, match="1 pages of keys and values needed, 0 are free"):
        cache.take(1)


def test_segments_and_tails_begin_at_opposite_ends() -> None:
    """In one arena, in two, and where segments may take the first pages only: no gap is left."""
    whole = replace(SHAPE, windowed=frozenset())
    for cache in (cache_of(whole, 9), cache_of(SHAPE, 9, 12), cache_of(whole, 9, 6)):
        assert cache.take_run(2 * PAGE) is not None
        cache.take(3)
        assert cache.take_run(4 * PAGE) is not None
        assert all(arena.users.max() == 1 for arena in cache.arenas)


def test_nothing_is_taken_where_one_arena_lacks_a_run() -> None:
    cache = cache_of(SHAPE, 6, 12)
    assert cache.take_run(7 * PAGE) is None
    assert not any(arena.users.any() or arena.of_segments.any() for arena in cache.arenas)
