"""Tree attention on a GPU: two launches a layer, whatever the tree.

All segments of a plan are one persistent launch of `segment_attention`; every row's tail and the
merge of its partials are one launch of `tail_attention`. The tables they read depend on the plan
alone, so they are built once a step and used by every layer.

Importing this module imports Triton.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.schedule import schedule_segments
from hydragen_kernels.segment import SegmentTables, best_config, segment_attention
from hydragen_kernels.tail import tail_attention, tail_splits
from hydragen_tree.plan import Plan


@dataclass(frozen=True, eq=False, slots=True)
class _Tables:
    """One plan on the device."""

    segments: SegmentTables
    partial_slots: int
    pages: Tensor
    lengths: Tensor
    page_tokens: int
    splits: int


def fused_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    plan: Plan,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """`tree_attention` by the Triton kernels; arguments and result as there."""
    rows, q_heads, head_dim = queries.shape
    tables = _tables(plan, q_heads, keys.shape[0], head_dim, keys.dtype, queries.device)
    size = (tables.partial_slots, rows, q_heads)
    partial_out = torch.empty(*size, head_dim, dtype=torch.float32, device=queries.device)
    partial_lse = torch.empty(size, dtype=torch.float32, device=queries.device)
    if len(plan.items):
        segment_attention(
            queries,
            keys,
            values,
            tables.segments,
            partial_out,
            partial_lse,
            scale=scale,
            softcap=softcap,
        )
    out, _ = tail_attention(
        queries,
        keys,
        values,
        tables.pages,
        tables.lengths,
        tables.page_tokens,
        partial_out,
        partial_lse,
        tables.segments.counts,
        scale=scale,
        softcap=softcap,
        sinks=sinks,
        splits=tables.splits,
    )
    return out


@lru_cache(maxsize=2)  # plans compare by identity: every layer of a step asks with the same one
def _tables(
    plan: Plan,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> _Tables:
    group = q_heads // kv_heads
    on_gpu = device.type == "cuda"
    processors = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 4
    schedule = schedule_segments(
        plan.items,
        plan.n_queries,
        q_heads=q_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        element_bytes=dtype.itemsize,
        multiprocessors=processors,
        config=best_config(device, dtype, head_dim, group),
    )
    pages, lengths, page_tokens = np.zeros((plan.n_queries, 1)), np.zeros(plan.n_queries), 16
    if plan.tails is not None:
        page_tokens, lengths = plan.tails.page_tokens, plan.tails.lengths
        pages = plan.tails.pages.clip(min=0)
    longest = int(lengths.max(initial=0))
    return _Tables(
        segments=SegmentTables(schedule, device),
        partial_slots=max(1, int(schedule.counts.max(initial=0))),
        pages=torch.from_numpy(pages.astype(np.int32)).to(device),
        lengths=torch.from_numpy(lengths.astype(np.int32)).to(device),
        page_tokens=page_tokens,
        splits=tail_splits(plan.n_queries, kv_heads, longest, processors, group),
    )
