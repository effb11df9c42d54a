"""Linear layers that read the same input become one product: query, key and value; gate and up.

Few rows against many small matrices keep a GPU waiting; one product of the same bytes does not.
The model's own code stays as it is: it calls the first layer, which computes all of them, then the
others, which hand out what is theirs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _Shared:
    """The input of a fused product, and the outputs not yet handed out."""

    def __init__(self) -> None:
        self.input: Tensor | None = None
        self.rest: tuple[Tensor, ...] = ()


class _First(nn.Module):
    """Computes the fused product and returns the first part."""

    def __init__(self, layers: Sequence[nn.Linear], shared: _Shared) -> None:
        super().__init__()
        self.widths = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat(tuple(x.weight for x in layers)), requires_grad=False)
        biases = [x.bias for x in layers if x.bias is not None]
        self.bias = nn.Parameter(torch.cat(tuple(biases)), requires_grad=False) if biases else None
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(functional.linear(x, self.weight, self.bias), self.widths, -1)
        self.shared.input, self.shared.rest = x, parts[1:]
        return parts[0]


class _Next(nn.Module):
    """Returns the next part."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        shared = self.shared
        if x is not shared.input:
            raise RuntimeError("layers fused into one product were called with different inputs")
        part, shared.rest = shared.rest[0], shared.rest[1:]
        if not shared.rest:
            shared.input = None
        return part


def fuse_projections(model: nn.Module) -> int:
    """Fuses what can be fused, in place; no second copy of the weights stays in memory.

    Only plain linear layers are fused, all with a bias or all without.

    Returns:
        How many products were made.
    """
    fused = 0
    for block in list(model.modules()):
        for names in _TOGETHER:
            layers = [getattr(block, name, None) for name in names]
            if all(type(layer) is nn.Linear for layer in layers):
                fused += _fuse(block, names, [x for x in layers if isinstance(x, nn.Linear)])
    return fused


def _fuse(block: nn.Module, names: Sequence[str], layers: Sequence[nn.Linear]) -> bool:
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in layers}
    if len(kinds) > 1:
        return False
    shared = _Shared()
    setattr(block, names[0], _First(layers, shared))
    for name in names[1:]:
        setattr(block, name, _Next(shared))
    return True
