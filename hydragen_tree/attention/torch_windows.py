"""A segment seen through a window, in plain torch: each query sees it from a key of its own on.

Queries are taken some at a time: these see a short range of keys, however long the segment is.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_QUERIES = 256
_SCORES = 1 << 24  # of one product, in elements


def segment_from(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    softcap: float | None,
    causal: bool,
    first: NDArray[np.int32],
) -> tuple[Tensor, Tensor]:
    """Attention over the keys of a segment that each query sees; in fp32.

    Args:
        queries: `[rows, q_heads, head_dim]`.
        keys: `[kv_heads, tokens, head_dim]`.
        values: like `keys`.
        scale: factor on the scores.
        softcap: scores become `softcap * tanh(score / softcap)`; None: they do not.
        causal: row i sees none of the keys from i + 1 on.
        first: `[rows]` the first key that each query sees; below 0: all, from `tokens` on: none.

    Returns:
        `[rows, q_heads, head_dim]` and the log-sum-exp `[rows, q_heads]`; 0 and -inf for a row
        that sees no key.
    """
    rows, q_heads, _ = queries.shape
    tokens = keys.shape[1]
    out = torch.zeros(queries.shape, dtype=torch.float32, device=queries.device)
    lse = torch.full((rows, q_heads), -torch.inf, dtype=torch.float32, device=queries.device)
    first = first.clip(0, tokens)
    stop = np.arange(1, rows + 1) if causal else np.full(rows, tokens)
    longest = int((stop - first).max(initial=1)) + (_QUERIES if causal else 0)
    step = max(1, min(_QUERIES, _SCORES // (q_heads * longest)))
    for at in range(0, rows, step):
        some = slice(at, min(at + step, rows))
        low, high = int(first[some].min()), int(stop[some].max())
        if low >= high:
            continue
        place = np.arange(low, high)
        hidden = (place < first[some, None]) | (place >= stop[some, None])
        out[some], lse[some] = masked_attention(
            queries[some],
            keys[:, low:high],
            values[:, low:high],
            torch.from_numpy(hidden).to(queries.device) if hidden.any() else None,
            scale,
            softcap,
        )
    return out, lse


def masked_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    hidden: Tensor | None,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Two products and a softmax in fp32, where no fused form applies.

    Args:
        queries: `[rows, q_heads, head_dim]`.
        keys: `[kv_heads, tokens, head_dim]`.
        values: like `keys`.
        hidden: `[rows, tokens]` bool, keys that a row does not see; None: it sees all.
        scale: factor on the scores.
        softcap: scores become `softcap * tanh(score / softcap)`; None: they do not.

    Returns:
        `[rows, q_heads, head_dim]` and the log-sum-exp `[rows, q_heads]`; 0 and -inf for a row
        that sees no key.
    """
    rows, q_heads, head_dim = queries.shape
    kv_heads = keys.shape[0]
    stacked = queries.view(rows, kv_heads, -1, head_dim).transpose(0, 1).flatten(1, 2).float()
    scores = torch.matmul(stacked, keys.float().mT) * scale  # [kv_heads, rows * group, tokens]
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        scores.masked_fill_(hidden.repeat_interleave(q_heads // kv_heads, 0), -torch.inf)
    peak = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - peak.masked_fill(peak == -torch.inf, 0.0))  # -inf: none is seen
    total = weights.sum(-1, keepdim=True)
    lse = (peak + total.log()).squeeze(-1)
    # By their sum, not by exp(lse): large scores leave lse no digits for that.
    out = torch.matmul(weights, values.float()) / total.masked_fill(total == 0.0, 1.0)
    out = out.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)
    return out, lse.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)
