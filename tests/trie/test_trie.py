"""The trie gives back its prompts, numbers leaves depth-first, and stays small and quick."""

import resource
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CPU, CostModel
from hydragen_tree.trie.folding import MAX_COPIED_TOKENS, fold
from hydragen_tree.trie.trie import Trie

prompt_lists = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=20
)
SHAPE = KVShape(layers=2, q_heads=4, kv_heads=2, head_dim=16, itemsize=4)


def check_invariants(trie: Trie, prompts: list[list[int]]) -> None:
    for index, prompt in enumerate(prompts):
        assert trie.prompt(index).tolist() == prompt
    leaves = [tuple(prompt) for prompt in dict.fromkeys(map(tuple, prompts))]
    assert len(trie.leaf_segments) == len(leaves)
    for segment in trie:
        assert segment.tokens.size > 0
        assert len(segment.leaves) > 0
        if segment.parent >= 0:
            parent = trie.segments[segment.parent]
            assert parent.index < segment.index
            assert segment.index in parent.children
            assert segment.depth == parent.depth + 1
            assert segment.start == trie.end(parent.index)
            assert parent.leaves.start <= segment.leaves.start
            assert segment.leaves.stop <= parent.leaves.stop
        inside = [
            leaf for leaf, home in enumerate(trie.leaf_segments) if segment in trie.path(home)
        ]
        assert inside == list(segment.leaves)


@given(prompt_lists)
def test_children_and_leaves_come_in_the_order_of_the_prompts(prompts: list[list[int]]) -> None:
    trie = Trie.build(prompts)
    first = {leaf: prompt for prompt, leaf in reversed([*enumerate(trie.prompt_leaves.tolist())])}
    siblings = [segment.children for segment in trie]
    siblings.append(tuple(root.index for root in trie.roots))
    for indices in siblings:
        earliest = [min(first[leaf] for leaf in trie.segments[i].leaves) for i in indices]
        assert earliest == sorted(earliest)


@given(prompt_lists)
def test_gives_back_its_prompts(prompts: list[list[int]]) -> None:
    trie = Trie.build(prompts)
    check_invariants(trie, prompts)
    for segment in trie:  # radix: siblings differ in their first token, chains are merged
        firsts = [int(trie.segments[child].tokens[0]) for child in segment.children]
        assert len(set(firsts)) == len(firsts)
        assert len(segment.children) != 1 or segment.ends_prompt
    prefixes = {tuple(prompt[:n]) for prompt in prompts for n in range(1, len(prompt) + 1)}
    assert trie.n_tokens == len(prefixes)
    assert trie.n_prompt_tokens == sum(map(len, prompts))


@given(prompt_lists, st.sampled_from([0.0, 1e-9, 1e-8, 3e-8, 1.0]))
def test_folding_keeps_prompts_and_leaves(prompts: list[list[int]], item_s: float) -> None:
    trie = Trie.build(prompts)
    cost = CostModel("test", bandwidth=1e12, item_s=item_s)
    folded, folds = fold(trie, SHAPE, cost, rows_per_leaf=1)
    check_invariants(folded, prompts)
    assert folded.prompt_leaves.tolist() == trie.prompt_leaves.tolist()
    if item_s == 1.0:  # nothing pays: one segment a leaf
        assert len(folded.segments) == len(folded.leaf_segments)
    assert (folded.n_tokens > trie.n_tokens) == bool([f for f in folds if f.branches > 1])


def test_a_long_shared_root_is_kept_and_a_short_one_folded() -> None:
    shape = KVShape(layers=4, q_heads=32, kv_heads=32, head_dim=128, itemsize=2)
    long = Trie.build([[*range(500), 1000 + i] for i in range(8)])
    short = Trie.build([[1, 2, 1000 + i] for i in range(8)])
    assert fold(long, shape, CPU, rows_per_leaf=4)[1] == []
    (folded,) = fold(short, shape, CPU, rows_per_leaf=4)[1]
    assert (folded.n_tokens, folded.branches, folded.rows) == (2, 8, 32)
    assert folded.saved_s < folded.spent_s


