"""Whether a form of our own computes what a model's own code does, by trying both."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_OTHER_SHARE = 0.02  # of the numbers may be rounded the other way


def takes_one(forward: Callable[..., Any]) -> bool:
    """Whether a function has one parameter."""
    return len(inspect.signature(forward).parameters) == 1


def numbers(like: Tensor, *shape: int) -> Tensor:
    """Random ones, the same for the same shape."""
    generator = torch.Generator(like.device).manual_seed(0)
    return torch.randn(shape, generator=generator, device=like.device).to(like.dtype)


def is_same(found: Tensor, expected: Tensor) -> bool:
    """Whether numbers are the same but for few that are rounded the other way."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    step = 2 * torch.finfo(found.dtype).eps
    if not torch.allclose(found.float(), expected.float(), rtol=4 * step, atol=step):
        return False
    return found.dtype == torch.float32 or bool((found != expected).float().mean() <= _OTHER_SHARE)


def is_near(found: Tensor, expected: Tensor) -> bool:
    """Whether two results of products are those of the same numbers, relative by their norm."""
    difference = (found.float() - expected.float()).norm()
    return bool(difference <= 8 * torch.finfo(found.dtype).eps * expected.float().norm())
