"""Partial slots of ordered kernels: where segments leave states of rows, and tails find them.

What a state is, `ordered_fold` says.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.ordered_fold import add_states
from hydragen_kernels.ordered_schedule import KEY_GROUP

_KEY_GROUP = tl.constexpr(KEY_GROUP)


class States(NamedTuple):
    """Partial slots of every row; fp32.

    Attributes:
        peak: `[slots, tokens, q_heads]`.
        mass: `[slots, tokens, q_heads, KEY_GROUP]`; lies as the peaks do.
        acc: `[slots, tokens, q_heads, head_dim]`.
    """

    peak: Tensor
    mass: Tensor
    acc: Tensor

    @classmethod
    def cut(cls, memory: Tensor, slots: int, tokens: int, q_heads: int, head_dim: int) -> "States":
        """Those that lie in fp32 memory, one behind the other."""
        size = slots * tokens * q_heads
        widths = 1, KEY_GROUP, head_dim
        parts = memory[: size * sum(widths)].split([size * width for width in widths])
        peak, mass, acc = (
            part.view(slots, tokens, q_heads, width)
            for part, width in zip(parts, widths, strict=True)
        )
        return cls(peak.squeeze(3), mass, acc)

    @classmethod
    def empty(
        cls, slots: int, tokens: int, q_heads: int, head_dim: int, device: torch.device | str
    ) -> "States":
        """New ones, not written."""
        size = slots * tokens * q_heads * (1 + KEY_GROUP + head_dim)
        memory = torch.empty(size, dtype=torch.float32, device=device)
        return cls.cut(memory, slots, tokens, q_heads, head_dim)


def check_states(states: States, tokens: int, q_heads: int, head_dim: int) -> None:
    """Check partial slots against the rows they belong to.

    Raises:
        ValueError: a shape, dtype or stride is wrong.
    """
    size = [states.peak.shape[0], tokens, q_heads]
    expected = [size, [*size, KEY_GROUP], [*size, head_dim]]
    shapes = [list(x.shape) for x in states]
    if shapes != expected:
        raise ValueError(f"expected states {expected}, got {shapes}")
    if any(x.dtype != torch.float32 or x.stride(-1) != 1 for x in states):
        raise ValueError("expected states of fp32, their last dimension contiguous")
    of_peaks = [KEY_GROUP * stride for stride in states.peak.stride()]
    if list(states.mass.stride()[:3]) != of_peaks:
        raise ValueError(f"expected masses with strides {of_peaks}, as peaks have them")


@triton.jit
def _places(at_peak):
    """Where masses lie, of peaks at these places."""
    return at_peak[:, None] * _KEY_GROUP + tl.arange(0, _KEY_GROUP)[None, :]


@triton.jit
def load_state(memory, at_peak, at_acc, is_member, is_element):
    """A row's state in a partial slot."""
    peaks, masses, accs = memory
    peak = tl.load(peaks + at_peak, mask=is_member, other=0.0)
    mass = tl.load(masses + _places(at_peak), mask=is_member[:, None], other=0.0)
    acc = tl.load(accs + at_acc, mask=is_element, other=0.0)
    return peak, mass, acc


@triton.jit
def store_state(memory, at_peak, at_acc, is_member, is_element, peak, mass, acc):
    """Write a state of rows into a partial slot."""
    peaks, masses, accs = memory
    tl.store(peaks + at_peak, peak, mask=is_member)
    tl.store(masses + _places(at_peak), mass, mask=is_member[:, None])
    tl.store(accs + at_acc, acc, mask=is_element)


@triton.jit
def add_stored(
    peak, mass, acc, memory, at_peak, at_acc, stride_s, stride_as, n, is_member, is_element
):
    """A state, and behind it those in a row's first n slots."""
    for _ in range(n):
        one_peak, one_mass, one_acc = load_state(memory, at_peak, at_acc, is_member, is_element)
        peak, mass, acc = add_states(peak, mass, acc, one_peak, one_mass, one_acc)
        at_peak += stride_s
        at_acc += stride_as
    return peak, mass, acc
