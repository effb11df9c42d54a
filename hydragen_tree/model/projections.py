"""Linear layers as the device likes them; the model's own code stays as it is.

On a GPU, layers that read the same input become one product: query, key and value; gate and up.
Few rows against many small matrices keep a GPU waiting; one product of the same bytes does not.
Whichever of the layers the model calls first computes all of them, and the others hand out what is
theirs. A call with another input computes anew, so that the result is right in any order.

On a CPU, oneDNN computes them from weights that are packed once, in less time than MKL from plain
ones, in half of it with a few rows (NOTES.md). It compiles a kernel for every new number of
rows, so the caller pads them.
"""

import platform
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydragen_tree.model.fp8_linear import Fp8Linear
from hydragen_tree.model.narrow_linear import NarrowLinear
from hydragen_tree.model.rounded_linear import RoundedLinear

_LINEAR = nn.Linear, Fp8Linear, NarrowLinear
_MOST_COPIED_BYTES = 256 << 20
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _Handed:
    """What a fused product has computed and not yet handed out."""

    def __init__(self) -> None:
        self.input: Tensor | None = None
        self.parts: tuple[Tensor, ...] = ()
        self.left = 0


class _Product(nn.Module):
    """Several linear layers of one input as one layer."""

    def __init__(self, layer: nn.Linear | RoundedLinear, widths: list[int]) -> None:
        super().__init__()
        self.layer, self.widths = layer, widths
        self.handed = _Handed()

    def forward(self, x: Tensor, index: int) -> Tensor:
        """One layer's output; the input is let go with the last of them."""
        handed = self.handed
        if x is not handed.input:
            handed.parts = torch.split(self.layer(x), self.widths, -1)
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

    Only plain or quantised linear layers are fused, all with a bias or all without.

    Returns:
        How many products were made.
    """
    parents = [
        (module, names)
        for module in model.modules()
        for names in _TOGETHER
        if all(type(getattr(module, name, None)) in _LINEAR for name in names)
    ]
    return sum(_fuse(module, names) for module, names in parents)


def _fuse(module: nn.Module, names: Sequence[str]) -> bool:
    layers = [getattr(module, name) for name in names]
    whole = join_projections(layers)
    if whole is None:
        return False
    product = _Product(whole, [layer.out_features for layer in layers])
    for index, name in enumerate(names):
        setattr(module, name, _Part(product, index))
    return True


def join_projections(layers: Sequence[nn.Module]) -> nn.Linear | RoundedLinear | None:
    """Layers of one input as one, their outputs side by side; None where they are not of one kind.

    Args:
        layers: any modules; plain or quantised linear ones can be joined.
    """
    linear = [x for x in layers if isinstance(x, _LINEAR) and type(x) in _LINEAR]
    kinds = {(x.in_features, x.weight.dtype, x.weight.device, x.bias is None) for x in linear}
    return _side_by_side(linear) if len(linear) == len(layers) and len(kinds) == 1 else None


def _side_by_side(layers: Sequence[nn.Linear | RoundedLinear]) -> nn.Linear | RoundedLinear | None:
    """Layers of one kind as one; None where quantised ones cannot be."""
    rounded = [layer for layer in layers if isinstance(layer, RoundedLinear)]
    if rounded:
        kinds = {type(layer) for layer in layers}
        return type(rounded[0]).side_by_side(rounded) if len(kinds) == 1 else None
    weight = torch.cat(tuple(layer.weight for layer in layers))
    biases = tuple(layer.bias for layer in layers if layer.bias is not None)
    whole = nn.Linear(weight.shape[1], weight.shape[0], bool(biases), device="meta")
    whole.weight = nn.Parameter(weight, requires_grad=False)
    if biases:
        whole.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return whole


class _Packed(nn.Module):
    """A linear layer in float32 whose weights oneDNN has laid out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias
        self.in_features = layer.in_features

    def forward(self, x: Tensor) -> Tensor:
        """`[..., rows, inputs]` to `[..., rows, outputs]`."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


def has_packed_products() -> bool:
    """Whether torch has oneDNN's products; only where they were measured, on x86-64."""
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


def padding(rows: int) -> int:
    """Rows to add, so that packed products meet few different numbers of them."""
    if rows == 1:  # a number that is met often
        return 0
    return -rows % (8 if rows <= 32 else 32)


def _is_small(layer: nn.Linear) -> bool:
    return layer.weight.nbytes <= _MOST_COPIED_BYTES


def pack_projections(model: nn.Module) -> int:
    """Packs the weights of plain linear layers in float32, in place, where torch has oneDNN.

    Weights that something else uses too stay as they are, but for those of a head, tied to the
    embeddings: it gets a copy of its own if that is small.

    Returns:
        How many layers were packed.
    """
    if not has_packed_products():
        return 0
    users = Counter(
        id(parameter) for module in model.modules() for parameter in module._parameters.values()
    )
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    homes = [
        (parent, name)
        for parent in model.modules()
        if "Router" not in type(parent).__name__  # LongCat's reads its layer's weights itself
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and (users[id(layer.weight)] == 1 or (layer is head and _is_small(layer)))
    ]
    for parent, name in homes:
        setattr(parent, name, _Packed(getattr(parent, name)))
    return len(homes)


def products_of(model: nn.Module) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
    """The matrix products of a step: the width of each one's input, and what computes it."""
    kinds = (nn.Linear, _Packed, RoundedLinear)
    return [(one.in_features, one) for one in model.modules() if isinstance(one, kinds)]
