"""The C form of a decode step's attention, against float64, in every width of vectors."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hydragen_kernels import native
from hydragen_kernels.items import Item, item_rows, item_table
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.table import choose
from hydragen_tree.attention.tree_attention import tree_attention
from hydragen_tree.errors import InputError

PAGE = 4
CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(native.why_unavailable() is not None, reason="no C compiler")
WIDTHS = {"as it is": ()}
if platform.machine() == "x86_64":
    WIDTHS |= {"8 lanes": ("-mno-avx512f",), "4 lanes": ("-mno-avx",)}


@dataclass
class Case:
    """Rows, the runs of slots that each meets, and its tail."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    plan: Plan

    def error(self, scale: float | None = None, sinks: Tensor | None = None) -> float:
        """Relative to float64 over each row's own keys."""
        out = tree_attention(
            *(self.queries, self.keys, self.values, self.plan),
            scale=scale,
            sinks=sinks,
            backend="native",
        )
        truth = self.truth(self.queries.shape[2] ** -0.5 if scale is None else scale, sinks)
        return float((out.double() - truth).norm() / truth.norm().clamp(min=1e-30))

    def truth(self, scale: float, sinks: Tensor | None) -> Tensor:
        rows, q_heads, head_dim = self.queries.shape
        out = torch.zeros(rows, q_heads, head_dim, dtype=torch.float64)
        head = torch.arange(q_heads) // (q_heads // self.keys.shape[0])
        for row in range(rows):
            slots = self.seen(row)
            keys, values = self.keys[head][:, slots].double(), self.values[head][:, slots].double()
            scores = torch.einsum("hd,htd->ht", self.queries[row].double(), keys) * scale
            if sinks is not None:
                scores = torch.cat([scores, sinks.double()[:, None]], 1)
            weights = scores.softmax(-1)[:, : len(slots)]
            out[row] = torch.einsum("ht,htd->hd", weights, values)
        return out

    def seen(self, row: int) -> list[int]:
        slots: list[int] = []
        for item in item_rows(self.plan.items):
            if item.query_start <= row < item.query_stop:
                slots += range(item.slot_start, item.slot_stop)
        tails = self.plan.tails
        if tails is not None:
            for token in range(int(tails.lengths[row])):
                slots.append(int(tails.pages[row, token // PAGE]) * PAGE + token % PAGE)
        return slots


def build(
    rows: int,
    q_heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    *,
    cuts: tuple[tuple[int, ...], ...] = ((),),
    segment: int = 70,
    tail: int = 9,
    sharpness: float = 1.0,
) -> Case:
    """A level for each of `cuts`, whose segments begin at these rows; 0 tokens leave one out."""
    rng = np.random.default_rng(rows * 1000 + head_dim)
    items, slot = [], 0
    for level, inner in enumerate(cuts):
        edges = [0, *(cut for cut in inner if cut < rows), rows]
        for start, stop in pairwise(edges):
            n = int(rng.integers(0 if level else 1, segment))
            if n:
                items.append(Item(start, stop - start, slot, n, causal=0, level=level))
            slot += n
    first = -(-slot // PAGE)
    width = max(1, -(-tail // PAGE))
    pages = (first + rng.permutation(rows * width)).astype(np.int32).reshape(rows, width)
    lengths = rng.integers(0, tail + 1, rows).astype(np.int32)
    slots = (first + rows * width) * PAGE

    def random(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).float()

    return Case(
        random(rows, q_heads, head_dim) * sharpness,
        random(kv_heads, slots, head_dim),
        random(kv_heads, slots, head_dim),
        Plan(rows, item_table(items), Tails(pages, lengths, PAGE)),
    )


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library compiled for wide, middling and narrow vectors, as far as this CPU has them."""
    built = native._build(WIDTHS[request.param])
    assert isinstance(built, ctypes.CDLL), built
    monkeypatch.setattr(native, "_library", lambda: built)


TREES: dict[str, Callable[[], Case]] = {
    "one row": lambda: build(1),
    "one query": lambda: build(1, 1, 1),
    "a tile and a query": lambda: build(65, 1, 1),
    "two rows of one head": lambda: build(2, 1, 1),
    "a tile and a bit": lambda: build(33, 8, 4),
    "many rows, long": lambda: build(150, segment=400, tail=70),
    "no segments": lambda: build(40, cuts=()),
    "ragged": lambda: build(90, cuts=((), (3, 4, 40, 88), (1, 2, 3, 20, 41, 42, 43, 60, 89))),
    "forest": lambda: build(50, cuts=((7, 20, 21), (1, 8, 22, 23, 24, 49))),
    "a row a segment": lambda: build(30, cuts=((), tuple(range(1, 30)))),
    "many query heads": lambda: build(5, 71, 1, 64),
    "no groups": lambda: build(70, 6, 6, 64),
    "head size 16": lambda: build(20, head_dim=16),
    "head size 48": lambda: build(20, head_dim=48),
    "head size 128": lambda: build(40, 8, 2, 128),
    "head size 256": lambda: build(20, 4, 1, 256),
    "sharp": lambda: build(60, segment=300, sharpness=40.0),
}


@needs_compiler
@pytest.mark.parametrize("tree", TREES)
def test_equals_float64(tree: str, width: None) -> None:
    case = TREES[tree]()
    assert case.error() < 3e-6
    sinks = torch.linspace(-2, 4, case.queries.shape[1])
    assert case.error(scale=0.3, sinks=sinks) < 6e-6


@needs_compiler
@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("n", [16_384, 262_144])
def test_long_sums_are_as_exact_as_dense_ones(rows: int, n: int, width: None) -> None:
    rng = torch.Generator().manual_seed(n)
    queries = torch.randn(rows, 2, 32, generator=rng)
    keys = torch.randn(2, n, 32, generator=rng)
    values = torch.randn(2, n, 32, generator=rng) + 1.0  # a mean that lasts, so that sums grow
    segment, tail = n // 2 // PAGE * PAGE, n - n // 2 // PAGE * PAGE
    items = item_table([Item(0, rows, 0, segment, causal=0, level=0)])
    pages = np.tile(np.arange(segment // PAGE, -(-n // PAGE), dtype=np.int32), (rows, 1))
    plan = Plan(rows, items, Tails(pages, np.full(rows, tail, np.int32), PAGE))
    out = tree_attention(queries, keys, values, plan, backend="native").double()
    truth, dense = (
        dense_attention(*(x.to(kind) for x in (queries, keys, values))).double()
        for kind in (torch.float64, torch.float32)
    )
    assert (out - truth).norm() <= 2 * (dense - truth).norm()


def dense_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries.transpose(0, 1) @ keys.mT * queries.shape[2] ** -0.5
    return (scores.softmax(-1) @ values).transpose(0, 1)


@needs_compiler
def test_maxima_that_grow_and_scores_far_apart() -> None:
    case = build(40, segment=300)
    case.keys *= torch.linspace(0.1, 60, case.keys.shape[1])[None, :, None]
    case.queries[0] = 0.0
    assert case.error() < 1e-5


@needs_compiler
def test_scores_far_below_zero() -> None:
    case = build(40, tail=0)
    case.queries = case.queries.abs() + 0.5
    case.keys = -(torch.rand_like(case.keys) + torch.linspace(40, 60, case.keys.shape[1])[:, None])
    assert case.error() < 1e-4  # scores near -500, rounded


@needs_compiler
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("score", [1.0, 90.0])
def test_large_scores_are_as_exact_as_dense_ones(rows: int, score: float, width: None) -> None:
    rng = torch.Generator().manual_seed(rows)
    queries = torch.randn(rows, 600, 64, generator=rng) * score
    keys, values = torch.randn(2, 600, 128, 64, generator=rng)
    items = item_table([Item(0, rows, 0, 64, causal=0, level=0)])
    pages = np.tile(np.arange(64 // PAGE, 128 // PAGE, dtype=np.int32), (rows, 1))
    plan = Plan(rows, items, Tails(pages, np.full(rows, 64, np.int32), PAGE))
    truth = dense_attention(queries.double(), keys.double(), values.double())
    out = tree_attention(queries, keys, values, plan, backend="native")
    dense = dense_attention(queries, keys, values)
    assert (out - truth).norm() <= 1.4 * (dense - truth).norm()


@pytest.mark.parametrize("backend", ["reference", "torch", "native", "ordered"])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("score", [2.0**30, 2.0**101, 2.0**127])
def test_finite_scores_however_low_are_scores(score: float, rows: int, backend: str) -> None:
    if backend in ("native", "ordered") and native.why_unavailable() is not None:
        pytest.skip("no C compiler")
    queries = torch.ones(rows, 2, 32)
    keys = torch.full((2, 24, 32), -score / 32)
    keys[:, 10:] *= 1.25
    values = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(rows))
    items = item_table([Item(0, rows, 0, 16, causal=0, level=0)])
    pages = np.tile(np.array([4, 5], np.int32), (rows, 1))
    plan = Plan(rows, items, Tails(pages, np.full(rows, 8, np.int32), PAGE))
    found = tree_attention(queries, keys, values, plan, scale=1.0, backend=backend)
    dense = ((queries.transpose(0, 1) @ keys.mT).softmax(-1) @ values).transpose(0, 1)
    torch.testing.assert_close(found, dense)


@needs_compiler
def test_a_row_that_meets_nothing_is_zero() -> None:
    case = build(6)
    assert case.plan.tails is not None
    case.plan.tails.lengths[2:4] = 0
    items = item_table([Item(0, 2, 0, 5, causal=0, level=0)])
    tables = native.DecodeTables(items, case.plan.tails.pages, case.plan.tails.lengths, PAGE)
    out, lse = tables.attend(case.queries, case.keys, case.values, scale=1.0)
    assert not out[2:4].any()
    assert torch.isneginf(lse[2:4]).all()
    assert lse[:2].isfinite().all()


@needs_compiler
def test_without_tails_and_with_strides() -> None:
    case = build(50)
    case.plan = Plan(50, case.plan.items, None)
    case.queries = case.queries.transpose(0, 1).contiguous().transpose(0, 1)
    wide = torch.zeros(2, 3 + case.keys.shape[1], 32)
    wide[:, 3:] = case.keys
    case.keys = wide[:, 3:]
    assert case.error() < 3e-6


@needs_compiler
def test_rows_of_a_tile_do_not_touch_each_other() -> None:
    case = build(40)
    whole = tree_attention(case.queries, case.keys, case.values, case.plan, backend="native")
    case.queries[7] = torch.nan
    broken = tree_attention(case.queries, case.keys, case.values, case.plan, backend="native")
    others = [row for row in range(40) if row != 7]
    assert broken[7].isnan().all()
    assert torch.equal(broken[others], whole[others])


@needs_compiler
def test_any_number_of_threads_gives_the_same(width: None) -> None:
    case, threads = build(150, cuts=((), (30, 31, 99))), torch.get_num_threads()
    results: list[Tensor] = []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            results.append(tree_attention(case.queries, case.keys, case.values, case.plan))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@needs_compiler
def test_gradients_and_prefill_go_to_torch() -> None:
    whole = build(20)
    whole.queries.requires_grad_()
    out = tree_attention(whole.queries, whole.keys, whole.values, whole.plan, backend="native")
    assert out.requires_grad
    causal = Plan(4, item_table([Item(0, 4, 0, 4, 1, 0)]))
    x = torch.randn(4, 2, 32), torch.randn(2, 4, 32), torch.randn(2, 4, 32)
    found = tree_attention(*x, causal, backend="native")
    torch.testing.assert_close(found, tree_attention(*x, causal, backend="reference"))


def run_without(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from hydragen_kernels import native; print(native.why_unavailable())"
    variables = {**os.environ, "PATH": path, "CC": "", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )


def test_no_compiler_is_said(tmp_path: Path) -> None:
    assert "no C compiler" in run_without(str(tmp_path)).stdout


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "gcc"
    broken.write_text("#!/bin/sh\necho 'out of order' >&2\nexit 3\n")
    broken.chmod(0o755)
    done = run_without(f"{tmp_path}:{os.defpath}", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.stdout.strip() == f"{broken} failed: out of order"


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_a_compiler_with_another_openmp_is_refused(tmp_path: Path) -> None:
    done = run_without(os.environ["PATH"], CC="clang", XDG_CACHE_HOME=str(tmp_path))
    assert "clang: " in done.stdout
    assert "__kmpc" in done.stdout


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run_without(os.environ["PATH"], XDG_CACHE_HOME=str(file))
    assert done.stdout.strip() == "None"


@needs_compiler
@pytest.mark.parametrize("length", [0, 100, 9000])
def test_a_damaged_library_is_built_anew(length: int, tmp_path: Path) -> None:
    run_without(os.environ["PATH"], XDG_CACHE_HOME=str(tmp_path))
    (kept,) = (tmp_path / "hydragen" / "native").iterdir()
    whole = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[:length])
    assert run_without(os.environ["PATH"], XDG_CACHE_HOME=str(tmp_path)).stdout.strip() == "None"
    assert kept.stat().st_size == whole


@needs_compiler
def test_several_processes_may_build_at_once(tmp_path: Path) -> None:
    code = "from hydragen_kernels import native; print(native.why_unavailable())"
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in running] == [b"None"] * 3
    assert len(list((tmp_path / "hydragen" / "native").iterdir())) == 1


def heads(**changes: Any) -> Heads:
    sizes = {"q_heads": 4, "kv_heads": 2, "head_dim": 64, "dtype": torch.float32, "device": CPU}
    return Heads(**{**sizes, **changes})


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": torch.device("cuda")}, "computes on a CPU, not on cuda"),
        ({"kv_dtype": torch.bfloat16}, "reads keys and values in float32, not in bfloat16"),
        ({"dtype": torch.float16, "kv_dtype": torch.float32}, "reads queries in float32"),
        ({"is_capped": True}, "no soft-capping of scores"),
        ({"head_dim": 20}, "heads of a multiple of"),
        ({"head_dim": 512}, "at most 256"),
    ],
)
def test_what_it_does_not_compute_is_said_and_left_to_others(
    changes: dict[str, Any], why: str
) -> None:
    assert choose("auto", heads()) == "native"
    with pytest.raises(InputError, match=f"attention native: .*{why}.*; use auto"):
        choose("native", heads(**changes))
    assert choose("auto", heads(**changes)) != "native"


def test_without_a_compiler_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_unavailable", lambda: "no C compiler")
    with pytest.raises(InputError, match="attention native: no C compiler; use auto"):
        choose("native", heads())
    assert choose("auto", heads()) == "torch"
