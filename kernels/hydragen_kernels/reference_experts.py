"""Experts in plain torch: the definition that `routing.py` and `experts.py` are tested against."""

import torch
from torch import Tensor

from hydragen_kernels.layer_forms import Scores


def mixture(
    x: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, shares: Tensor
) -> Tensor:
    """One product of each token with each of its experts, weighted and summed.

    Args:
        x: `[tokens, inputs]`.
        weight: `[experts, outputs, inputs]`.
        bias: `[experts, outputs]`, or None.
        chosen: `[tokens, choices]`; what is not below `experts` adds nothing.
        shares: `[tokens, choices]`.

    Returns:
        `[tokens, outputs]`.
    """
    out = torch.zeros(x.shape[0], weight.shape[1], dtype=x.dtype, device=x.device)
    for token, choice in (chosen < weight.shape[0]).nonzero().tolist():
        expert = chosen[token, choice]
        one = weight[expert] @ x[token]
        out[token] += shares[token, choice] * (one if bias is None else one + bias[expert])
    return out


def routed(
    logits: Tensor,
    choices: int,
    *,
    scores: Scores,
    is_normalised: bool,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Experts of each token, and their shares.

    Of equal ranks the lower number comes first. Sigmoids are ranked as fp32 has them.

    Args:
        logits: `[tokens, experts]`.
        choices: experts a token.
        scores: what is made of logits.
        is_normalised: whether shares sum up to one before they are scaled.
        scale: factor of the shares.
        bias: `[experts]`, added to sigmoids for the choice, or None.

    Returns:
        `[tokens, choices]` int64, and the same of float64.
    """
    wide = logits.double()
    made, rank = wide.softmax(-1), wide
    if scores == Scores.SIGMOID:
        made = wide.sigmoid()
        rank = made.float() if bias is None else made.float() + bias.float()
    chosen = torch.sort(rank, dim=-1, descending=True, stable=True).indices[:, :choices]
    shares = made.gather(1, chosen)
    if is_normalised:
        shares = shares / (shares.sum(-1, keepdim=True) + 1e-20)
    return chosen, shares * scale
