"""Segments by flash attention: one variable-length call a level, instead of our own kernel.

PyTorch's built-in flash attention computes it, or FlashAttention 3 or 4 where they are installed
and activated (`torch.nn.attention.activate_flash_attention_impl`). A level's segments are the
sequences of the call: their queries follow one another, their keys lie anywhere in the arena.

Grouped heads become more queries of the same kv head, so that a key is read once for all of them.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hydragen_tree.attention.plan import Int, Item
from hydragen_tree.errors import InputError


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
        items: the plan's, `[items, 6]`.
        n_queries: queries of the step.
        group: query heads that share a kv head.
        device: a CUDA device.

    Attributes:
        counts: `[queries]` int32, partials of each query.
        partial_slots: the same number.
    """

    def __init__(self, items: Int, n_queries: int, group: int, device: torch.device) -> None:
        self._group = group
        self._calls = [
            _call(items[chosen], n_queries, 1 if causal else group, bool(causal), device)
            for level in np.unique(items[:, 5]).tolist()
            for causal in (0, 1)
            if (chosen := (items[:, 5] == level) & (items[:, 4] == causal)).any()
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
        softcap: float | None,
    ) -> None:
        """Writes every query's partials; arguments as of `segment_attention`.

        Raises:
            InputError: the model caps its scores, which flash attention cannot.
        """
        if softcap is not None:
            raise InputError(
                "no soft-capping of scores; use triton or torch", setting="attention", value="flash"
            )
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


def _call(items: Int, n_queries: int, group: int, causal: bool, device: torch.device) -> _Call:
    """Items of one level as sequences, with empty ones for the queries between them."""
    edges, starts, counts = [0], [], []
    nothing = np.ones(n_queries, np.bool_)
    for row in items[np.argsort(items[:, 0])].tolist():
        item = Item(*row)
        if item.query_start > edges[-1]:
            edges.append(item.query_start)
            starts.append(0)
            counts.append(0)
        edges.append(item.query_start + item.query_count)
        starts.append(item.slot_start)
        counts.append(item.slot_count)
        nothing[item.query_start : edges[-1]] = item.slot_count == 0
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
