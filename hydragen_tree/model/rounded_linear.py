"""What linear layers have in common whose weights and inputs are rounded to fewer bits."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class RoundedLinear(nn.Module):
    """A linear layer that multiplies what it has rounded.

    Args:
        weight: as it is multiplied.
        out_features: numbers of an output.
        in_features: numbers of an input.
        bias: `[out]`, added in its own dtype.

    Attributes:
        bits: of a weight and an input.
        original: the weights before they were rounded, wherever they are, for as long as they are
            to be compared with; None: there are none.
    """

    bits = 8

    def __init__(
        self, weight: Tensor, out_features: int, in_features: int, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features
        self.weight = constant(weight)
        self.bias = None if bias is None else constant(bias)
        self.original: Tensor | None = None

    def exact_weight(self, dtype: torch.dtype) -> Tensor:
        """The weights before they were rounded, in the model's dtype, or what they stand for."""
        if self.original is not None:
            return self.original.to(self.weight.device)
        return self.stands_for(dtype)

    @abstractmethod
    def stands_for(self, dtype: torch.dtype) -> Tensor:
        """What rounded weights stand for: `[out, in]`."""

    @classmethod
    @abstractmethod
    def side_by_side(cls, layers: Sequence[Self]) -> Self | None:
        """Layers of one input as one; None where that is another product.

        Args:
            layers: of one input size; all with a bias or all without.
        """


def constant(x: Tensor) -> nn.Parameter:
    """A parameter that is not learned."""
    return nn.Parameter(x, requires_grad=False)


def joined_bias(layers: Sequence[RoundedLinear]) -> Tensor | None:
    """The biases of layers that have one, in turn."""
    biases = tuple(layer.bias for layer in layers if layer.bias is not None)
    return torch.cat(biases) if biases else None
