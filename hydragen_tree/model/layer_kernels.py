"""What computes norms, gates and rotations: Triton's kernels on a GPU, C on a CPU."""

from typing import Protocol

from torch import Tensor

from hydragen_kernels.layer_forms import Activation, NormForm, Rotation


class LayerKernels(Protocol):
    """The modules `hydragen_kernels.layers` and `hydragen_kernels.ordered_layers`."""

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
