"""Plans: what is wrong in one is named before anything is read; any depth becomes a forest."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import WIDTH, Item, item_columns, item_table
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.tree_attention import tree_attention
from hydragen_tree.errors import InputError

PAGE, SLOTS = 4, 48
KERNELS_RUN = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = ["auto", "torch", "reference"]


def table(*rows: list[int]) -> Int32:
    return np.array(rows, np.int32).reshape(len(rows), -1)


def items(*rows: list[int]) -> Int32:
    return item_table([Item(*row) for row in rows])


ITEMS = items([0, 3, 0, 10, 0, 0], [0, 1, 12, 4, 0, 1], [1, 2, 16, 4, 0, 1])
TAILS = Tails(table([6, 7], [8, -1], [9, 10]), np.array([5, 4, 8], np.int32), PAGE)
PLAN = Plan(3, ITEMS, TAILS)


def attend(plan: Plan, backend: str = "auto", slots: int = SLOTS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    queries = torch.randn(plan.n_queries, 4, 32, generator=generator)
    keys, values = torch.randn(2, 2, slots, 32, generator=generator)
    return tree_attention(queries, keys, values, plan, backend=backend)


def with_item(row: int, field: str, value: int) -> Plan:
    items = ITEMS.copy()
    getattr(item_columns(items), field)[row] = value
    return replace(PLAN, items=items)


def with_tails(**changes: Any) -> Plan:
    return replace(PLAN, tails=replace(TAILS, **changes))


WRONG = {
    "a slot below 0": (with_item(1, "slot_start", -1), "items: slot_start -1 of item 1"),
    "a slot beyond the arena": (with_item(1, "slot_start", 45), "items: slot_count 4 of item 1"),
    "no end of slots": (
        with_item(1, "slot_count", 2**31 - 1),
        "items: slot_count 2147483647 of item 1",
    ),
    "slots below 0": (with_item(1, "slot_count", -3), "items: slot_count -3 of item 1"),
    "a query below 0": (with_item(0, "query_start", -1), "items: query_start -1 of item 0"),
    "queries beyond the step": (with_item(2, "query_count", 3), "items: query_count 3 of item 2"),
    "a causal item of other sizes": (with_item(0, "causal", 1), "items: causal 1 of item 0"),
    "causal neither 0 nor 1": (with_item(0, "causal", 7), "items: causal 7 of item 0"),
    "levels not ascending": (replace(PLAN, items=ITEMS[::-1]), "items: level 0 of item 2"),
    "a level below 0": (with_item(0, "level", -1), "items: level -1 of item 0"),
    "a gap below 0": (with_item(1, "gap", -2), "items: gap -2 of item 1"),
    "overlapping queries": (with_item(2, "query_start", 0), "of the same level"),
    "a column too few": (
        replace(PLAN, items=ITEMS[:, :-1]),
        rf"items: expected int32 \[any, {WIDTH}\]",
    ),
    "int64 items": (replace(PLAN, items=ITEMS.astype(np.int64)), "items: expected int32"),
    "int64 pages": (with_tails(pages=TAILS.pages.astype(np.int64)), "pages: expected int32"),
    "int64 lengths": (with_tails(lengths=TAILS.lengths.astype(np.int64)), "lengths: expected int"),
    "too few rows of pages": (with_tails(pages=TAILS.pages[:2]), r"pages: expected int32 \[3, any"),
    "a page that is not there": (
        with_tails(pages=table([6, 7], [12, -1], [9, 10])),
        "pages: 12 of row 1: expected 0 to 11",
    ),
    "a page of nobody's that is read": (
        with_tails(pages=table([6, -1], [8, -1], [9, 10])),
        "pages: -1 of row 0",
    ),
    "a tail longer than its pages": (
        with_tails(lengths=np.array([5, 4, 9], np.int32)),
        "lengths: 9 of row 2: expected 0 to 8",
    ),
    "a tail below 0": (with_tails(lengths=np.array([-1, 4, 8], np.int32)), "lengths: -1 of row 0"),
    "pages of nothing": (with_tails(page_tokens=0), "page_tokens: expected 1 to 48, .* got 0"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_plan_is_named(name: str, backend: str) -> None:
    plan, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        attend(plan, backend)


QUERIES, ARENA = torch.ones(3, 4, 32), torch.ones(2, SLOTS, 32)
WRONG_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "queries of integers": ({"queries": QUERIES.long()}, "queries: expected fp32, fp16 or bf16"),
    "queries in 64 bits": ({"queries": QUERIES.double()}, "queries: expected fp32, fp16 or bf16"),
    "queries of one head": ({"queries": QUERIES[0]}, r"queries: expected \[3, q_heads, head_dim\]"),
    "no query heads": ({"queries": QUERIES[:, :0]}, r"queries: .* got \[3, 0, 32\]"),
    "heads of nothing": ({"queries": QUERIES[..., :0]}, r"queries: .* got \[3, 4, 0\]"),
    "queries that are sparse": ({"queries": QUERIES.to_sparse()}, "queries: expected plain memory"),
    "three query heads": ({"queries": QUERIES[:, :3]}, "3 query heads are not a multiple of 2"),
    "no heads of keys": (
        {"keys": ARENA[:0], "values": ARENA[:0]},
        "4 query heads are not a multiple of 0",
    ),
    "no slots": ({"keys": ARENA[:, :0], "values": ARENA[:, :0]}, "slot_count 10 of item 0"),
    "fewer values": ({"values": ARENA[:, 1:]}, "keys, values: expected two of"),
    "keys of another type": ({"keys": ARENA.bfloat16()}, "keys: expected torch.float32"),
    "values of another type": ({"values": ARENA.half()}, "values: expected torch.float32"),
    "one of them in 8 bits": (
        {"values": ARENA.to(torch.float8_e4m3fn)},
        "values: expected torch.float32",
    ),
    "keys elsewhere": ({"keys": ARENA.to("meta")}, "keys: expected them on cpu, got meta"),
    "values elsewhere": ({"values": ARENA.to("meta")}, "values: expected them on cpu, got meta"),
    "no scale": ({"scale": float("nan")}, "scale: expected a positive number, got nan"),
    "a cap of nothing": ({"softcap": 0.0}, "softcap: expected a positive number, got 0.0"),
    "too few sinks": ({"sinks": torch.zeros(1)}, r"sinks: expected floats \[4\] on cpu"),
    "sinks elsewhere": ({"sinks": torch.zeros(4, device="meta")}, "sinks: .* on meta"),
    "a plan of lists": ({"plan": replace(PLAN, items=ITEMS.tolist())}, "items: expected a numpy"),
    "pages of torch": (
        {"plan": with_tails(pages=torch.from_numpy(TAILS.pages))},
        "pages: expected a numpy array",
    ),
    "pages beyond all memory": (
        {"plan": with_tails(page_tokens=2**40)},
        "page_tokens: expected 1 to 48",
    ),
}


@pytest.mark.parametrize("backend", [*BACKENDS, "native"])
@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_tensors_that_attention_cannot_take_are_named(name: str, backend: str) -> None:
    changes, message = WRONG_TENSORS[name]
    given = {"queries": QUERIES, "keys": ARENA, "values": ARENA, "plan": PLAN, **changes}
    with pytest.raises(ValueError, match=message) as refusal:
        tree_attention(**given, backend=backend)
    assert isinstance(refusal.value, InputError)


def strided(x: torch.Tensor, *order: int) -> torch.Tensor:
    """The same numbers, with the dimensions in another order in memory."""
    back = sorted(range(3), key=order.__getitem__)
    return x.permute(order).contiguous().permute(back)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)], ids=str)
@pytest.mark.parametrize("which", ["queries", "keys", "values"])
@pytest.mark.parametrize("plan", [PLAN, Plan(3, items([0, 3, 0, 3, 1, 0]))], ids=["decode", "own"])
def test_memory_may_be_in_any_order(
    plan: Plan, which: str, order: tuple[int, int, int], backend: str
) -> None:
    tensors = dict(zip(("keys", "values"), torch.randn(2, 2, SLOTS, 32), strict=True))
    tensors["queries"] = torch.randn(3, 4, 32)
    expected = tree_attention(**tensors, plan=plan, backend="reference")
    tensors[which] = strided(tensors[which], *order)
    found = tree_attention(**tensors, plan=plan, backend=backend)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


UNUSUAL = {
    "an item without queries": replace(PLAN, items=items(*ITEMS[:1].tolist(), [1, 0, 12, 4, 0, 1])),
    "items without keys": replace(PLAN, items=items([0, 3, 5, 0, 0, 0], [0, 1, 0, 0, 0, 1])),
    "a causal item of nothing": Plan(3, items([0, 0, 0, 0, 1, 0], [0, 3, 0, 9, 0, 1])),
    "nothing": Plan(3, items([0, 0, 0, 0, 0, 0])),
    "tails alone": replace(PLAN, items=ITEMS[:0]),
    "a root for some": Plan(3, items([1, 1, 0, 10, 0, 0], [0, 1, 12, 4, 0, 1])),
    "levels far apart": Plan(3, items([0, 3, 0, 10, 0, 7], [0, 1, 12, 4, 0, 900])),
    "no pages": replace(PLAN, tails=Tails(ITEMS[:, :0], np.zeros(3, np.int32), PAGE)),
    "numbers of numpy": with_tails(page_tokens=np.int32(PAGE)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("slots", [SLOTS, SLOTS + 3])  # the last page of an arena may be cut off
def test_plans_that_are_unusual_but_right(name: str, slots: int, backend: str) -> None:
    plan = UNUSUAL[name]
    expected = attend(plan, "reference", slots)
    assert expected.isfinite().all()
    torch.testing.assert_close(attend(plan, backend, slots), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", [*BACKENDS, "triton"])
def test_what_lies_in_unused_slots_reaches_no_row(backend: str) -> None:
    if backend == "triton" and not KERNELS_RUN:
        pytest.skip("needs CUDA or Triton's interpreter")
    place = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    queries = torch.randn(3, 4, 32, device=place)
    keys, values = torch.randn(2, 2, SLOTS, 32, device=place)
    clean = tree_attention(queries, keys, values, PLAN, backend=backend)
    read = {*range(10), *range(12, 20), *range(24, 29), *range(32, 36), *range(36, 44)}
    others = sorted(set(range(SLOTS)) - read)
    keys[:, others] = values[:, others] = torch.nan
    found = tree_attention(queries, keys, values, PLAN, backend=backend)
    torch.testing.assert_close(found, clean)


def test_any_depth_and_any_width_become_a_forest() -> None:
    n = 100_000
    nested = np.zeros((n, WIDTH), np.int32)
    of = item_columns(nested)
    of.query_count[:], of.level[:] = 1, np.arange(n)
    (node,) = Plan(1, nested).nodes()
    depth = 1
    while node.children:
        (node,) = node.children
        depth += 1
    assert depth == n
    wide = np.zeros((n, WIDTH), np.int32)
    of = item_columns(wide)
    of.query_start[:], of.query_count[:] = np.arange(n), 1
    roots = Plan(n, wide).nodes()
    assert [root.query_start for root in roots] == list(range(n))


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_takes_any_depth(backend: str) -> None:
    """One query below thousands of nested segments of one slot each: dense attention over all."""
    n = 5_000
    deep = np.zeros((n, WIDTH), np.int32)
    of = item_columns(deep)
    of.query_count[:], of.slot_start[:], of.slot_count[:], of.level[:] = 1, range(n), 1, range(n)
    flat = items([0, 1, 0, n, 0, 0])
    found, dense = (attend(Plan(1, rows), backend, slots=n) for rows in (deep, flat))
    torch.testing.assert_close(found, dense, atol=1e-5, rtol=1e-5)
