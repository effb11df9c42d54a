"""Rotary positions of queries and keys in one launch or call, where a model's own code gives them.

Models rotate by functions of the modules that their code is in. Such a function is replaced where a
kernel gives on random numbers what it gives; other models of the same code get the same numbers.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from functools import update_wrapper
from types import ModuleType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from hydragen_kernels.layer_forms import Rotation
from hydragen_tree.model.alike import is_same, numbers
from hydragen_tree.model.layer_kernels import LayerKernels

_TOKENS = 4  # that are tried
_SIZES = {Rotation.WHOLE: (16, 16), Rotation.LEADING: (24, 8), Rotation.TWICE: (16, 8)}  # likewise
_OTHER = (TypeError, ValueError, RuntimeError, IndexError)  # a function that is called otherwise

_Own = Callable[..., tuple[Tensor, Tensor]]
_Place = tuple[str, torch.dtype]  # a kind of device, and what is rotated there


def fuse_rotations(model: nn.Module, like: Tensor, kernels: LayerKernels) -> int:
    """Replaces the functions that rotate.

    Args:
        model: whose code calls them.
        like: one of its weights.
        kernels: of the device.

    Returns:
        How many rotate by kernels now.
    """
    return sum(_replace(*place, kind, like, kernels) for place, kind in _functions(model))


def unfuse_rotations(model: nn.Module) -> None:
    """Gives the modules of a model's code their own functions back."""
    for (code, name), kind in _functions(model):
        if isinstance(function := getattr(code, name), kind):
            setattr(code, name, function.own)


def _functions(model: nn.Module) -> "Iterator[tuple[tuple[ModuleType, str], type[_Fused]]]":
    """Where functions are that rotate, and what may take their places."""
    for code in {sys.modules[type(one).__module__] for one in model.modules()}:
        for kind in (_ByAngles, _ByPairs):
            if hasattr(code, kind.name):
                yield (code, kind.name), kind


def _replace(
    code: ModuleType, name: str, kind: "type[_Fused]", like: Tensor, kernels: LayerKernels
) -> bool:
    function = getattr(code, name)
    fused = function if isinstance(function, kind) else kind(function)
    if not fused.learn(like, kernels):
        return False
    setattr(code, name, fused)
    return True


class _Fused(ABC):
    """A model's function, and kernels in its place where they give what it gives.

    Args:
        own: the model's function.
    """

    name: ClassVar[str]  # of the function

    def __init__(self, own: _Own) -> None:
        update_wrapper(cast(_Own, self), own)
        self.own = own
        self._known: dict[_Place, tuple[LayerKernels, Set[Rotation]]] = {}

    def learn(self, like: Tensor, kernels: LayerKernels) -> bool:
        """Tries kernels on random numbers like a weight; whether they do any of it."""
        forms = self._forms(like, kernels)
        if forms:
            self._known[like.device.type, like.dtype] = kernels, forms
        return bool(forms)

    @abstractmethod
    def _forms(self, like: Tensor, kernels: LayerKernels) -> Set[Rotation]:
        """What kernels compute as the model's function does."""

    def _there(self, q: Tensor, k: Tensor) -> tuple[LayerKernels, Set[Rotation]] | None:
        """What is known where queries and keys are, if kernels take them."""
        takes = (
            q.ndim == k.ndim == 4
            and q.shape[0] == 1
            and q.shape[2:] == k.shape[2:]
            and q.dtype == k.dtype
            and q.shape[-1] % 2 == 0
            and q.stride(-1) == k.stride(-1) == 1
            and not (q.requires_grad or k.requires_grad)
        )
        return self._known.get((q.device.type, q.dtype)) if takes else None


class _ByAngles(_Fused):
    """By cosines and sines, of numbers that are half of those that are rotated apart."""

    name = "apply_rotary_pos_emb"

    def _forms(self, like: Tensor, kernels: LayerKernels) -> Set[Rotation]:
        return {form for form in Rotation if self._is_alike(like, kernels, form)}

    def _is_alike(self, like: Tensor, kernels: LayerKernels, form: Rotation) -> bool:
        dim, angles = _SIZES[form]
        q, k = _heads(like, dim)
        cos, sin = numbers(like, 2, 1, _TOKENS, angles)
        try:
            expected = self.own(q, k, cos, sin)
        except _OTHER:
            return False
        return all(map(is_same, kernels.rotate(q, k, cos, sin, form), expected))

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *others: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        known = None if others or named or not _are_angles(q, cos, sin) else self._there(q, k)
        form = None if known is None else _form(known[1], q.shape[-1], cos.shape[-1])
        if known is None or form is None:
            return self.own(q, k, cos, sin, *others, **named)
        return known[0].rotate(q, k, cos, sin, form)


def _form(known: Set[Rotation], dim: int, angles: int) -> Rotation | None:
    """By which so many angles rotate heads of so many numbers; None: by none that is known."""
    of_all = (Rotation.WHOLE, dim == angles), (Rotation.TWICE, dim == 2 * angles)
    fitting = (*of_all, (Rotation.LEADING, dim > angles))
    return next((form for form, fits in fitting if fits and form in known), None)


class _ByPairs(_Fused):
    """By complex numbers, of numbers that lie side by side: DeepSeek-V2."""

    name = "apply_rotary_emb"

    def _forms(self, like: Tensor, kernels: LayerKernels) -> Set[Rotation]:
        q, k = _heads(like, 16)
        angles = torch.view_as_complex(numbers(like, 1, _TOKENS, 8, 2).float())
        try:
            expected = self.own(q, k, angles)
        except _OTHER:
            return frozenset()
        is_alike = all(map(is_same, kernels.rotate_pairs(q, k, angles), expected))
        return {Rotation.WHOLE} if is_alike else frozenset()

    def __call__(
        self, q: Tensor, k: Tensor, angles: Tensor, *others: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        fits = (
            angles.shape == (1, q.shape[-2], q.shape[-1] // 2)
            and angles.dtype == torch.complex64
            and angles.is_contiguous()
        )
        known = self._there(q, k) if fits and not others and not named else None
        if known is None:
            return self.own(q, k, angles, *others, **named)
        return known[0].rotate_pairs(q, k, angles)


def _heads(like: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Queries and keys to try."""
    return numbers(like, 1, 3, _TOKENS, dim), numbers(like, 1, 2, _TOKENS, dim)


def _are_angles(q: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether cosines and sines are the tokens', in the dtype of what they rotate."""
    return (
        cos.ndim == 3
        and cos.shape == sin.shape
        and cos.shape[:2] == (1, q.shape[-2])
        and cos.dtype == sin.dtype == q.dtype
        and cos.shape[-1] % 2 == 0
        and cos.is_contiguous()
        and sin.is_contiguous()
    )
