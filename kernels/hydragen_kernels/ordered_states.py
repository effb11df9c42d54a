"""Partial slots of ordered kernels: where segments leave states of rows, and tails find them.

What a state is, `ordered_fold` says.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from hydragen_kernels.ordered_fold import add_states


class States(NamedTuple):
    """Partial slots of every row; fp32.

    Attributes:
        peak: `[slots, tokens, q_heads]`.
        mass: `[slots, tokens, q_heads]`.
        acc: `[slots, tokens, q_heads, head_dim]`.
    """

    peak: Tensor
    mass: Tensor
    acc: Tensor

    @classmethod
    def cut(cls, memory: Tensor, slots: int, tokens: int, q_heads: int, head_dim: int) -> "States":
        """Those that lie in fp32 memory, one behind the other."""
        size = slots * tokens * q_heads
        peak, mass, acc = memory[: size * (head_dim + 2)].split([size, size, size * head_dim])
        shape = slots, tokens, q_heads
        return cls(peak.view(shape), mass.view(shape), acc.view(*shape, head_dim))

    @classmethod
    def empty(
        cls, slots: int, tokens: int, q_heads: int, head_dim: int, device: torch.device | str
    ) -> "States":
        """New ones, not written."""
        size = slots * tokens * q_heads * (head_dim + 2)
        memory = torch.empty(size, dtype=torch.float32, device=device)
        return cls.cut(memory, slots, tokens, q_heads, head_dim)


def check_states(states: States, tokens: int, q_heads: int, head_dim: int) -> None:
    """Check partial slots against the rows they belong to.

    Raises:
        ValueError: a shape, dtype or stride is wrong.
    """
    expected = [states.peak.shape[0], tokens, q_heads, head_dim]
    shapes = [list(x.shape) for x in states]
    if shapes != [expected[:3], expected[:3], expected]:
        raise ValueError(f"expected states {expected[:3]} twice and {expected}, got {shapes}")
    if any(x.dtype != torch.float32 or x.stride(-1) != 1 for x in states):
        raise ValueError("expected states of fp32, their last dimension contiguous")


@triton.jit
def load_state(memory, at_peak, at_acc, is_member, is_element):
    """A row's state in a partial slot; the mass as `[MEMBERS, 16]`."""
    peaks, masses, accs = memory
    peak = tl.load(peaks + at_peak, mask=is_member, other=0.0)
    mass = tl.load(masses + at_peak, mask=is_member, other=0.0)
    acc = tl.load(accs + at_acc, mask=is_element, other=0.0)
    return peak, mass[:, None] + tl.zeros([1, 16], tl.float32), acc


@triton.jit
def store_state(memory, at_peak, at_acc, is_member, is_element, peak, mass, acc):
    """Write a state of rows into a partial slot."""
    peaks, masses, accs = memory
    tl.store(peaks + at_peak, peak, mask=is_member)
    tl.store(masses + at_peak, tl.max(mass, 1), mask=is_member)  # all the same
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
