"""What every attention backend offers: a refusal with its reason, a prepared plan, an explanation.

A plan is prepared once a step; each of the model's layers then calls `attend` of what came out.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from hydragen_kernels.reference import Partial
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.windows import WindowView


class Attend(Protocol):
    """Attention of one step, called by every layer."""

    def __call__(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        view: WindowView | None = None,
        latent: LatentTails | None = None,
    ) -> Tensor:
        """Attention of one layer.

        Args:
            layer: number of the layer, 0 the first.
            queries: `[queries, q_heads, head_dim]`.
            keys: `[kv_heads, slots, head_dim]`, the layer's arena.
            values: like `keys`.
            scale: factor on the scores.
            softcap: scores become `softcap * tanh(score / softcap)`; None: they do not.
            sinks: `[q_heads]`, one more score per head that has no value; or None.
            view: what each query sees of its sequence; None: all that the plan says.
            latent: what is met in tails in place of `keys` and `values`; None: those.

        Returns:
            `[queries, q_heads, head_dim]` in the queries' dtype.
        """
        ...


class Prepared(Protocol):
    """A plan made ready for one kind of heads."""

    @property
    def attend(self) -> Attend:
        """What each layer calls."""
        ...


class Backend(ABC):
    """One way to compute tree attention."""

    @abstractmethod
    def why_not(self, heads: Heads) -> str | None:
        """Why it cannot serve these heads, as a clause without a subject; None if it can."""

    def key_group(self, heads: Heads) -> int:
        """Keys that it takes in together: segments may end at multiples of so many tokens of a
        sequence, but for the last one of a path."""
        return 1

    @abstractmethod
    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """Makes ready what depends on the plan alone, for heads that `why_not` lets pass."""

    @abstractmethod
    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""


def with_sinks(part: Partial, sinks: Tensor | None, queries: Tensor) -> Tensor:
    """The result of a finished partial: sinks merged in, in the queries' dtype."""
    out = part.out
    if sinks is not None:  # merging with (0, sink) only rescales
        out = out * torch.sigmoid(part.lse - sinks.to(part.lse.dtype))[..., None]
    return out.to(queries.dtype)
