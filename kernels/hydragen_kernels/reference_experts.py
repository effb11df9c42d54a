"""Products of experts in plain torch: the definition that `experts.py` is tested against."""

import torch
from torch import Tensor


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
