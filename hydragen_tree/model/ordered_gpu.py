"""Layers of one order of summation on a GPU, for the batch-invariant mode.

Norms, gates and rotations are there already, each row by a program of its own
(`hydragen_kernels.layers`), and so are products of experts (`hydragen_tree.model.experts`). Other
products depend on a batch, and what a router makes of theirs.
"""

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydragen_kernels import ordered_rows
from hydragen_kernels.ordered_library import linear
from hydragen_kernels.ordered_matmul import why_not_product
from hydragen_tree.model.ordered_functions import RowForms


class OrderedProduct(nn.Module):
    """A linear layer whose sums have one order, whatever the number of rows.

    Args:
        layer: a plain one, whose weights are shared, not copied; or one with inputs before outputs.

    Attributes:
        in_features: numbers of an input.
        out_features: numbers of an output.
    """

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        super().__init__()
        self.weight: Tensor = layer.weight
        if isinstance(layer, Conv1D):
            self.weight = nn.Parameter(layer.weight.T.contiguous(), requires_grad=False)
        self.bias = layer.bias
        self.out_features, self.in_features = self.weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` to `[..., outputs]` in the input's dtype."""
        return linear(x, self.weight, self.bias)


def order_gpu_products(model: nn.Module) -> int:
    """Replaces plain linear layers in place; those of one input are joined before.

    Args:
        model: on a GPU, its layers fused.

    Returns:
        How many were replaced.
    """
    homes = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) in (nn.Linear, Conv1D)
    ]
    for parent, name, layer in homes:
        setattr(parent, name, OrderedProduct(layer))
    return len(homes)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if x.ndim < 2 or x.dtype != weight.dtype or why_not_product(weight):
        return NotImplemented
    return linear(x, weight, bias)


GPU_FORMS = RowForms(_linear, ordered_rows.softmax, ordered_rows.sums)
