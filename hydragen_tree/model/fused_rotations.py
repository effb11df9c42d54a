"""Rotary positions of queries and keys in one launch or call, where a model's own code gives them.

Models rotate by functions of the modules that their code is in. Such a function is replaced where a
kernel gives on random numbers what it gives; other models of the same code get the same numbers.
"""

import sys
from collections.abc import Callable, Set
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hydragen_kernels.layer_forms import Rotation
from hydragen_tree.attention.triton_backend import is_interpreting
from hydragen_tree.model.alike import is_same, numbers
from hydragen_tree.model.layer_kernels import LayerKernels

_TOKENS = 4  # that are tried
_SIZES = {Rotation.WHOLE: (16, 16), Rotation.LEADING: (24, 8), Rotation.TWICE: (16, 8)}  # likewise
_OTHER = (TypeError, ValueError, RuntimeError, IndexError)  # a function that is called otherwise

_Own = Callable[..., tuple[Tensor, Tensor]]


def fuse_rotations(model: nn.Module, like: Tensor, kernels: LayerKernels) -> int:
    """Replaces the functions that rotate.

    Args:
        model: whose code calls them.
        like: one of its weights.
        kernels: of the device.

    Returns:
        How many rotate by kernels now.
    """
    modules = {sys.modules[type(one).__module__] for one in model.modules()}
    return sum(
        _replace(code, name, kind, like, kernels)
        for code in modules
        for name, kind in (("apply_rotary_pos_emb", _Rotation), ("apply_rotary_emb", _Pairs))
        if hasattr(code, name)
    )


def _replace(
    code: ModuleType,
    name: str,
    kind: "type[_Rotation | _Pairs]",
    like: Tensor,
    kernels: LayerKernels,
) -> bool:
    own, device = getattr(code, name), like.device.type
    if isinstance(own, kind):
        own.kernels[device] = kernels
        return True
    fused = kind.like(own, like, kernels)
    if fused is not None:
        setattr(code, name, fused)
    return fused is not None


class _Rotation:
    """By cosines and sines, of numbers that are half of those that are rotated apart.

    Args:
        own: the model's function.
        kernels: of each type of devices that has had such a model.
        forms: that kernels compute as the model does.
    """

    def __init__(self, own: _Own, kernels: dict[str, LayerKernels], forms: Set[Rotation]) -> None:
        wraps(own)(self)
        self._own, self.kernels, self._forms = own, kernels, forms

    @classmethod
    def like(cls, own: _Own, like: Tensor, kernels: LayerKernels) -> "_Rotation | None":
        """In place of a model's function; None: kernels do nothing that it does."""
        forms = {form for form in Rotation if cls._is_alike(own, like, kernels, form)}
        return cls(own, {like.device.type: kernels}, forms) if forms else None

    @staticmethod
    def _is_alike(own: _Own, like: Tensor, kernels: LayerKernels, form: Rotation) -> bool:
        """Whether a function takes angles of this form, and gives what a kernel gives."""
        dim, angles = _SIZES[form]
        q, k = _heads(like, dim)
        cos, sin = numbers(like, 2, 1, _TOKENS, angles)
        try:
            expected = own(q, k, cos, sin)
        except _OTHER:
            return False
        return all(map(is_same, kernels.rotate(q, k, cos, sin, form), expected))

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *others: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        kernels, form = self.kernels.get(q.device.type), self._form(q.shape[-1], cos.shape[-1])
        is_known = kernels is not None and form is not None and not others and not named
        if not is_known or not _rotates(q, k, cos) or not _are_angles(q, cos, sin):
            return self._own(q, k, cos, sin, *others, **named)
        assert kernels is not None
        assert form is not None
        return kernels.rotate(q, k, cos, sin, form)

    def _form(self, dim: int, angles: int) -> Rotation | None:
        """By which so many angles rotate heads of so many numbers; None: by none that is known."""
        of_all = (Rotation.WHOLE, dim == angles), (Rotation.TWICE, dim == 2 * angles)
        fitting = (*of_all, (Rotation.LEADING, dim > angles))
        return next((form for form, fits in fitting if fits and form in self._forms), None)


class _Pairs:
    """By complex numbers, of numbers that lie side by side: DeepSeek-V2.

    Args:
        own: the model's function.
        kernels: of each type of devices that has had such a model.
    """

    def __init__(self, own: _Own, kernels: dict[str, LayerKernels]) -> None:
        wraps(own)(self)
        self._own, self.kernels = own, kernels

    @classmethod
    def like(cls, own: _Own, like: Tensor, kernels: LayerKernels) -> "_Pairs | None":
        """In place of a model's function; None: it does something else."""
        q, k = _heads(like, 16)
        angles = torch.view_as_complex(numbers(like, 1, _TOKENS, 8, 2).float())
        try:
            expected = own(q, k, angles)
        except _OTHER:
            return None
        is_alike = all(map(is_same, kernels.rotate_pairs(q, k, angles), expected))
        return cls(own, {like.device.type: kernels}) if is_alike else None

    def __call__(
        self, q: Tensor, k: Tensor, angles: Tensor, *others: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        kernels = self.kernels.get(q.device.type)
        shape = 1, q.shape[2], q.shape[-1] // 2
        is_known = kernels is not None and not others and not named
        if not is_known or angles.shape != shape or not _rotates(q, k, angles):
            return self._own(q, k, angles, *others, **named)
        assert kernels is not None
        return kernels.rotate_pairs(q, k, angles)


def _heads(like: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Queries and keys to try."""
    return numbers(like, 1, 3, _TOKENS, dim), numbers(like, 1, 2, _TOKENS, dim)


def _rotates(q: Tensor, k: Tensor, angles: Tensor) -> bool:
    """Whether the device's kernels take them."""
    return (
        (q.is_cuda or q.dtype == torch.float32 or is_interpreting())
        and q.ndim == k.ndim == 4
        and q.shape[0] == 1
        and q.shape[2:] == k.shape[2:]
        and q.dtype == k.dtype
        and q.shape[-1] % 2 == 0
        and q.stride(-1) == k.stride(-1) == 1
        and angles.is_contiguous()
        and not (q.requires_grad or k.requires_grad)
    )


def _are_angles(q: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether cosines and sines are the tokens', in the dtype of what they rotate."""
    return (
        cos.shape == sin.shape
        and cos.shape[:2] == (1, q.shape[2])
        and cos.dtype == sin.dtype == q.dtype
        and cos.shape[-1] % 2 == 0
        and sin.is_contiguous()
    )
