"""A tree that prompts join and leave: what they share, in which order they are, what it costs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydragen_tree.branch import live_trie
from hydragen_tree.branch.live_trie import LiveTrie, Sharing
from hydragen_tree.branch.places import Places
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.trie import Trie

PAGE, LEAST, PAGES = 4, 3, 400
SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)


def residency(first: np.ndarray, sharing: Sharing) -> Residency:
    cache = KVCache(SHAPE, PAGES, PAGE, torch.float32, torch.device("cpu"))
    return Residency(Trie.build([first]), cache, sharing)


def depth_first(trie: LiveTrie) -> list[int]:
    """All segments as the table's parents have them, siblings by their places."""
    table = trie.table
    below: dict[int, list[int]] = {}
    for segment in sorted(trie.segments, key=lambda each: int(table.order[each])):
        below.setdefault(int(table.parent[segment]), []).append(segment)
    found, stack = [], below.get(-1, [])[::-1]
    while stack:
        found.append(stack.pop())
        stack += below.get(found[-1], [])[::-1]
    return found


def in_order(tree: Residency) -> list[int]:
    return sorted(tree.trie.segments, key=lambda each: int(tree.table.order[each]))


def check(tree: Residency, alive: dict[int, np.ndarray]) -> None:
    """Places are depth-first, all texts and counts are right."""
    trie, table, by_place = tree.trie, tree.table, in_order(tree)
    assert depth_first(trie) == by_place
    assert len({int(table.order[each]) for each in by_place}) == len(by_place)
    for leaf, tokens in alive.items():
        assert trie.leaf_tokens(leaf).tolist() == tokens.tolist()
        assert trie.end(int(trie.leaf_segments[leaf])) == tokens.size
    assert trie.n_tokens == sum(each.tokens.size for each in trie.segments.values())
    for segment in trie.segments:
        above = int(table.parent[segment])
        assert table.depth[segment] == (table.depth[above] + 1 if above >= 0 else 0)
        assert trie.segments[segment].start == (trie.end(above) if above >= 0 else 0)
    resident = np.flatnonzero(table.slot[: table.size] >= 0)
    slots = [np.arange(table.slot[s], table.slot[s] + table.n_tokens[s]) for s in resident.tolist()]
    assert (
        tree._cache.segment_pages
        == np.unique(np.concatenate([np.empty(0, int), *slots]) // PAGE).size
    )


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), group=st.sampled_from([1, 1, 4]), may_part=st.booleans())
def test_prompts_join_and_leave(seed: int, group: int, may_part: bool) -> None:
    rng = np.random.default_rng(seed)
    made = [rng.integers(0, 3, int(rng.integers(1, 30))).astype(np.int32)]
    tree = residency(made[0], Sharing(LEAST, 6, group, may_part))
    alive = {0: made[0]}
    for _ in range(25):
        base = made[int(rng.integers(0, len(made)))]
        own = rng.integers(0, 3, int(rng.integers(0, 12)))
        tokens = np.append(base[: int(rng.integers(0, base.size + 1))], own).astype(np.int32)
        if tokens.size:
            made.append(tokens)
            before, order = tree.trie.n_tokens, in_order(tree)
            (leaf,) = tree.join([tokens])
            assert [each for each in in_order(tree) if each in order] == order
            shared = tokens.size - (tree.trie.n_tokens - before)
            assert shared <= max(common_tokens(tokens, each) for each in made[:-1])
            alive[leaf] = tokens
        if rng.random() < 0.4:
            segments = tree.missing(int(rng.choice(list(alive))))
            assert tree.place(segments)
        if rng.random() < 0.4 and len(alive) > 1:
            gone = int(rng.choice(list(alive)))
            del alive[gone]
            tree.finish(gone)
        if rng.random() < 0.2:
            keep = [leaf for leaf in alive if rng.random() < 0.5]
            tree.evict_unused(tree.trie.leaf_segments[np.array(keep, int)].astype(np.int32))
        check(tree, alive)
    for leaf in alive:
        tree.finish(leaf)
    tree.evict_unused(np.empty(0, np.int32))
    assert not tree.trie.segments
    assert not tree.trie.n_tokens
    assert not tree._cache.segment_pages
    assert tree._cache.free_pages == PAGES


