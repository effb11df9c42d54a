"""Attention in one order of summation: what a query gets does not depend on what shares the step.

The backend of the batch-invariant mode (`hydragen_tree.model.invariance`), for prefill and decode
steps alike. On a CPU a query meets its keys one by one from the first position on, in C; for a GPU
see `ordered_triton`.
"""

import torch
from torch import Tensor

from hydragen_kernels import ordered_attention
from hydragen_kernels.inputs import dtype_name
from hydragen_tree.attention.backend import Backend, Prepared
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.ordered_triton import OrderedTritonBackend
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.triton_backend import is_interpreting
from hydragen_tree.attention.windows import WindowView


class OrderedBackend(Backend):
    """The form of the device: that of a CPU, or Triton's, which an interpreter runs, too."""

    def why_not(self, heads: Heads) -> str | None:
        """As of the form."""
        return _form(heads).why_not(heads)

    def key_group(self, heads: Heads) -> int:
        """As of the form."""
        return _form(heads).key_group(heads)

    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """As of the form."""
        return _form(heads).prepare(plan, heads)

    def explain(self, heads: Heads) -> str:
        """As of the form."""
        return _form(heads).explain(heads)


def _form(heads: Heads) -> Backend:
    is_c = heads.device.type == "cpu" and not is_interpreting()
    return _OrderedOnCPU() if is_c else OrderedTritonBackend()


class _OrderedOnCPU(Backend):
    """`hydragen_kernels.ordered_attention`: 32 and 16 bits."""

    def why_not(self, heads: Heads) -> str | None:
        """What of the heads the C form does not compute."""
        for kind in (heads.dtype, heads.arena_dtype):
            if kind not in ordered_attention.KINDS:
                return f"reads numbers of 32 and 16 bits, not {dtype_name(kind)}"
        if why := ordered_attention.why_unavailable():
            return why
        most = ordered_attention.max_head_dim()
        return f"heads of at most {most} numbers" if heads.head_dim > most else None

    def prepare(self, plan: Plan, heads: Heads) -> "OrderedPlan":
        """The plan's tables as C reads them."""
        return OrderedPlan(plan)

    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""
        return "C for this CPU, key by key from the first position on, in prefill and decode alike"


class OrderedPlan:
    """A step's tables."""

    def __init__(self, plan: Plan) -> None:
        own = plan.tail_tables()
        self._tables = ordered_attention.OrderedTables(plan.items, plan.n_queries, *own)
        self._lengths = torch.from_numpy(plan.tail_lengths())

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
        """As of `Attend`; a tail goes on where its segments end, so never as latent vectors."""
        first, skipped = (None, None) if view is None else (view.first, view.skipped(self._lengths))
        return self._tables.attend(
            queries,
            keys,
            values,
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            first=first,
            skipped=skipped,
        )
