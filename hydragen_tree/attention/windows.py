"""Layers that see only the last tokens: those of a sliding window, or those of their own chunk."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_tree.errors import InputError


@dataclass(frozen=True, slots=True)
class Window:
    """Which earlier tokens a query sees.

    Attributes:
        tokens: it sees so many at the most, its own included.
        is_chunked: sequences are cut into chunks of so many tokens, and it sees those of its own
            chunk (Llama 4); otherwise it sees the last ones, wherever it stands.
    """

    tokens: int
    is_chunked: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError("expected at least 1", setting="window", value=self.tokens)

    def view(self, positions: Tensor) -> "WindowView":
        """What queries at these positions `[queries]` of their sequences see."""
        positions = positions.to(torch.int32)
        if self.is_chunked:
            first = positions // self.tokens * self.tokens
        else:
            first = (positions - (self.tokens - 1)).clamp(min=0)
        return WindowView(positions, first)


@dataclass(frozen=True, eq=False)
class WindowView:
    """What the queries of a step see through a window.

    Attributes:
        positions: `[queries]` int32, where each stands in its sequence.
        first: `[queries]` int32, the first position that each sees.
    """

    positions: Tensor
    first: Tensor

    def skipped(self, lengths: Tensor) -> Tensor:
        """`[queries]` tokens that come first in each query's tail, and that it does not see.

        Args:
            lengths: `[queries]` tokens of each tail, the query's own included.
        """
        return (self.first - (self.positions + 1 - lengths)).clamp(min=0)

    @cached_property
    def first_on_host(self) -> NDArray[np.int32]:
        """`first` as an array."""
        found: NDArray[np.int32] = self.first.cpu().numpy()
        return found
