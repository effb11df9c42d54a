"""Attention through a window: float64 dense attention over the keys that each query sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydragen_kernels import native
from hydragen_tree.attention.tree_attention import tree_attention
from hydragen_tree.attention.windows import Window
from hydragen_tree.errors import InputError
from tests.attention.test_tree_attention import KERNELS_RUN, Case, build_case, dense, error

WINDOWS = [Window(1), Window(5), Window(16), Window(1000), Window(6, True), Window(16, True)]
NATIVE = [] if native.why_unavailable() else ["native", "ordered"]


def through(case: Case, window: Window) -> Case:
    """The same queries, each with the keys that it sees, for `dense`."""
    seen = []
    for slots in case.seen:
        last = len(slots) - 1
        first = last - window.tokens + 1
        if window.is_chunked:
            first = last - last % window.tokens
        seen.append(slots[max(0, first) :])
    return Case(case.queries, case.keys, case.values, case.plan, seen)


@settings(max_examples=80)
@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from(["torch", "reference", *NATIVE]),
    st.sampled_from([(1, 1), (2, 2), (1, 16), (3, 1)]),
    st.sampled_from(WINDOWS),
)
def test_equals_dense_attention_over_what_is_seen(
    seed: int, prefill: bool, backend: str, heads: tuple[int, int], window: Window
) -> None:
    case = build_case(
        np.random.default_rng(seed), prefill=prefill, kv_heads=heads[0], group=heads[1]
    )
    tensors = case.queries, case.keys, case.values
    out = tree_attention(*tensors, case.plan, window=window, backend=backend)
    seen = through(case, window)
    truth = dense(seen, torch.float64)
    assert error(out, truth) <= 2 * error(dense(seen, torch.float32), truth) + 1e-7


@pytest.mark.parametrize("backend", ["torch", "reference", *NATIVE])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("window", [Window(40), Window(300), Window(64, True)], ids=str)
def test_segments_longer_than_a_window(backend: str, prefill: bool, window: Window) -> None:
    """Some queries see a part of a segment, others all of it or nothing."""
    case = build_case(np.random.default_rng(12), prefill=prefill, longest=700)
    tensors = case.queries, case.keys, case.values
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0])
    out = tree_attention(*tensors, case.plan, window=window, sinks=sinks, backend=backend)
    assert error(out, dense(through(case, window), torch.float64, sinks=sinks)) < 2e-6


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("prefill", [False, True])
def test_with_soft_caps(backend: str, prefill: bool) -> None:
    case = build_case(np.random.default_rng(7), prefill=prefill, sharpness=6.0, longest=60)
    tensors = case.queries, case.keys, case.values
    out = tree_attention(*tensors, case.plan, window=Window(9), softcap=2.0, backend=backend)
    assert error(out, dense(through(case, Window(9)), torch.float64, softcap=2.0)) < 1e-6


@pytest.mark.skipif(not KERNELS_RUN, reason="needs CUDA or Triton's interpreter")
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("window", [Window(7), Window(50), Window(32, True)], ids=str)
def test_fused_kernels_equal_dense_attention(window: Window, prefill: bool, group: int) -> None:
    rng = np.random.default_rng(2)
    case = build_case(rng, prefill=prefill, group=group, head_dim=64, longest=80)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    moved = [x.to(place) for x in (case.queries, case.keys, case.values)]
    options = {"softcap": 2.0, "sinks": torch.linspace(-1, 1, 2 * group, device=place)}
    for extra in ({}, options):
        out = tree_attention(*moved, case.plan, window=window, backend="triton", **extra).cpu()
        sinks = extra.get("sinks")
        cap = extra.get("softcap")
        truth = dense(
            through(case, window), torch.float64, cap, None if sinks is None else sinks.cpu()
        )
        assert error(out, truth) < 1e-5


def test_positions_are_what_queries_meet() -> None:
    for prefill in (False, True):
        case = build_case(np.random.default_rng(4), prefill=prefill)
        assert case.plan.positions().tolist() == [len(slots) - 1 for slots in case.seen]


def test_flash_attention_refuses_windows() -> None:
    case = build_case(np.random.default_rng(1))
    tensors = case.queries, case.keys, case.values
    with pytest.raises(InputError, match="attention flash: no sliding windows"):
        tree_attention(*tensors, case.plan, window=Window(4), backend="flash")
    with pytest.raises(InputError, match="window 0: expected at least 1"):
        Window(0)
