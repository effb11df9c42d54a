"""The arena of a run: pages of keys and values, and places for running states, within a budget."""

from collections.abc import Mapping

from hydragen_tree.branch.budget import state_places
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.states import LayerKinds, States
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
    tail = -(-max_tokens // page) + 1
    useful = sum(-(-segment.tokens.size // page) for segment in trie) + (rows + 1) * tail
    useful += -(-joined_tokens // page)
    segments = sum(1 for _ in trie) + (rows if joined_tokens else 0)
    page_bytes, size = page * source.shape.token_bytes, source.shape.state_bytes
    places = state_places(size, budget, rows, segments, deepest(trie), captured)
    n_pages = min(useful, (budget - places.total * size) // page_bytes)
    if n_pages < 1:
        raise CapacityError(
            f"less than one page of {page} tokens ({page_bytes} bytes)",
            setting="memory_bytes",
            value=f"{budget} bytes",
        )
    states = States(kinds, places, source.device)
    return KVCache(source.shape, n_pages, page, source.kv_dtype, source.device, fused, states)


def deepest(trie: Trie) -> int:
    """Segments of a prompt at the most."""
    return max((segment.depth for segment in trie), default=0) + 1
