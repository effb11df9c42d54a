"""`hydragen bench fit`: the cost model's two constants for this device, measured and kept.

A decode step over k segments of t tokens each, rows spread evenly below them, takes

    constant + k * item_s + k * t * token_bytes / bandwidth + rows * t * flops / rate

seconds a layer. The terms are fitted by non-negative least squares to relative errors. The last is
the same whether segments are shared or not, so the cost model does without it.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from hydragen_bench.timing import bench_device, median_us
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.tree_attention import TreeAttention
from hydragen_tree.errors import HydragenError
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel, device_name, save_cost

SEGMENTS = (1, 2, 4, 8, 16, 32, 64)
TOKENS = (32, 128, 512, 1024)
ROWS = 64
_PAGE = 16


def _plan(segments: int, tokens: int) -> Plan:
    """Rows spread evenly below sibling segments, each with a tail of one token."""
    each = ROWS // segments
    items = [Item(i * each, each, i * tokens, tokens, causal=0, level=0) for i in range(segments)]
    first_page = segments * tokens // _PAGE
    pages = (first_page + np.arange(ROWS, dtype=np.int32))[:, None]
    tails = Tails(pages, np.ones(ROWS, np.int32), _PAGE)
    return Plan(ROWS, item_table(items), tails)


def measure() -> tuple[CostModel, float]:
    """Fits the constants to this machine's device.

    Returns:
        The cost model, and the median relative error of the fit.
    """
    device = bench_device()
    on_gpu = device.type == "cuda"
    shape = KVShape(1, 32, 8, 128, 2) if on_gpu else KVShape(1, 8, 4, 32, 4)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    slots = max(SEGMENTS) * max(TOKENS) + ROWS * _PAGE
    keys, values = torch.randn(2, shape.kv_heads, slots, shape.head_dim, device=device, dtype=dtype)
    queries = torch.randn(ROWS, shape.q_heads, shape.head_dim, device=device, dtype=dtype)
    terms, times = [], []
    for segments, tokens in product(SEGMENTS, TOKENS):
        attend = TreeAttention(_plan(segments, tokens))

        def step(attend: TreeAttention = attend) -> object:
            scale = shape.head_dim**-0.5
            return attend(0, queries, keys, values, scale=scale, softcap=None, sinks=None)

        times.append(median_us(step) / 1e6)
        read = segments * tokens * shape.layer_token_bytes
        terms.append((1.0, segments, read, ROWS * tokens))
    wanted = np.array(times)
    found, _ = nnls(np.array(terms) / wanted[:, None], np.ones(wanted.size))
    error = float(np.median(np.abs(np.array(terms) @ found / wanted - 1)))
    _, item_s, s_a_byte, _ = found.tolist()
    if s_a_byte == 0.0:
        raise HydragenError("the time of reading keys drowned in noise: measure on a quiet machine")
    return CostModel(device_name(device), 1 / s_a_byte, item_s), error


def run() -> dict[str, Any]:
    """Measures, keeps the constants for later runs, prints and returns them."""
    cost, error = measure()
    path = save_cost(cost)
    print(
        f"{cost.device}: {cost.bandwidth / 1e9:.1f} GB/s, {cost.item_s * 1e6:.2f} us a segment, "
        f"median error of the fit {error:.0%}; kept in {path}"
    )
    return {
        "device": cost.device,
        "bandwidth": cost.bandwidth,
        "item_s": cost.item_s,
        "fit_error": error,
        "file": str(path),
    }
