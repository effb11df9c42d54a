"""Linear layers in 8 bits: weights and inputs are quantised to float8_e4m3fn, with scales.

    y = x W^T,    x ~ s q,    W ~ t p,    y ~ sum over groups of inputs of  s t (q p^T)

p and q are e4m3 numbers, scales are float32 and take the largest number of what they belong to to
448. Weights have a scale for each output channel, and inputs one for each row: the sum has one
term. Or weights have one for each block of 128 x 128, and inputs one for each row and 128 numbers
(DeepSeek-V3, arXiv 2412.19437, section 3.3). Inputs are quantised as they come, nothing is
calibrated; unless a checkpoint states one scale for all inputs of a layer.

GPUs multiply such numbers from compute capability 8.9 on. Where a device does not, a layer holds
what its quantised weights stand for in the model's dtype, and rounds its input likewise: the same
numbers up to that dtype's own rounding, but neither memory nor time is saved.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hydragen_kernels.inputs import FP8
from hydragen_kernels.reference import narrow
from hydragen_tree.model.rounded_linear import RoundedLinear, constant, joined_bias

BLOCK = 128  # channels and inputs that share a scale, where weights are scaled by blocks
STEP = 16  # sizes of weights have to be multiples of it
LARGEST = torch.finfo(FP8).max
_LEAST = 1e-12  # what the largest number of a group is taken for if it is less: no scale is 0
_FIRST_CAPABILITY = (8, 9)
_ROW_STEP = 4  # rows that cuBLAS takes with scales by blocks, 16 bytes of scales
_TOLERANCE = 0.02  # between the device's product and one in float32


class Quantised(NamedTuple):
    """Numbers of 8 bits and what they are to be multiplied by.

    Attributes:
        numbers: `[rows, width]` float8_e4m3fn.
        scale: `[rows, groups]` float32.
    """

    numbers: Tensor
    scale: Tensor

    def widened(self, dtype: torch.dtype) -> Tensor:
        """What they stand for: `[rows, width]`."""
        groups = self.numbers.float().unflatten(1, (self.scale.shape[1], -1))
        wide: Tensor = (groups * self.scale[:, :, None]).flatten(1).to(dtype)
        return wide


def quantise(x: Tensor, group: int) -> Quantised:
    """Quantises a matrix, with a scale for each row and `group` of neighbours.

    Args:
        x: `[rows, width]`, any floating dtype.
        group: divides the width.
    """
    groups = x.unflatten(1, (-1, group))
    scale = groups.abs().amax(2).float().clamp(min=_LEAST) * (1.0 / LARGEST)
    numbers = narrow(groups.float() * scale.reciprocal()[:, :, None], FP8)
    return Quantised(numbers.flatten(1), scale)


def widen_blocks(numbers: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What weights with a scale for each block stand for; the last blocks may be cut.

    Args:
        numbers: `[out, in]` float8_e4m3fn.
        scale: `[out / 128, in / 128]`, rounded up.
        dtype: of the result.
    """
    rows, width = numbers.shape
    spread = scale.float().repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)
    return (numbers.float() * spread[:, :width]).to(dtype)


