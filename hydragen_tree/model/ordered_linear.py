"""Linear layers that sum over their inputs in one order, whatever the number of rows.

A library's product takes another kernel, and with it another order, for another number of rows. So
the same row gives other digits in another batch. In the batch-invariant mode
(`hydragen_tree.model.invariance`) products are our own.
"""

from torch import Tensor, nn

from hydragen_kernels import ordered_layers


class OrderedLinear(nn.Module):
    """A linear layer on a CPU, its weights laid out in panels.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]`, or None.

    Attributes:
        in_features: numbers of an input.
        out_features: numbers of an output.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(ordered_layers.pack(weight.detach()), requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` to `[..., outputs]` in the input's dtype."""
        return ordered_layers.product(x, self.weight, self.out_features, self.bias)


class PanelEmbedding(nn.Module):
    """An embedding that shares its weights with a linear layer: they are held once, in panels.

    Args:
        layer: the linear layer.
    """

    def __init__(self, layer: OrderedLinear) -> None:
        super().__init__()
        self.weight = layer.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """`[...]` int64 to `[..., width]`."""
        return ordered_layers.unpacked_rows(self.weight, tokens)
