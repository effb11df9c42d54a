"""Linear layers that read the same input become one product: query, key and value; gate and up.

Few rows against many small matrices keep a GPU waiting; one product of the same bytes does not.
The model's own code stays as it is: whichever of the layers it calls first computes all of them,
and the others hand out what is theirs. A call with another input computes anew, so that the result
is right in any order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _Handed:
    """What a fused product has computed and not yet handed out."""

    def __init__(self) -> None:
        self.input: Tensor | None = None
        self.parts: tuple[Tensor, ...] = ()
        self.left = 0


class _Product(nn.Module):
    """Several linear layers of one input as one."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.widths = [layer.out_features for layer in layers]
        weights = tuple(layer.weight for layer in layers)
        biases = tuple(layer.bias for layer in layers if layer.bias is not None)
        self.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
        self.bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
        self.handed = _Handed()

    def forward(self, x: Tensor, index: int) -> Tensor:
        """One layer's output; the input is let go with the last of them."""
        handed = self.handed
        if x is not handed.input:
            product = functional.linear(x, self.weight, self.bias)
            handed.parts = torch.split(product, self.widths, -1)
            handed.input, handed.left = x, len(self.widths)
        part = handed.parts[index]
        handed.left -= 1
        if handed.left == 0:
            handed.input, handed.parts = None, ()
        return part


class _Part(nn.Module):
    """Stands where a layer was."""

    def __init__(self, product: _Product, index: int) -> None:
        super().__init__()
        self.product = product
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        part: Tensor = self.product(x, self.index)
        return part


def fuse_projections(model: nn.Module) -> int:
    """Fuses what can be fused, in place; weights exist twice for one product at a time only.

    Only plain linear layers are fused, all with a bias or all without.

    Returns:
        How many products were made.
    """
    parents = [
        (module, names)
        for module in model.modules()
        for names in _TOGETHER
        if all(type(getattr(module, name, None)) is nn.Linear for name in names)
    ]
    return sum(_fuse(module, names) for module, names in parents)


def _fuse(module: nn.Module, names: Sequence[str]) -> bool:
    layers: list[nn.Linear] = [getattr(module, name) for name in names]
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in layers}
    if len(kinds) > 1:
        return False
    product = _Product(layers)
    for index, name in enumerate(names):
        setattr(module, name, _Part(product, index))
    return True
