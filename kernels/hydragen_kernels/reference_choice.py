"""Choice in torch: the filters and the draw that `choose.py` is tested against.

The definition is in the docstring of `choose.py`; here each filter is written out by sorting.
"""

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.drawn import Drawn
from hydragen_kernels.random import uniforms


def kept(
    logits: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Tensor, Tensor]:
    """Weights of one row's tokens and which of them the filters keep.

    Args:
        logits: `[vocab]` fp32.
        temperature: positive.
        top_k: 0 keeps all.
        top_p: in (0, 1].
        min_p: in [0, 1].

    Returns:
        `(weights, is_kept)`: `[vocab]` fp64 and bool.
    """
    peak = logits.max()
    weights = torch.exp(((logits - peak) / temperature).double())
    is_kept = weights > 0.0
    ordered, _ = logits.sort(descending=True)
    if 0 < top_k < len(logits):
        is_kept &= logits >= ordered[top_k - 1]
    if top_p < 1.0:
        mass = torch.where(is_kept, weights, 0.0)
        by_logit = mass[logits.argsort(descending=True)].cumsum(0)
        greater = torch.searchsorted(-ordered, -logits, right=False)  # how many are greater
        mass_greater = torch.cat([by_logit.new_zeros(1), by_logit])[greater]
        is_kept &= mass_greater < top_p * mass.sum()
    if min_p > 0.0:
        is_kept &= logits >= peak + temperature * float(np.log(min_p))
    return weights, is_kept


def choose(
    logits: Tensor,
    sample_rows: Tensor,
    stream_keys: Tensor,
    positions: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Drawn[Tensor]:
    """Draw one token for each sample, arguments as `hydragen_kernels.choose.choose` takes them."""
    logits = logits.float()
    numbers = uniforms(stream_keys.numpy().view(np.uint64), positions.numpy())
    raw = torch.log_softmax(logits.double(), dim=-1)
    tokens = torch.empty(len(sample_rows), dtype=torch.int32)
    sampled = torch.zeros(len(sample_rows))
    for sample, row in enumerate(sample_rows.tolist()):
        if temperature == 0.0:
            tokens[sample] = int(logits[row].argmax())
            continue
        weights, is_kept = kept(
            logits[row], temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
        )
        upto = torch.where(is_kept, weights, 0.0).cumsum(0)
        token = int((upto > numbers[sample] * upto[-1]).int().argmax())
        tokens[sample] = token
        sampled[sample] = torch.log(weights[token] / upto[-1])
    logprobs = raw[sample_rows.long(), tokens.long()].float()
    return Drawn(tokens, logprobs, sampled)
