"""The arena of a run: pages of keys and values, and places for running states, within a budget."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.branch.budget import state_places
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.states import LayerKinds, States
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.trie import Trie


def make_arena(
    source: ModelSource,
    kinds: Mapping[int, LayerKinds],
    trie: Trie,
    budget: int,
    rows: int,
    max_tokens: int,
    page: int,
    fused: bool,
    captured: bool,
    joined_tokens: int = 0,
) -> KVCache:
    """Room for what a run can use at the most, within a budget.

    Args:
        source: the model.
        kinds: what its layers with running states keep.
        trie: the prompts, after folding.
        budget: bytes.
        rows: of the batch at the most.
        max_tokens: of a sample.
        page: tokens of a page.
        fused: Triton's kernels store keys and values.
        captured: a device takes the steps.
        joined_tokens: of prompts that come while the run is going; 0: all are known.

    Raises:
        CapacityError: less than one page fits, or not the states of one path.
    """
    shape, size, tail = source.shape, source.shape.state_bytes, -(-max_tokens // page) + 1
    segments = sum(1 for _ in trie) + (rows if joined_tokens else 0)
    places = state_places(size, budget, rows, segments, deepest(trie), captured)
    if joined_tokens:  # a prompt that comes late may part a segment where windows have no keys left
        shape = replace(shape, windowed=frozenset())
    given = page, -(-joined_tokens // page), tail, (rows + 1) * tail
    run_pages, n_pages = arena_pages(shape, trie, budget - places.total * size, *given)
    if n_pages < 1:
        raise CapacityError(
            f"less than one page of {page} tokens ({page * shape.token_bytes} bytes)",
            setting="memory_bytes",
            value=f"{budget} bytes",
        )
    if run_pages == n_pages:  # nothing to gain from two
        shape = replace(shape, windowed=frozenset())
    states = States(kinds, places, source.device)
    sizes = n_pages, page, source.kv_dtype, source.device
    return KVCache(shape, *sizes, fused, states, run_pages)


def arena_pages(
    shape: KVShape, trie: Trie, budget: int, page: int, joined: int, tail: int, tails: int
) -> tuple[int, int]:
    """Pages that segments may take, and pages that tails may take; see `KVCache`.

    Args:
        shape: the model's sizes.
        trie: the prompts.
        budget: bytes.
        page: tokens of a page.
        joined: pages of prompts that come later.
        tail: pages of a tail at the most.
        tails: pages of all tails at the most.
    """
    sizes = np.array([-(-segment.tokens.size // page) for segment in trie])
    runs = int(sizes.sum()) + joined
    path = max(-(-(one.start + one.tokens.size) // page) + one.depth for one in trie)
    if shape.latent_dim:
        return _beside_latents(shape, budget, page, runs, path, tails)
    most = runs + tails
    wanted = most
    if shape.windowed:
        seen = np.minimum(sizes, -(-shape.window_tokens // page) + 1)
        held, unseen = int(seen.sum()) + tails, _longest(trie, sizes - seen)
        # a path is whole while it is computed: before there are tails, or beside those of others
        needed = max(held, path + tail) if trie.leaf_segments.size == 1 else held + unseen
        wanted = min(most, max(needed, path + tail))
    return _beside_windows(shape, budget, page, most, wanted, path + tail)


def _longest(trie: Trie, sizes: NDArray[np.int64]) -> int:
    """The most that segments of one path have together; `[segments]` of each."""
    down = np.zeros(sizes.size + 1, np.int64)  # to each segment's end; the last: above roots
    for segment in trie:
        down[segment.index] = down[segment.parent] + sizes[segment.index]
    return int(down.max())


def _beside_latents(
    shape: KVShape, budget: int, page: int, runs: int, path: int, tails: int
) -> tuple[int, int]:
    """`arena_pages` where tails hold latent vectors: keys and values are those of segments alone.

    As many as are of use, if tails find room beside them; else half of the budget, and what any
    path needs.
    """
    run_bytes, tail_bytes = page * shape.token_bytes, page * shape.tail_token_bytes
    both = run_bytes + tail_bytes  # a page of a segment has room for a tail's, too
    beside = (budget - tails * tail_bytes) // both
    run_pages = min(runs, max(beside, budget // 2 // both, path), budget // both)
    left = budget - run_pages * both
    return run_pages, run_pages + min(tails, left // tail_bytes)


def _beside_windows(
    shape: KVShape, budget: int, page: int, most: int, wanted: int, least: int
) -> tuple[int, int]:
    """`arena_pages` where windowed layers have what tails may take, and others more for segments.

    Args:
        shape: see `arena_pages`.
        budget: likewise.
        page: likewise.
        most: pages that are of use to layers that see all.
        wanted: to windowed layers.
        least: that these need for any path, which is whole while it is computed, and its tail.
    """
    own_bytes = page * len(shape.windowed) * shape.layer_token_bytes
    rest_bytes = page * shape.token_bytes - own_bytes
    share = min(1.0, budget / (most * rest_bytes + wanted * own_bytes))
    n_pages = max(int(wanted * share), min(wanted, least))
    left = budget - n_pages * own_bytes
    run_pages = min(most, left // rest_bytes) if rest_bytes else most
    if wanted == most or left < 0 or run_pages < n_pages:  # one size for all
        run_pages = n_pages = min(most, budget // (own_bytes + rest_bytes))
    return run_pages, n_pages


def deepest(trie: Trie) -> int:
    """Segments of a prompt at the most."""
    return max((segment.depth for segment in trie), default=0) + 1
