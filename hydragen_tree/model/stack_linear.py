"""A linear layer that holds a stack of blocks of one bit a number, see `sign_blocks`.

    y = x W^T,     W = sum over b of  S_b * (U_b V_b^T)

The packed blocks are what stays in memory. W is made of them for each call, and let go; few rows on
a GPU are multiplied with the blocks as they are (`hydragen_kernels.stack`).
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from hydragen_tree.attention.triton_backend import is_interpreting
from hydragen_tree.model.sign_blocks import SignBlock, unpack_signs

FUSED_ROWS = 128  # at the most that are multiplied with blocks; measured on an H200


class StackLinear(nn.Module):
    """A linear layer made of blocks.

    Args:
        blocks: at least one, all of one rank.
        bias: `[out]`, added in its own dtype.

    Attributes:
        in_features: numbers of an input.
        out_features: numbers of an output.
    """

    def __init__(self, blocks: Sequence[SignBlock], bias: Tensor | None = None) -> None:
        super().__init__()
        signs, left, right = map(torch.stack, zip(*blocks, strict=True))
        self.out_features, self.in_features = left.shape[1], right.shape[1]
        self.signs = _constant(signs)  # [blocks, out, ceil(in / 8)]
        self.left = _constant(left)  # [blocks, out, rank]
        self.right = _constant(right)  # [blocks, in, rank]
        self.bias = None if bias is None else _constant(bias)
        self._signs_of_byte = _signs_of_byte(left.device)
        self._has_kernels = left.is_cuda or is_interpreting()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the dtype of the input."""
        rows = x.numel() // self.in_features
        if rows > FUSED_ROWS or not self._has_kernels:
            return functional.linear(x, self.weight(x.dtype), self.bias)
        flat = x.reshape(rows, self.in_features)
        out: Tensor = _product(flat, self.signs, self.left, self.right, self.bias)
        return out.view(*x.shape[:-1], self.out_features)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """What the blocks stand for: `[out, in]`."""
        if self._has_kernels:
            made: Tensor = _weight(self.signs, self.left, self.right, dtype)
            return made
        whole = torch.zeros(self.out_features, self.in_features, device=self.left.device)
        for signs, left, right in zip(self.signs, self.left, self.right, strict=True):
            # eight signs at a time are looked up: a third of the time of shifting them out
            plus_minus = functional.embedding(signs.int(), self._signs_of_byte).flatten(1)
            size = left.float() @ right.float().T
            whole.addcmul_(plus_minus[:, : self.in_features], size)
        return whole.to(dtype)


# The compiler sees opaque operations; layers may be compiled.
@torch.library.custom_op("hydragen::stack_product", mutates_args=())
def _product(x: Tensor, signs: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    from hydragen_kernels.stack import stack_product  # imports Triton

    return stack_product(x, signs, left, right, bias)


@_product.register_fake
def _(x: Tensor, signs: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], left.shape[1])


@torch.library.custom_op("hydragen::stack_weight", mutates_args=())
def _weight(signs: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    from hydragen_kernels.stack import stack_weight

    return stack_weight(signs, left, right, dtype)


@_weight.register_fake
def _(signs: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    return left.new_empty((left.shape[1], right.shape[1]), dtype=dtype)


@cache
def _signs_of_byte(device: torch.device) -> Tensor:
    """The eight signs that a byte packs: `[256, 8]` float32, one table for all layers."""
    with torch.inference_mode(False):
        every = torch.arange(256, dtype=torch.uint8, device=device)[:, None]
        return unpack_signs(every, 8).float() * 2 - 1


def _constant(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)
