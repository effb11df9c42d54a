"""What computes norms, gates and rotations: Triton's kernels on a GPU, C on a CPU."""

from types import SimpleNamespace
from typing import Protocol, cast

from torch import Tensor

from hydragen_kernels import ordered_layers
from hydragen_kernels.layer_forms import Activation, NormForm, Rotation
from hydragen_tree.imports import hidden_from_compiler


class LayerKernels(Protocol):
    """What `hydragen_kernels.layers` and `hydragen_kernels.ordered_layers` both have."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
        """A norm of rows."""

    def gated(self, x: Tensor, activation: Activation) -> Tensor:
        """activation(gate) * up."""

    def rotate(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, form: Rotation = Rotation.WHOLE
    ) -> tuple[Tensor, Tensor]:
        """Rotary positions."""

    def rotate_pairs(self, q: Tensor, k: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary positions of numbers that lie side by side."""


def triton_kernels() -> LayerKernels:
    """Those of a GPU; imports Triton."""
    from hydragen_kernels import layers

    return layers


def c_kernels() -> LayerKernels:
    """Those of a CPU, in C, which torch's compiler does not look into."""
    names = "rms_norm", "gated", "rotate", "rotate_pairs"
    hidden = {name: hidden_from_compiler(getattr(ordered_layers, name)) for name in names}
    return cast(LayerKernels, SimpleNamespace(**hidden))
