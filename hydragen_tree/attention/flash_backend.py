"""Segments by flash attention: one variable-length call a level, instead of our own kernel.

PyTorch's built-in flash attention computes it, or FlashAttention 3 or 4 where they are installed
and activated (`torch.nn.attention.activate_flash_attention_impl`). A level's segments are the
sequences of the call: their queries follow one another, their keys lie anywhere in the arena.

Grouped heads become more queries of the same kv head, so that a key is read once for all of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.inputs import FP8
from hydragen_kernels.items import item_columns, item_rows
from hydragen_tree.attention.backend import Backend, Prepared
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.triton_backend import TritonBackend
from hydragen_tree.attention.windows import WindowView

if TYPE_CHECKING:
    from hydragen_tree.attention.fused import DeviceTails


class FlashBackend(Backend):
    """Flash attention for the segments, our kernel for the tails; CUDA, 16-bit types."""

    def why_not(self, heads: Heads) -> str | None:
        """What of the heads or the device flash attention does not take."""
        if heads.arena_dtype == FP8:
            return "reads no fp8 keys and values"
        if heads.is_capped:
            return "no soft-capping of scores"
        if heads.is_windowed:
            return "no sliding windows"
        if heads.device.type != "cuda":
            return f"computes on a CUDA device, not on {heads.device}"
        if heads.dtype.itemsize != 2:
            return f"computes in 16 bits, not in {str(heads.dtype).removeprefix('torch.')}"
        return TritonBackend().why_not(heads)  # for the tails

    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """The plan's calls, and its tails on the device."""
        from hydragen_tree.attention.fused import DeviceTails  # imports Triton

        segments = FlashSegments(plan.items, plan.n_queries, heads.group, heads.device)
        partials = heads.partials(max(1, segments.partial_slots), plan.n_queries)
        return FlashPlan(segments, partials, DeviceTails.of(plan, heads))

    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""
        return "flash attention, one call a level; tails and merging by Triton"


@dataclass(frozen=True, eq=False, slots=True)
class FlashPlan:
    """A plan's calls, the room their partials need, and the tails."""

    segments: "FlashSegments"
    partials: tuple[Tensor, Tensor]
    tails: "DeviceTails"

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        view: WindowView | None = None,
        latent: LatentTails | None = None,
    ) -> Tensor:
        """As of `Attend`; heads with a `view` are refused before."""
        self.segments.attend(queries, keys, values, self.partials, scale=scale)
        return self.tails.finish(
            *(queries, keys, values, self.partials, self.segments.counts),
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            latent=latent,
        )


class _Call(NamedTuple):
    """The segments of one level that are all causal or all not.

    Attributes:
        query_edges: `[sequences + 1]` int32, first query of each, and the end of the last.
        key_starts: `[sequences + 1]` int32, first slot of each.
        key_counts: `[sequences]` int32; 0 for queries that meet no segment of this level.
        most_queries: of a sequence.
        most_keys: of a sequence.
        causal: whether all of them are.
        nothing: `[queries]` bool, the queries that meet no key.
    """

    query_edges: Tensor
    key_starts: Tensor
    key_counts: Tensor
    most_queries: int
    most_keys: int
    causal: bool
    nothing: Tensor


class FlashSegments:
    """A plan's segments as calls of flash attention. Every call gives every query one partial.

    Args:
        items: the plan's.
        n_queries: queries of the step.
        group: query heads that share a kv head.
        device: a CUDA device.

    Attributes:
        counts: `[queries]` int32, partials of each query.
        partial_slots: the same number.
    """

    def __init__(self, items: Int32, n_queries: int, group: int, device: torch.device) -> None:
        self._group = group
        of = item_columns(items)
        self._calls = [
            _call(items[chosen], n_queries, 1 if causal else group, bool(causal), device)
            for level in np.unique(of.level).tolist()
            for causal in (0, 1)
            if (chosen := (of.level == level) & (of.causal == causal)).any()
        ]
        self.partial_slots = len(self._calls)
        self.counts = torch.full((n_queries,), self.partial_slots, dtype=torch.int32, device=device)

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        partials: tuple[Tensor, Tensor],
        *,
        scale: float,
    ) -> None:
        """Writes every query's partials; arguments as of `segment_attention`."""
        for slot, call in enumerate(self._calls):
            stacked = queries if call.causal else self._stack(queries, keys.shape[0])
            out, lse, *_ = torch.ops.aten._flash_attention_forward(
                stacked,
                keys.transpose(0, 1),
                values.transpose(0, 1),
                call.query_edges,
                call.key_starts,
                call.most_queries,
                call.most_keys,
                0.0,
                call.causal,
                False,
                scale=scale,
                seqused_k=call.key_counts,
            )
            lse = lse.transpose(0, 1)
            if not call.causal:
                out, lse = self._unstack(out), self._unstack(lse)
            partials[0][slot].copy_(out)
            partials[1][slot].copy_(lse.masked_fill(call.nothing[:, None], -torch.inf))

    def _stack(self, queries: Tensor, kv_heads: int) -> Tensor:
        """`[queries, q_heads, head_dim]` to `[queries * group, kv_heads, head_dim]`."""
        by_head: Tensor = queries.unflatten(1, (kv_heads, self._group))
        return by_head.transpose(1, 2).flatten(0, 1)

    def _unstack(self, x: Tensor) -> Tensor:
        """The reverse, also for a tensor without the last dimension."""
        by_query: Tensor = x.unflatten(0, (-1, self._group))
        return by_query.transpose(1, 2).flatten(1, 2)


def _call(items: Int32, n_queries: int, group: int, causal: bool, device: torch.device) -> _Call:
    """Items of one level as sequences, with empty ones for the queries between them."""
    edges, starts, counts = [0], [], []
    nothing = np.ones(n_queries, np.bool_)
    for item in item_rows(items[np.argsort(item_columns(items).query_start)]):
        if item.query_start > edges[-1]:
            edges.append(item.query_start)
            starts.append(0)
            counts.append(0)
        edges.append(item.query_stop)
        starts.append(item.slot_start)
        counts.append(item.slot_count)
        nothing[item.query_start : item.query_stop] = item.slot_count == 0
    if edges[-1] < n_queries:
        edges.append(n_queries)
        starts.append(0)
        counts.append(0)

    def move(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=device)

    return _Call(
        move([edge * group for edge in edges]),
        move([*starts, 0]),
        move(counts),
        int(np.diff(edges).max()) * group,
        max(counts),
        causal,
        torch.from_numpy(nothing).to(device),
    )
