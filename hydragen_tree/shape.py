"""Sizes of a model, all that plans and budgets need to know of it."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Count = TypeVar("Count", int, NDArray[Any])


@dataclass(frozen=True, slots=True)
class KVShape:
    """Sizes of a model's keys and values, all that plans and budgets need to know of a model.

    Attributes:
        layers: number of attention layers.
        q_heads: query heads.
        kv_heads: key-value heads.
        head_dim: width of a head.
        itemsize: bytes of one number.
        state_bytes: of one sequence's running states, in layers that keep those instead.
        layer_state_bytes: of them, those of the layer that keeps most.
        latent_dim: numbers of a token's latent vector, where tails hold those in place of keys and
            values (`model.latent`); 0: they do not.
        windowed: which of the attention layers see the last tokens only, and keep no others of a
            prompt, in an arena of their own.
        window_tokens: that any of them sees at the most.
    """

    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int
    itemsize: int
    state_bytes: int = 0
    layer_state_bytes: int = 0
    latent_dim: int = 0
    windowed: frozenset[int] = frozenset()
    window_tokens: int = 0

    @property
    def layer_token_bytes(self) -> int:
        """Bytes of one token's key and value in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.itemsize

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return self.layers * self.layer_token_bytes

    def held_bytes(self, n_tokens: Count) -> Count:
        """Bytes that are held of a segment of so many tokens; for a number, or for an array."""
        seen = np.minimum(n_tokens, self.window_tokens)
        full = self.layers - len(self.windowed)
        held: Count = (n_tokens * full + seen * len(self.windowed)) * self.layer_token_bytes
        return held

    @property
    def tail_token_bytes(self) -> int:
        """Bytes of what a tail holds of one token in all layers."""
        if not self.latent_dim:
            return self.token_bytes
        return self.layers * self.latent_dim * self.itemsize

    @property
    def merge_bytes(self) -> int:
        """Bytes of one row's fp32 partial in one layer, written and read back."""
        return 2 * 4 * self.q_heads * (self.head_dim + 1)
