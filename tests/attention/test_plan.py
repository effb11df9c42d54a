"""Plans: what is wrong in one is named before anything is read; any depth becomes a forest."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import WIDTH, item_columns
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.tree_attention import tree_attention
from hydragen_tree.errors import InputError

PAGE, SLOTS = 4, 48
KERNELS_RUN = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = ["auto", "torch", "reference"]


def table(*rows: list[int]) -> Int32:
    return np.array(rows, np.int32).reshape(len(rows), -1)


ITEMS = table([0, 3, 0, 10, 0, 0], [0, 1, 12, 4, 0, 1], [1, 2, 16, 4, 0, 1])
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
    "pages of nothing": (with_tails(page_tokens=0), "page_tokens: expected at least 1, got 0"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_plan_is_named(name: str, backend: str) -> None:
    plan, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        attend(plan, backend)


def test_queries_and_keys_that_are_none_are_refused() -> None:
    whole, arena = torch.ones(3, 4, 32), torch.ones(2, SLOTS, 32)
    with pytest.raises(InputError, match="queries: expected fp32, fp16 or bf16"):
        tree_attention(whole.long(), arena, arena, PLAN)
    with pytest.raises(InputError, match="4 query heads are not a multiple of 0"):
        tree_attention(whole, arena[:0], arena[:0], PLAN)
    with pytest.raises(InputError, match="slot_count 10 of item 0"):
        tree_attention(whole, arena[:, :0], arena[:, :0], PLAN)


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
    items = np.zeros((n, WIDTH), np.int32)
    of = item_columns(items)
    of.query_count[:], of.slot_start[:], of.slot_count[:], of.level[:] = 1, range(n), 1, range(n)
    flat = table([0, 1, 0, n, 0, 0])
    found, dense = (attend(Plan(1, rows), backend, slots=n) for rows in (items, flat))
    torch.testing.assert_close(found, dense, atol=1e-5, rtol=1e-5)
