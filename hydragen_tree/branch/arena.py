"""The arena of a run: pages of keys and values, and places for running states, within a budget."""

from collections.abc import Mapping

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
    runs = sum(-(-segment.tokens.size // page) for segment in trie) + -(-joined_tokens // page)
    tails = (rows + 1) * (-(-max_tokens // page) + 1)
    segments = sum(1 for _ in trie) + (rows if joined_tokens else 0)
    shape, size = source.shape, source.shape.state_bytes
    places = state_places(size, budget, rows, segments, deepest(trie), captured)
    run_pages, n_pages = _pages(shape, trie, budget - places.total * size, page, runs, tails)
    if n_pages < 1:
        raise CapacityError(
            f"less than one page of {page} tokens ({page * shape.token_bytes} bytes)",
            setting="memory_bytes",
            value=f"{budget} bytes",
        )
    states = States(kinds, places, source.device)
    sizes = n_pages, page, source.kv_dtype, source.device
    return KVCache(shape, *sizes, fused, states, run_pages)


def _pages(
    shape: KVShape, trie: Trie, budget: int, page: int, runs: int, tails: int
) -> tuple[int, int]:
    """Pages of the arena that segments may take, and all of them.

    Where tails hold latent vectors, keys and values of segments have pages of their own: as many as
    are of use, if tails find room beside them; else half of the budget, and what any path needs.

    Args:
        shape: the model's sizes.
        trie: the prompts.
        budget: bytes.
        page: tokens of a page.
        runs: pages that segments can use at the most.
        tails: pages that tails can use at the most.
    """
    run_bytes, tail_bytes = page * shape.token_bytes, page * shape.tail_token_bytes
    if not shape.latent_dim:
        n_pages = min(runs + tails, budget // run_bytes)
        return n_pages, n_pages
    path = max(-(-(one.start + one.tokens.size) // page) + one.depth for one in trie)
    both = run_bytes + tail_bytes  # a page of a segment has room for a tail's, too
    beside = (budget - tails * tail_bytes) // both
    run_pages = min(runs, max(beside, budget // 2 // both, path), budget // both)
    left = budget - run_pages * both
    return run_pages, run_pages + min(tails, left // tail_bytes)


def deepest(trie: Trie) -> int:
    """Segments of a prompt at the most."""
    return max((segment.depth for segment in trie), default=0) + 1