@pytest.mark.parametrize(("prompts", "what"), [([], "no prompts"), ([[1], []], "prompt 1")])
def test_refuses_nothing_to_do(prompts: list[list[int]], what: str) -> None:
    with pytest.raises(InputError, match=what):
        Trie.build(prompts)


@given(st.integers(1, 50))
def test_a_chain_of_prefixes_is_as_deep_as_it_is_long(n: int) -> None:
    prompts = [list(range(length)) for length in range(1, n + 1)]
    trie = Trie.build(prompts)
    assert max(segment.depth for segment in trie) == n - 1


def nested(n: int, order: str, own_ends: bool) -> Iterator[Int32]:
    """Prompts along one spine, each a token longer, in some order; each may end in its own way."""
    rng = np.random.default_rng(0)
    spine = rng.integers(0, 32000, n, dtype=np.int32)
    lengths = {"rising": np.arange(1, n + 1), "falling": np.arange(n, 0, -1)}
    lengths["mixed"] = rng.permutation(n) + 1
    for length in lengths[order].tolist():
        yield np.append(spine[:length], np.int32(40000 + length)) if own_ends else spine[:length]


@pytest.mark.parametrize("n", [3000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("own_ends", [False, True])
@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_nested_prompts_are_built_and_folded_in_seconds(n: int, own_ends: bool, order: str) -> None:
    start = time.process_time()
    trie = Trie.build(nested(n, order, own_ends))
    folded, folds = fold(trie, SHAPE, CPU, rows_per_leaf=1)
    took = time.process_time() - start
    assert trie.n_tokens == n * (1 + own_ends)
    assert len(trie.leaf_segments) == len(folded.leaf_segments) == n
    assert folded.n_tokens <= MAX_COPIED_TOKENS + trie.n_tokens
    for index, prompt in zip(
        (0, n // 2), islice(nested(n, order, own_ends), 0, n, n // 2), strict=False
    ):
        assert np.array_equal(trie.prompt(index), prompt)
        assert np.array_equal(folded.prompt(index), prompt)
    assert len(folds) > 1000
    assert took < max(5, n / 2000)  # 50 s where there are 100,000, on a busy machine


def test_folding_stops_where_copies_would_fill_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydragen_tree.trie.folding.MAX_COPIED_TOKENS", 10)
    trie = Trie.build(nested(100, "rising", own_ends=False))
    folded, folds = fold(trie, SHAPE, CPU, rows_per_leaf=1)
    assert sum((each.branches - 1) * each.n_tokens for each in folds) == 10
    assert folded.n_tokens == 110
    check_invariants(folded, [prompt.tolist() for prompt in nested(100, "rising", own_ends=False)])


@pytest.mark.slow
def test_a_hundred_thousand_prompts_cost_their_distinct_tokens() -> None:
    rng = np.random.default_rng(0)
    root = rng.integers(0, 32000, 900, dtype=np.int32)

    def prompts():
        for _ in range(100_000):
            yield np.concatenate([root, rng.integers(0, 32000, 100, dtype=np.int32)])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    trie = Trie.build(prompts())
    took = time.perf_counter() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    distinct_bytes = 4 * trie.n_tokens
    print(f"\n100,000 prompts: {took:.1f} s, {grown / distinct_bytes:.1f} x the tokens' bytes")
    assert trie.n_tokens < 900 + 100_000 * 101
    assert grown < 5 * distinct_bytes  # sharing nothing would be 10 x, as int32
    assert took < 60


def test_segments_part_between_groups() -> None:
    """Common tokens behind the last whole group stay with each prompt."""
    root = list(range(20))
    prompts = [root[:8], [*root, 50], [*root, 60, 61], root[:8], [1, 2], root[:10]]
    trie = Trie.build(prompts, group=4)
    assert [trie.prompt(index).tolist() for index in range(len(prompts))] == prompts
    assert [segment.tokens.size for segment in trie] == [8, 12, 1, 2, 2, 2]
    assert all(segment.start % 4 == 0 for segment in trie)