def common_tokens(a: np.ndarray, b: np.ndarray) -> int:
    size = min(a.size, b.size)
    differs = np.flatnonzero(a[:size] != b[:size])
    return int(differs[0]) if differs.size else size


def test_a_beginning_is_shared_whatever_else_begins_there() -> None:
    """Segments that are too short to be parted, and others that begin like them."""
    tree = residency(np.array([1, 2], np.int32), Sharing(LEAST, 6))
    texts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 7], [1, 2, 3, 4, 5, 6, 8], [1, 2, 9, 9, 9]]
    sizes = []
    for text in texts:
        before = tree.trie.n_tokens
        tree.join([np.array(text, np.int32)])
        sizes.append(tree.trie.n_tokens - before)
    # below [1, 2]: parted only after three tokens of a segment
    assert sizes == [4, 4, 1, 3]


@pytest.mark.parametrize("may_part", [True, False])
def test_the_next_prompt_costs_as_much_as_the_first(
    may_part: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens compared, and places given anew, of a stream whose prompts begin alike."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 500, 20)
    compared, spread = [0], [0]
    common_prefix, spread_anew = live_trie.common_prefix, Places._spread

    def counted(a: np.ndarray, b: np.ndarray) -> int:
        compared[0] += 1
        return common_prefix(a, b)

    def counted_places(self: Places) -> None:
        spread[0] += len(self._next)
        spread_anew(self)

    monkeypatch.setattr(live_trie, "common_prefix", counted)
    monkeypatch.setattr(Places, "_spread", counted_places)
    tree = residency(np.append(root, [1]).astype(np.int32), Sharing(LEAST, 6, 1, may_part))
    n = 3000
    for _ in range(n):
        tree.join([np.append(root, rng.integers(0, 500, 8)).astype(np.int32)])
    assert compared[0] <= n * live_trie._LOOKED_AT
    assert spread[0] <= 4 * n


def test_numbers_are_used_again_when_prompts_have_left() -> None:
    rng = np.random.default_rng(0)
    root = rng.integers(0, 500, 20)
    tree = residency(np.append(root, [1]).astype(np.int32), Sharing(LEAST, 6))
    waiting = [0]
    for _ in range(300):
        waiting += tree.join([np.append(root, rng.integers(0, 500, 8)).astype(np.int32)])
        assert tree.place(tree.missing(waiting[-1]))
        if len(waiting) > 5:
            tree.finish(waiting.pop(0))
            left = tree.trie.leaf_segments[waiting].astype(np.int32)
            tree.evict_unused(left)
    assert tree.table.size < 20
    assert len(tree.trie.segments) <= 7


def test_what_hangs_from_a_greater_number_leaves_with_it() -> None:
    """Numbers are given again: a segment's may be less than that of the one above it."""
    first, second = np.array([1, 2, 3, 4], np.int32), np.array([5, 6, 7, 8], np.int32)
    tree = residency(first, Sharing(LEAST, 6))
    (leaf,) = tree.join([second])
    for each in (0, leaf):
        assert tree.place(tree.missing(each))
    tree.finish(0)
    tree.evict_unused(tree.trie.leaf_segments[[leaf]])
    tree.finish(leaf)
    (longer,) = tree.join([np.append(second, [9, 9, 9]).astype(np.int32)])
    assert tree.trie.leaf_segments[longer] == 0 < tree.table.parent[0]
    assert tree.place(tree.missing(longer))
    tree.finish(longer)
    tree.evict_unused(np.empty(0, np.int32))
    assert not tree.trie.segments
    assert not tree._cache.segment_pages


def test_a_frozen_tail_leaves_with_the_one_below_it() -> None:
    tree = residency(np.array([1, 2, 3, 4], np.int32), Sharing(LEAST, 6))
    assert tree.place(tree.missing(0))

    def frozen(segment: int) -> int:
        pages = tree._cache.take(1)
        tail = tree.freeze(segment, pages, PAGE)
        tree._cache.release(pages)
        assert tail is not None
        return tail

    frozen(0)
    upper = frozen(0)
    tree.evict_unused(np.array([upper], np.int32))
    assert frozen(upper) < upper  # the number of the first
    tree.evict_unused(np.array([0], np.int32))
    assert tree._cache.segment_pages == 1
    assert not tree.table.is_tail[: tree.table.size].any()
    assert not tree.table.has_below(0)