class Fp8Linear(RoundedLinear):
    """A linear layer whose weights and inputs are quantised.

    Args:
        weight: `[out, in]` float8_e4m3fn.
        scale: `[out]` float32, or `[out / 128, in / 128]`.
        bias: `[out]`, added in its own dtype.
        input_scale: `[]` float32, for all inputs; None: found for each.
        dtype: of the model; weights are kept in it where the device multiplies no 8 bits.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        input_scale: Tensor | None = None,
        *,
        dtype: torch.dtype,
    ) -> None:
        by_blocks = scale.ndim == 2
        if not multiplies(weight.device, by_blocks=by_blocks):
            weight = widen(weight, scale, dtype)
        super().__init__(weight, weight.shape[0], weight.shape[1], bias)
        self.by_blocks = by_blocks
        self.scale = constant(scale.float().contiguous())
        self.input_scale = None if input_scale is None else constant(input_scale.float())

    @property
    def is_quantised(self) -> bool:
        """Whether the weights are held in 8 bits; else in the model's dtype."""
        return bool(self.weight.dtype == FP8)

    def stands_for(self, dtype: torch.dtype) -> Tensor:
        """What the weights stand for: `[out, in]`."""
        return widen(self.weight, self.scale, dtype) if self.is_quantised else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the dtype of the input."""
        quantised = self._quantise(x.reshape(-1, self.in_features))
        if self.is_quantised:
            out = self.product(quantised).to(x.dtype)
        else:
            out = functional.linear(quantised.widened(x.dtype), self.weight)
        if self.bias is not None:
            out = out + self.bias
        whole: Tensor = out.view(*x.shape[:-1], self.out_features)
        return whole

    def product(self, rows: Quantised) -> Tensor:
        """Of quantised rows with quantised weights: `[rows, out]` bfloat16, without the bias."""
        out: Tensor = _product(*rows, self.weight, self.scale)
        return out

    def _quantise(self, rows: Tensor) -> Quantised:
        if self.input_scale is None:
            return Quantised(*_quantise(rows, BLOCK if self.by_blocks else self.in_features))
        scale = self.input_scale.expand(rows.shape[0], 1).contiguous()
        return Quantised(narrow(rows.float() / self.input_scale, FP8), scale)

    @classmethod
    def of(cls, layer: nn.Linear, device: torch.device) -> "Fp8Linear":
        """A layer with its weights quantised on a device, a scale for each output channel."""
        weight = layer.weight.detach()
        numbers, scale = quantise(weight.to(device), layer.in_features)
        bias = None if layer.bias is None else layer.bias.detach().to(device)
        quantised = cls(numbers, scale[:, 0], bias, dtype=weight.dtype)
        quantised.original = weight
        return quantised

    @classmethod
    def side_by_side(cls, layers: Sequence["Fp8Linear"]) -> "Fp8Linear | None":
        """Layers of one input as one; None where that is another product."""
        first = layers[0]
        fixed = [layer.input_scale for layer in layers]
        if len({(layer.is_quantised, layer.by_blocks) for layer in layers}) > 1:
            return None
        if not first.is_quantised or len({None if s is None else float(s) for s in fixed}) > 1:
            return None
        if first.by_blocks and any(layer.out_features % BLOCK for layer in layers):
            return None
        return cls(
            torch.cat(tuple(layer.weight for layer in layers)),
            torch.cat(tuple(layer.scale for layer in layers)),
            joined_bias(layers),
            first.input_scale,
            dtype=first.weight.dtype,
        )


def fits(layer: nn.Linear) -> bool:
    """Whether a layer has sizes that GPUs multiply in 8 bits."""
    return layer.in_features % STEP == 0 and layer.out_features % STEP == 0


@cache
def multiplies(device: torch.device, *, by_blocks: bool = False) -> bool:
    """Whether a device multiplies numbers of 8 bits.

    By rows all GPUs from compute capability 8.9 on do. By blocks it depends on the card and on
    cuBLAS, so that a small product is tried, and compared.

    Args:
        device: asked once.
        by_blocks: with scales by blocks.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
        return False
    return not by_blocks or _is_right_by_blocks(device)


def _is_right_by_blocks(device: torch.device) -> bool:
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(5, 3 * BLOCK, device=device, generator=generator)
    weight = torch.randn(2 * BLOCK, 3 * BLOCK, device=device, generator=generator)
    weight, scale = quantise(weight, BLOCK)
    scale = scale[::BLOCK].contiguous()  # of each block's first row: any scales will do
    quantised = quantise(x, BLOCK)
    try:
        found = _product(*quantised, weight, scale).float()
    except (RuntimeError, ValueError):
        return False
    expected = quantised.widened(torch.float32) @ widen_blocks(weight, scale, torch.float32).T
    return bool((found - expected).norm() <= _TOLERANCE * expected.norm())


# The compiler sees opaque operations: left to itself it tries kernels of its own for the first
# number of rows that it meets, and then keeps one for all; and it divides in another way.
@torch.library.custom_op("hydragen::fp8_quantise", mutates_args=())
def _quantise(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """As of `quantise`, on a GPU in one launch."""
    if not x.is_cuda:
        numbers, scale = quantise(x, group)
        return numbers, scale
    from hydragen_kernels.quantise import quantise_groups  # imports Triton

    return quantise_groups(x, group)


@_quantise.register_fake
def _(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    rows, width = x.shape
    scale = x.new_empty((rows, width // group), dtype=torch.float32)
    return x.new_empty((rows, width), dtype=FP8), scale


@torch.library.custom_op("hydragen::fp8_product", mutates_args=())
def _product(numbers: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """`[rows, in]` and `[out, in]` to `[rows, out]` bfloat16; scales by rows or by blocks."""
    if weight_scale.ndim == 1:
        return torch._scaled_mm(
            numbers,
            weight.t(),
            scale,
            weight_scale[None],
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    rows, blocks = scale.shape
    extra = -rows % _ROW_STEP
    padded = functional.pad(numbers.view(torch.uint8), (0, 0, 0, extra)).view(FP8)
    # as cuBLAS reads them: neighbours lie along the rows, and along the inputs in fours
    by_row = functional.pad(scale.t(), (0, extra)).contiguous().t()
    by_block = functional.pad(weight_scale, (0, -blocks % 4)).contiguous().t()
    out: Tensor = functional.scaled_mm(
        padded,
        weight.t(),
        by_row,
        functional.ScalingType.BlockWise1x128,
        by_block,
        functional.ScalingType.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return out[:rows].contiguous()


@_product.register_fake
def _(numbers: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    return numbers.new_empty((numbers.shape[0], weight.shape[0]), dtype=torch.bfloat16)


def widen(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What weights in 8 bits stand for.

    Args:
        weight: `[out, in]` float8_e4m3fn.
        scale: `[out]`, or one for each block, see `widen_blocks`.
        dtype: of the result.
    """
    if scale.ndim == 2:
        return widen_blocks(weight, scale, dtype)
    return Quantised(weight, scale[:, None]).widened(dtype)
