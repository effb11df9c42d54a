"""What lies between a layer's products, in one launch or call each instead of five to nine.

On a GPU Triton's kernels do it (`layers`), in float32 on a CPU C (`ordered_layers`). Models differ
in where they round and in what they multiply by. So nothing is taken on trust: a norm, a gated
activation or a rotation is replaced where the kernel gives on random numbers what the model's own
code gives, and stays as it is elsewhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydragen_kernels.layer_forms import Activation, NormForm
from hydragen_tree.model.alike import is_near, is_same, numbers, takes_one
from hydragen_tree.model.fused_rotations import fuse_rotations
from hydragen_tree.model.layer_kernels import LayerKernels
from hydragen_tree.model.projections import join_projections
from hydragen_tree.model.rounded_linear import RoundedLinear

_PROBES = 4  # rows


class Fused(NamedTuple):
    """How much was replaced."""

    norms: int
    gated_layers: int
    rotations: int


class FusedNorm(nn.Module):
    """An RMS norm in one launch."""

    def __init__(
        self, weight: nn.Parameter, eps: float, form: NormForm, kernels: LayerKernels
    ) -> None:
        super().__init__()
        self.weight, self.eps, self.form = weight, eps, form
        self._rms_norm = kernels.rms_norm

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same."""
        return self._rms_norm(x, self.weight, self.eps, self.form)


class _GatedLayer(nn.Module):
    """down(activation(gate(x)) * up(x)): two products, and one launch between."""

    def __init__(
        self,
        gate_up: nn.Linear | RoundedLinear,
        down: nn.Module,
        activation: Activation,
        kernels: LayerKernels,
    ) -> None:
        super().__init__()
        self.gate_up, self.down, self.activation = gate_up, down, activation
        self._gated = kernels.gated

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same."""
        out: Tensor = self.down(self._gated(self.gate_up(x), self.activation))
        return out


@torch.inference_mode()
def fuse_layers(model: PreTrainedModel, kernels: LayerKernels) -> Fused:
    """Replaces in place what the kernels compute alike.

    Args:
        model: where the kernels run; its products not fused yet.
        kernels: for its device and dtype.
    """
    like: Tensor = model.get_input_embeddings().weight
    return Fused(
        _replace(model, lambda module: _norm_like(module, like, kernels)),
        _replace(model, lambda module: _gated_like(module, like, kernels)),
        fuse_rotations(model, like, kernels),
    )


def _replace(parent: nn.Module, fuse: Callable[[nn.Module], nn.Module | None]) -> int:
    """Replaces modules below one, each let go before the next: weights exist twice once only."""
    count = 0
    for name in [name for name, _ in parent.named_children()]:
        fused = fuse(getattr(parent, name))
        if fused is None:
            count += _replace(getattr(parent, name), fuse)
        else:
            setattr(parent, name, fused)
            count += 1
    return count


def _norm_like(module: nn.Module, like: Tensor, kernels: LayerKernels) -> nn.Module | None:
    """The same norm in one launch, if it is an RMS norm of one of the known forms."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not takes_one(module.forward):
        return None
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or len([*module.parameters()]) > 1:
        return None
    if weight.dtype != like.dtype:
        return None
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float):
        return None
    x = numbers(like, _PROBES, weight.shape[0])
    expected = module(x)
    norms = (FusedNorm(weight, eps, form, kernels) for form in NormForm)
    return next((norm for norm in norms if is_same(norm(x), expected)), None)


def _gated_like(module: nn.Module, like: Tensor, kernels: LayerKernels) -> nn.Module | None:
    """The same gated layer with its products joined, if it is one of the known activations."""
    gate, up, down = (getattr(module, f"{name}_proj", None) for name in ("gate", "up", "down"))
    act = getattr(module, "act_fn", None)
    if act is None or gate is None or up is None or down is None or not takes_one(module.forward):
        return None
    joined = join_projections([gate, up])
    if joined is None:
        return None
    one, other = numbers(like, 2, _PROBES, gate.out_features)
    expected = act(one) * other
    x = numbers(like, _PROBES, joined.in_features)
    for activation in Activation:
        fused = _GatedLayer(joined, down, activation, kernels)
        is_alike = is_same(kernels.gated(torch.cat([one, other], -1), activation), expected)
        # products of other sizes round otherwise; large numbers show what a layer clamps
        if is_alike and all(is_near(fused(y), module(y)) for y in (x, 16 * x)):
            return fused
    return None
