"""The definition itself: `hydragen_kernels.reference`, with tails as one more segment a row."""

import torch
from torch import Tensor

from hydragen_kernels import reference
from hydragen_kernels.inputs import movable
from hydragen_tree.attention.backend import Backend, with_sinks
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.windows import WindowView


class ReferenceBackend(Backend):
    """The plain recursion, for any heads."""

    def why_not(self, heads: Heads) -> None:
        """It can serve all."""

    def prepare(self, plan: Plan, heads: Heads) -> "ReferencePlan":
        """The plan as a forest."""
        return ReferencePlan(plan)

    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""
        return "the plain recursion that defines the result"


class ReferencePlan:
    """A plan as the forest that the recursion walks, and the slots of every tail."""

    def __init__(self, plan: Plan) -> None:
        self._nodes = plan.nodes()
        self._tails = [] if plan.tails is None else _tail_slots(plan.tails)
        self._lengths = torch.tensor([slots.numel() for slots in self._tails], dtype=torch.int32)

    def attend(
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
        """As of `Attend`."""
        result = reference.empty(queries)
        first = None if view is None else view.first
        for node in self._nodes:
            rows = slice(node.query_start, node.query_stop)
            part = reference.attend(
                node, queries, keys, values, scale=scale, softcap=softcap, first=first
            )
            _merge_into(result, rows, part)
        skipped = None
        if view is not None and self._tails:
            skipped = view.skipped(self._lengths.to(queries.device))
        asking, arenas = queries, (keys, values)
        if latent is not None:
            asking, arenas = latent.queries, latent.keys_and_values
        for row, slots in enumerate(self._tails):
            own_keys, own_values = (movable(arena)[:, slots].view(arena.dtype) for arena in arenas)
            rows = slice(row, row + 1)
            own = reference.partial(
                asking[rows],
                own_keys,
                own_values,
                scale=scale,
                softcap=softcap,
                first=None if skipped is None else skipped[rows],
            )
            if latent is not None:
                own = latent.widened(own, queries.shape[-1])
            _merge_into(result, rows, own)
        return with_sinks(result, sinks, queries)


def _merge_into(result: reference.Partial, rows: slice, part: reference.Partial) -> None:
    before = reference.Partial(result.out[rows], result.lse[rows])
    result.out[rows], result.lse[rows] = reference.merge(before, part)


def _tail_slots(tails: Tails) -> list[Tensor]:
    """The slots of each row's tail, in order."""
    offsets = torch.arange(tails.page_tokens)
    result = []
    for pages, length in zip(tails.pages, tails.lengths.tolist(), strict=True):
        first = torch.from_numpy(pages.clip(min=0)).long() * tails.page_tokens
        result.append((first[:, None] + offsets).flatten()[:length])
    return result
