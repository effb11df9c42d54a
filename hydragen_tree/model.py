"""The adapter to transformers: any causal model that lets its attention be replaced.

The model runs its own code for embeddings, rotary positions, norms and layers; only attention is
ours. A step's tokens are packed into one sequence of batch size 1, with explicit positions, and
the plan says who sees whom.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from hydragen_tree.attention import tree_attention
from hydragen_tree.cache import KVCache
from hydragen_tree.plan import Plan

IMPLEMENTATION = "hydragen_tree"


@dataclass(frozen=True, slots=True)
class Step:
    """What attention needs to know of the tokens going through the model.

    Attributes:
        cache: where new keys and values go.
        slots: `[tokens]` int64, the slot of each token.
        plan: which queries meet which slots.
        backend: see `tree_attention`.
    """

    cache: KVCache
    slots: Tensor
    plan: Plan
    backend: str


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_step: Step,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query `[1, q_heads, tokens, head_dim]`."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    cache = tree_step.cache
    cache.write(layer, tree_step.slots, key[0], value[0])
    out = tree_attention(
        query[0].transpose(0, 1),
        cache.keys[layer],
        cache.values[layer],
        tree_step.plan,
        scale=scaling,
        softcap=softcap,
        sinks=s_aux,
        backend=tree_step.backend,
    )
    return out[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    """The plan takes the place of masks."""


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)


class TreeModel:
    """A causal language model whose attention walks the tree.

    Args:
        model: a transformers model; its attention implementation is replaced.
        backend: attention backend, see `tree_attention`.
    """

    def __init__(self, model: PreTrainedModel, backend: str = "auto") -> None:
        model.set_attn_implementation(IMPLEMENTATION)
        model.eval()
        self.model = model
        self.backend = backend

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of keys and values."""
        return self.model.dtype

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        slots: Tensor,
        keep: Tensor,
        cache: KVCache,
        plan: Plan,
    ) -> Tensor:
        """Runs packed tokens through the model and stores their keys and values.

        Args:
            tokens: `[tokens]` int64.
            positions: `[tokens]` int64, position of each in its own sequence.
            slots: `[tokens]` int64, slot of each.
            keep: `[kept]` int64, the tokens whose logits are wanted.
            cache: the arena.
            plan: which queries meet which slots, those just written included.

        Returns:
            Logits `[kept, vocabulary]` in the model's dtype.
        """
        output = self.model(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=keep,
            tree_step=Step(cache, slots, plan, self.backend),
        )
        logits: Tensor = output.logits[0]
        return logits
