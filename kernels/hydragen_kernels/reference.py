"""Tree attention in plain torch: the definition that every faster form is tested against.

    partial(q, K, V) = (softmax(s) V, logsumexp(s)),          s = scale * q K^T
    merge(a, b)      = the partial over the union of two disjoint sets of keys
    attend(node, q)  = merge(partial(q, node's keys), attend(child, q's rows below child) ...)

Everything is computed in float32, or in float64 where the inputs are. Nothing here is fast, and
nothing here imports an optimised kernel.

Source: Hydragen, arXiv 2402.05099, section 3.1 (decomposition) and 3.3 (trees of sharing).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hydragen_kernels.inputs import FP8


class Partial(NamedTuple):
    """Attention over some of the keys.

    Attributes:
        out: `[rows, q_heads, head_dim]`, float32 or float64.
        lse: `[rows, q_heads]`, natural-log log-sum-exp of the scores; `-inf` over no keys.
    """

    out: Tensor
    lse: Tensor


class Node(NamedTuple):
    """A segment in a tree of attention: rows `query_start..query_stop` meet one range of slots."""

    query_start: int
    query_stop: int
    slot_start: int
    slot_stop: int
    causal: bool
    position: int  # of the first slot in the rows' sequences
    children: "tuple[Node, ...]"


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers as an arena of `dtype` holds them: rounded; in fp8 those beyond its range saturate.

    torch's own conversion gives NaN there in some versions and on some devices.
    """
    if dtype == FP8:
        largest = torch.finfo(dtype).max
        x = x.clamp(-largest, largest)
    return x.to(dtype)


def empty(queries: Tensor) -> Partial:
    """The partial over no keys, merging's identity, for `[rows, q_heads, head_dim]` queries."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    out = torch.zeros(queries.shape, dtype=dtype, device=queries.device)
    lse = torch.full(queries.shape[:2], -torch.inf, dtype=dtype, device=queries.device)
    return Partial(out, lse)


def partial(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scale: float,
    causal: bool = False,
    softcap: float | None = None,
    first: Tensor | None = None,
) -> Partial:
    """Attention of every row over the given keys.

    Args:
        queries: `[rows, q_heads, head_dim]`.
        keys: `[kv_heads, tokens, head_dim]`; `q_heads` is a multiple of `kv_heads`.
        values: like `keys`; fewer numbers a head are taken, too.
        scale: factor on the scores.
        causal: row i sees keys 0..i only; needs as many rows as keys.
        softcap: scores become `softcap * tanh(score / softcap)`.
        first: `[rows]` integers, the first key that each row sees; None: all see the first one.
    """
    if keys.shape[1] == 0 or queries.shape[0] == 0:
        return empty(queries[..., : values.shape[-1]])
    dtype = torch.promote_types(queries.dtype, torch.float32)
    rows, q_heads, head_dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    grouped = queries.to(dtype).view(rows, kv_heads, q_heads // kv_heads, head_dim)
    scores = torch.einsum("rhgd,htd->rhgt", grouped, keys.to(dtype)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        hidden = torch.ones(rows, tokens, dtype=torch.bool, device=queries.device).triu(1)
        scores = scores.masked_fill(hidden[:, None, None, :], -torch.inf)
    if first is not None:
        hidden = torch.arange(tokens, device=queries.device) < first[:, None]
        scores = scores.masked_fill(hidden[:, None, None, :], -torch.inf)
    # Divided by their sum, not by exp(lse): large scores leave lse no digits for that.
    peak = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - peak.masked_fill(peak == -torch.inf, 0.0))  # -inf: none is seen
    total = weights.sum(-1, keepdim=True)
    lse = (peak + total.log()).squeeze(-1)
    weights = weights / total.masked_fill(total == 0.0, 1.0)
    out = torch.einsum("rhgt,htd->rhgd", weights, values.to(dtype))
    return Partial(out.flatten(1, 2), lse.reshape(rows, q_heads))


def merge(a: Partial, b: Partial) -> Partial:
    """The partial over the keys of both. Associative and commutative; `empty` is its identity."""
    # Of differences, so that both add up to one; -inf - -inf: no keys on either side.
    weight_a = torch.sigmoid(a.lse - b.lse).nan_to_num(0.0)[..., None]
    weight_b = torch.sigmoid(b.lse - a.lse).nan_to_num(0.0)[..., None]
    return Partial(weight_a * a.out + weight_b * b.out, torch.logaddexp(a.lse, b.lse))


def attend(
    node: Node,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    first: Tensor | None = None,
) -> Partial:
    """Attention of all rows of `node` over its own keys and those below it.

    The recursion of the definition, unrolled from the root down: as merging is associative and
    commutative, each segment's partial goes into its rows' result at once. So trees may be of any
    depth, and no more than one result is in memory.

    Args:
        node: the subtree; children cover disjoint parts of its rows.
        queries: `[tokens, q_heads, head_dim]`, all queries of the step.
        keys: `[kv_heads, slots, head_dim]`, the whole arena.
        values: like `keys`.
        scale: factor on the scores.
        softcap: see `partial`.
        first: `[tokens]` integers, the first position that each query sees; None: all.

    Returns:
        The partial of rows `node.query_start..node.query_stop`.
    """
    start = node.query_start
    result = empty(queries[start : node.query_stop])
    left = [node]
    while left:
        segment = left.pop()
        left += reversed(segment.children)
        rows = slice(segment.query_start, segment.query_stop)
        own = slice(segment.slot_start, segment.slot_stop)
        part = partial(
            queries[rows],
            keys[:, own],
            values[:, own],
            scale=scale,
            causal=segment.causal,
            softcap=softcap,
            first=None if first is None else first[rows] - segment.position,
        )
        inside = slice(segment.query_start - start, segment.query_stop - start)
        before = Partial(result.out[inside], result.lse[inside])
        result.out[inside], result.lse[inside] = merge(before, part)
    return result
