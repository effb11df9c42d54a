"""Linear layers in 8 or 16 bits on a CPU that multiplies such numbers, see `narrow_product.py`.

In 8 bits weights are whole numbers with a scale for each output channel, and each 128 numbers of an
input are taken to them by the largest of their own: single inputs are very large in many models.
In 16 bits both are bfloat16; of a checkpoint that is stored so, weights stay what they are, and
only inputs are rounded. Sums, and what lies between layers, keep the model's dtype, so that nothing
else of a run changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hydragen_kernels import narrow_product
from hydragen_tree.model.rounded_linear import RoundedLinear, constant, joined_bias

LARGEST = 127
_LEAST = 1e-12  # what a channel's largest number is taken for if it is less: no scale is 0


class NarrowLinear(RoundedLinear):
    """A linear layer whose weights and inputs have fewer bits than the rest of the model.

    Args:
        packed: as `narrow_product.pack` returns it.
        scale: `[outputs of whole panels]` float32 in 8 bits; else None.
        out_features: numbers of an output.
        in_features: numbers of an input.
        bias: `[out]`.
        kind: int8 or bfloat16.
    """

    def __init__(
        self,
        packed: Tensor,
        scale: Tensor | None,
        out_features: int,
        in_features: int,
        bias: Tensor | None,
        *,
        kind: torch.dtype,
    ) -> None:
        super().__init__(packed, out_features, in_features, bias)
        self.scale = None if scale is None else constant(scale)
        self.kind, self.bits = kind, 8 * kind.itemsize

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the dtype of the input."""
        out = narrow_product.product(
            x.reshape(-1, self.in_features).float(),
            self.weight,
            self.out_features,
            self.kind,
            scale=self.scale,
            bias=None if self.bias is None else self.bias.float(),
        )
        whole: Tensor = out.to(x.dtype).view(*x.shape[:-1], self.out_features)
        return whole

    def stands_for(self, dtype: torch.dtype) -> Tensor:
        """What the weights stand for: `[out, in]`."""
        numbers = narrow_product.unpack(
            self.weight, self.out_features, self.in_features, self.kind
        ).float()
        if self.scale is not None:
            numbers *= self.scale[: self.out_features, None]
        return numbers.to(dtype)

    @classmethod
    def of(cls, layer: nn.Linear, kind: torch.dtype) -> "NarrowLinear":
        """A layer with its weights rounded."""
        weight, scale = layer.weight.detach(), None
        outputs, inputs = weight.shape
        numbers = weight.to(torch.bfloat16)
        if kind == torch.int8:
            largest = weight.float().abs().amax(1).clamp(min=_LEAST)
            numbers = (weight.float() * (LARGEST / largest)[:, None]).round().to(torch.int8)
            scale = largest.new_zeros(narrow_product.padded_outputs(outputs))
            scale[:outputs] = largest / LARGEST
        bias = None if layer.bias is None else layer.bias.detach()
        packed = narrow_product.pack(numbers)
        narrow = cls(packed, scale, outputs, inputs, bias, kind=kind)
        narrow.original = weight
        return narrow

    @classmethod
    def side_by_side(cls, layers: Sequence["NarrowLinear"]) -> "NarrowLinear | None":
        """Layers of one input as one; None where a panel would hold outputs of two."""
        first = layers[0]
        sizes = [layer.out_features for layer in layers]
        if len({layer.kind for layer in layers}) > 1:
            return None
        if any(narrow_product.padded_outputs(size) != size for size in sizes):
            return None
        scales = tuple(layer.scale for layer in layers if layer.scale is not None)
        return cls(
            torch.cat(tuple(layer.weight for layer in layers)),
            torch.cat(scales) if scales else None,
            sum(sizes),
            first.in_features,
            joined_bias(layers),
            kind=first.kind,
        )
