"""Tree attention against float64 dense attention, by relative norm."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hydragen_kernels import ordered_attention, reference
from hydragen_kernels.inputs import FP8
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.attention.tree_attention import tree_attention
from hydragen_tree.errors import InputError

PAGE = 4
ORDERED = [] if ordered_attention.why_unavailable() else ["ordered"]
KERNELS_RUN = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"


@dataclass
class Case:
    """A random ragged tree in a shuffled arena, and the slots each query sees."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    plan: Plan
    seen: list[list[int]]


def build_case(
    rng: np.random.Generator,
    *,
    prefill: bool = False,
    dtype: torch.dtype = torch.float32,
    kv_heads: int = 2,
    group: int = 2,
    head_dim: int = 16,
    longest: int = 12,
    sharpness: float = 1.0,
) -> Case:
    """Random trees: several roots, rows hanging from inner segments, tails of any length."""
    n_segments = int(rng.integers(1, 9))
    parent = [
        -1 if i == 0 or rng.random() < 0.2 else int(rng.integers(0, i)) for i in range(n_segments)
    ]
    children: dict[int, list[int]] = {i: [] for i in range(-1, n_segments)}
    for index, above in enumerate(parent):
        children[above].append(index)
    order: list[int] = []
    stack = children[-1][::-1]
    while stack:
        order.append(stack.pop())
        stack.extend(children[order[-1]][::-1])
    rename = {old: new for new, old in enumerate(order)}
    parents = np.array([rename.get(parent[old], -1) for old in order], np.int32)
    depth = np.zeros(n_segments, np.int32)
    for i, above in enumerate(parents):
        depth[i] = depth[above] + 1 if above >= 0 else 0
    n_tokens = rng.integers(1, longest, n_segments).astype(np.int32)
    table = SegmentTable(parents, depth, n_tokens)

    arena_pages = int(sum(-(-n // PAGE) for n in n_tokens)) + 60
    free = list(range(arena_pages))
    cursor = 0
    for i, n in enumerate(n_tokens):
        table.slot[i] = cursor * PAGE
        cursor += -(-int(n) // PAGE)
    free = [int(p) for p in rng.permutation(np.arange(cursor, arena_pages))]
    own = [
        list(range(s, s + n)) for s, n in zip(table.slot.tolist(), n_tokens.tolist(), strict=True)
    ]

    def path(segment: int) -> list[int]:
        return [] if segment < 0 else path(int(parents[segment])) + own[segment]

    seen: list[list[int]] = []
    tails = None
    if prefill:
        # the new tokens of all segments of the deepest level
        new = np.flatnonzero(depth == depth.max())
        items = table.path_items(parents[new], n_tokens[new])
        first = 0
        extra = []
        for segment in new:
            n = int(n_tokens[segment])
            slot, level = int(table.slot[segment]), int(depth.max())
            extra.append(Item(first, n, slot, n, causal=1, level=level))
            seen += [path(int(parents[segment])) + own[segment][: i + 1] for i in range(n)]
            first += n
        items = np.concatenate([items, item_table(extra)])
    else:
        rows = np.sort(
            rng.integers(-1 if rng.random() < 0.2 else 0, n_segments, int(rng.integers(1, 10)))
        )
        rows = rows.astype(np.int32)
        items = table.path_items(rows, np.ones_like(rows))
        lengths = rng.integers(1, 3 * PAGE + 1, rows.size).astype(np.int32)
        pages = np.full((rows.size, 4), -1, np.int32)
        for row, length in enumerate(lengths):
            for p in range(-(-int(length) // PAGE)):
                pages[row, p] = free.pop()
            slots = [int(pages[row, t // PAGE]) * PAGE + t % PAGE for t in range(length)]
            seen.append(path(int(rows[row])) + slots)
        tails = Tails(pages, lengths, PAGE)

    def random(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)

    queries = random(len(seen), kv_heads * group, head_dim) * sharpness
    keys, values = random(2, kv_heads, arena_pages * PAGE, head_dim)
    return Case(queries, keys, values, Plan(len(seen), items, tails), seen)


def dense(
    case: Case, dtype: torch.dtype, softcap: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """Attention of each query alone over a gathered copy of all its keys."""
    group = case.queries.shape[1] // case.keys.shape[0]
    rows = []
    for query, slots in zip(case.queries.to(dtype), case.seen, strict=True):
        keys = case.keys[:, slots].to(dtype).repeat_interleave(group, 0)
        values = case.values[:, slots].to(dtype).repeat_interleave(group, 0)
        scores = (keys @ query[:, :, None])[..., 0] * query.shape[-1] ** -0.5
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(dtype)[:, None]], 1)
            values = torch.cat([values, torch.zeros_like(values[:, :1])], 1)
        rows.append((torch.softmax(scores, -1)[:, None] @ values)[:, 0])
    return torch.stack(rows)


def error(out: Tensor, truth: Tensor) -> float:
    return float((out.double() - truth).norm() / truth.norm())


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from(["torch", "reference", *ORDERED]),
    st.sampled_from([(1, 1), (2, 2), (1, 16), (3, 1)]),
)
def test_equals_dense_attention(
    seed: int, prefill: bool, backend: str, heads: tuple[int, int]
) -> None:
    case = build_case(
        np.random.default_rng(seed), prefill=prefill, kv_heads=heads[0], group=heads[1]
    )
    out = tree_attention(case.queries, case.keys, case.values, case.plan, backend=backend)
    truth = dense(case, torch.float64)
    assert error(out, truth) <= 2 * error(dense(case, torch.float32), truth) + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("sharpness", [1.0, 12.0])
def test_in_each_dtype_no_worse_than_twice_dense(
    dtype: torch.dtype, head_dim: int, prefill: bool, sharpness: float
) -> None:
    rng = np.random.default_rng(head_dim)
    ours, theirs = 0.0, 0.0
    for _ in range(4):
        case = build_case(
            rng, prefill=prefill, dtype=dtype, head_dim=head_dim, longest=90, sharpness=sharpness
        )
        truth = dense(case, torch.float64)
        ours += error(tree_attention(case.queries, case.keys, case.values, case.plan), truth)
        theirs += error(dense(case, dtype), truth)
    assert ours <= 2 * theirs


@pytest.mark.parametrize("backend", ["torch", "reference", *ORDERED])
@pytest.mark.parametrize("prefill", [False, True])
def test_softcap_and_sinks(backend: str, prefill: bool) -> None:
    case = build_case(np.random.default_rng(7), prefill=prefill, sharpness=6.0)
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0])
    out = tree_attention(
        case.queries, case.keys, case.values, case.plan, softcap=2.0, sinks=sinks, backend=backend
    )
    assert error(out, dense(case, torch.float64, softcap=2.0, sinks=sinks)) < 1e-6


def in_fp8(case: Case) -> Case:
    keys, values = (reference.narrow(arena, FP8) for arena in (case.keys, case.values))
    return replace(case, keys=keys, values=values)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("prefill", [False, True])
def test_fp8_keys_and_values_are_exact_but_for_their_rounding(
    prefill: bool, backend: str, softcap: float | None
) -> None:
    case = build_case(np.random.default_rng(5), prefill=prefill, head_dim=64, longest=90)
    rounded = in_fp8(case)
    out = tree_attention(
        case.queries, rounded.keys, rounded.values, case.plan, softcap=softcap, backend=backend
    )
    assert error(out, dense(rounded, torch.float64, softcap)) < 1e-6
    assert 0.01 < error(out, dense(case, torch.float64, softcap)) < 0.05


def test_flash_attention_refuses_fp8() -> None:
    case = in_fp8(build_case(np.random.default_rng(1)))
    with pytest.raises(InputError, match="attention flash: reads no fp8"):
        tree_attention(case.queries, case.keys, case.values, case.plan, backend="flash")


def test_strided_arena_and_queries() -> None:
    case = build_case(np.random.default_rng(3))
    truth = dense(case, torch.float64)
    wide = torch.full((*case.keys.shape[:2], 2 * case.keys.shape[2]), torch.nan)
    wide[..., : case.keys.shape[2]] = case.keys
    keys = wide[..., : case.keys.shape[2]]
    queries = case.queries.transpose(0, 1).contiguous().transpose(0, 1)
    assert error(tree_attention(queries, keys, case.values, case.plan), truth) < 1e-6


partials = st.integers(0, 2**32).map(
    lambda seed: reference.Partial(
        torch.from_numpy(np.random.default_rng(seed).standard_normal((3, 2, 4))),
        torch.from_numpy(np.random.default_rng(seed + 1).standard_normal((3, 2)) * 30),
    )
)


@given(partials, partials, partials)
def test_merge_is_associative_and_commutative_with_identity(
    a: reference.Partial, b: reference.Partial, c: reference.Partial
) -> None:
    merge, none = reference.merge, reference.empty(a.out)
    for left, right in [
        (merge(merge(a, b), c), merge(a, merge(b, c))),
        (merge(a, b), merge(b, a)),
        (merge(a, none), a),
        (merge(none, none), none),
    ]:
        torch.testing.assert_close(left.out, right.out)
        torch.testing.assert_close(left.lse, right.lse)


def test_wrong_shapes_are_named() -> None:
    case = build_case(np.random.default_rng(1))
    with pytest.raises(InputError, match="queries: expected"):
        tree_attention(case.queries[:0], case.keys, case.values, case.plan)
    with pytest.raises(InputError, match="not a multiple"):
        tree_attention(case.queries[:, :3], case.keys, case.values, case.plan)
    with pytest.raises(InputError, match="attention fast: expected one of auto, native"):
        tree_attention(case.queries, case.keys, case.values, case.plan, backend="fast")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flash_equals_dense_attention(seed: int, prefill: bool, group: int) -> None:
    case = build_case(np.random.default_rng(seed), prefill=prefill, group=group, head_dim=64)
    moved = [x.to("cuda", torch.float16) for x in (case.queries, case.keys, case.values)]
    out = tree_attention(*moved, case.plan, backend="flash").cpu()
    ours = tree_attention(*moved, case.plan, backend="triton").cpu()
    truth = dense(case, torch.float64)
    assert error(out, truth) < max(2 * error(ours, truth), 1e-3)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.skipif(not KERNELS_RUN, reason="needs CUDA or Triton's interpreter")
def test_fused_kernels_equal_dense_attention(seed: int, prefill: bool, group: int) -> None:
    case = build_case(np.random.default_rng(seed), prefill=prefill, group=group, head_dim=64)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    moved = [x.to(place) for x in (case.queries, case.keys, case.values)]
    options = {"softcap": 2.0, "sinks": torch.linspace(-1, 1, 2 * group, device=place)}
    for extra in ({}, options):
        out = tree_attention(*moved, case.plan, backend="triton", **extra).cpu()
        sinks = extra.get("sinks")
        truth = dense(
            case, torch.float64, extra.get("softcap"), None if sinks is None else sinks.cpu()
        )
        assert error(out, truth) < 1e-5


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.skipif(not KERNELS_RUN, reason="needs CUDA or Triton's interpreter")
def test_fused_kernels_read_fp8(prefill: bool, group: int) -> None:
    rng = np.random.default_rng(3)
    case = in_fp8(build_case(rng, prefill=prefill, group=group, head_dim=64))
    place = "cuda" if torch.cuda.is_available() else "cpu"
    moved = [x.to(place) for x in (case.queries, case.keys, case.values)]
    out = tree_attention(*moved, case.plan, backend="triton").cpu()
    assert error(out, dense(case, torch.float64)) < 1e-5
