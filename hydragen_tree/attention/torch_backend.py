"""Tree attention in plain torch: level by level from the roots, then the tails.

For every segment the attention of all queries below it is one product, merged into those queries'
running partial. On a CPU the product is torch's flash attention, which gives the log-sum-exp too.

Source: Hydragen, arXiv 2402.05099; merging by log-sum-exp as in its equation 5.
"""

import torch
from torch import Tensor

from hydragen_kernels.inputs import last_contiguous
from hydragen_kernels.items import item_positions, item_rows
from hydragen_kernels.reference import Partial
from hydragen_tree.attention.backend import Backend, with_sinks
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.torch_tails import PagedTails
from hydragen_tree.attention.torch_windows import masked_attention, segment_from
from hydragen_tree.attention.windows import WindowView

_FLASH_CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_SCORES_CHUNK = 1 << 24  # scores of one product of the unfused form, in elements


class TorchBackend(Backend):
    """Plain torch, for any heads on any device."""

    def why_not(self, heads: Heads) -> None:
        """It can serve all."""

    def prepare(self, plan: Plan, heads: Heads) -> "TorchPlan":
        """The items as numbers, and which page goes to which row."""
        return TorchPlan(plan, heads)

    def explain(self, heads: Heads) -> str:
        """What computes a step, in a line."""
        return "torch, a flash or plain product a segment, merged level by level"


class TorchPlan:
    """A plan's items as Python's numbers, and its tails made ready on the device."""

    def __init__(self, plan: Plan, heads: Heads) -> None:
        # one with no query or no key adds nothing, and flash attention divides by their numbers
        positions = item_positions(plan.items, plan.n_queries).tolist()
        self._items = [
            (item, position)
            for item, position in zip(item_rows(plan.items), positions, strict=True)
            if item.query_count * item.slot_count
        ]
        self._tails = None if plan.tails is None else PagedTails(plan.tails, heads.device)

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
        # flash attention on a CPU reads on from a head's first number, whatever the strides say
        queries, keys, values = map(last_contiguous, (queries, keys, values))
        out = torch.zeros(queries.shape, dtype=torch.float32, device=queries.device)
        lse = torch.full(queries.shape[:2], -torch.inf, dtype=torch.float32, device=queries.device)
        for item, position in self._items:
            rows = slice(item.query_start, item.query_stop)
            own = slice(item.slot_start, item.slot_stop)
            asked = queries[rows], keys[:, own], values[:, own], scale, softcap, bool(item.causal)
            first = None if view is None else view.first_on_host[rows] - position
            if first is None or first.max() <= 0:
                part = _segment(*asked)
            else:
                part = segment_from(*asked, first)
            _merge_into(out[rows], lse[rows], *part, first=item.level == 0)
        if self._tails is not None:
            met = queries, keys, values
            if latent is not None:
                met = latent.queries, *latent.keys_and_values
            part = self._tails.attend(*met, scale=scale, softcap=softcap, view=view)
            if latent is not None:
                part = latent.widened(part, queries.shape[-1])
            _merge_into(out, lse, *part, first=not self._items)
        return with_sinks(Partial(out, lse), sinks, queries)


def _merge_into(
    out: Tensor, lse: Tensor, part_out: Tensor, part_lse: Tensor, *, first: bool
) -> None:
    """Merges a partial into a running one, in place; `first` says that nothing was there before."""
    if first:
        out.copy_(part_out)
        lse.copy_(part_lse)
        return
    weight = torch.sigmoid(part_lse - lse).nan_to_num_(0.0)  # -inf - -inf: both are empty
    out.lerp_(part_out.to(out.dtype), weight[..., None])
    lse.copy_(torch.logaddexp(lse, part_lse))


def _segment(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention of `[rows, q_heads, head_dim]` over one segment `[kv_heads, tokens, head_dim]`."""
    rows, q_heads, head_dim = queries.shape
    kv_heads = keys.shape[0]
    group = q_heads // kv_heads
    if queries.device.type == "cpu" and softcap is None and queries.dtype in _FLASH_CPU_DTYPES:
        if causal:
            stacked = queries.transpose(0, 1)[None]
        else:  # (row x group) queries against one kv head: one matrix-matrix product
            stacked = (
                queries.view(rows, kv_heads, group, head_dim).transpose(0, 1).flatten(1, 2)[None]
            )
        shared = [arena.to(queries.dtype)[None] for arena in (keys, values)]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            stacked, *shared, 0.0, causal, scale=scale
        )
        if causal:
            return out[0].transpose(0, 1), lse[0].transpose(0, 1)
        out = out[0].unflatten(1, (rows, group)).transpose(0, 1).flatten(1, 2)
        return out, lse[0].unflatten(1, (rows, group)).transpose(0, 1).flatten(1, 2)
    hidden = None
    if causal:
        hidden = torch.ones(rows, rows, dtype=torch.bool, device=queries.device).triu_(1)
    step = rows if causal else max(1, _SCORES_CHUNK // (q_heads * keys.shape[1]))
    parts = [
        masked_attention(queries[at : at + step], keys, values, hidden, scale, softcap)
        for at in range(0, rows, step)
    ]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])
