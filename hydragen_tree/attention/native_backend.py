"""A decode step on a CPU in C: segments, tails and merging in one call a layer.

A prefill step's products are large, and torch's flash attention computes them.
"""

from functools import cached_property

import torch
from torch import Tensor

from hydragen_kernels import native
from hydragen_kernels.inputs import dtype_name
from hydragen_kernels.items import item_columns
from hydragen_kernels.reference import Partial, merge
from hydragen_tree.attention.backend import Backend, Prepared, with_sinks
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.torch_backend import TorchPlan
from hydragen_tree.attention.torch_tails import PagedTails
from hydragen_tree.attention.windows import WindowView


class NativeBackend(Backend):
    """`hydragen_kernels.native`: float32 on a CPU."""

    def why_not(self, heads: Heads) -> str | None:
        """What of the heads the C form does not compute."""
        if heads.device.type != "cpu":
            return f"computes on a CPU, not on {heads.device}"
        if heads.arena_dtype != torch.float32:
            return f"reads keys and values in float32, not in {dtype_name(heads.arena_dtype)}"
        if heads.dtype != torch.float32:
            return f"reads queries in float32, not in {dtype_name(heads.dtype)}"
        if heads.is_capped:
            return "no soft-capping of scores"
        return native.why_unavailable() or native.why_not_head_dim(heads.head_dim)

    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """The plan's tables as C reads them; a prefill step as torch's backend has it."""
        is_prefill = item_columns(plan.items).causal.any()
        return TorchPlan(plan, heads) if is_prefill else NativePlan(plan, heads)

    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""
        return "C for this CPU: a decode step's segments, tails and merging at once; prefill: torch"


class NativePlan:
    """A decode step's tables. Tensors that are not plain memory go to torch's form of the plan."""

    def __init__(self, plan: Plan, heads: Heads) -> None:
        self._tables = native.DecodeTables(plan.items, *plan.tail_tables())
        self._plan, self._heads = plan, heads
        self._lengths = torch.from_numpy(plan.tail_lengths())

    @cached_property
    def _segments(self) -> native.DecodeTables:
        """The tables without tails."""
        return native.DecodeTables(self._plan.items, None, None, 1)

    @cached_property
    def _paged(self) -> PagedTails:
        """The tails for heads of more numbers than C takes, as latent vectors have them."""
        assert self._plan.tails is not None
        return PagedTails(self._plan.tails, self._heads.device)

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
        if softcap is not None or not all(native.is_plain(x) for x in (queries, keys, values)):
            return TorchPlan(self._plan, self._heads).attend(
                *(layer, queries, keys, values),
                scale=scale,
                softcap=softcap,
                sinks=sinks,
                view=view,
                latent=latent,
            )
        if latent is not None:
            above = Partial(*self._segments.attend(queries, keys, values, scale=scale))
            met = latent.queries, *latent.keys_and_values
            own = latent.widened(self._paged.attend(*met, scale=scale), queries.shape[-1])
            return with_sinks(merge(above, own), sinks, queries)
        first, skipped = (None, None) if view is None else (view.first, view.skipped(self._lengths))
        part = Partial(
            *self._tables.attend(queries, keys, values, scale=scale, first=first, skipped=skipped)
        )
        return with_sinks(part, sinks, queries)
