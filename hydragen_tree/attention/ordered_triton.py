"""Attention in one order of summation on a GPU: what the batch-invariant mode takes there.

What a query gets is a function of its own keys, in their order: not of where the tree is cut, of
other queries, or of whether a prefill or a decode step computes it (`hydragen_kernels.ordered_fold`
says how).

Nothing here imports Triton before a plan is prepared.
"""

from dataclasses import replace

from hydragen_kernels.ordered_schedule import KEY_GROUP
from hydragen_tree.attention.backend import Backend, Prepared
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.triton_backend import TritonBackend

_STATE_BYTES = 256 << 20  # of a plan whose keys may be split
_FEWEST_SLOTS = 8  # of any plan, whatever it takes


class OrderedTritonBackend(Backend):
    """`ordered_segments` and `ordered_tails`."""

    def why_not(self, heads: Heads) -> str | None:
        """What of the heads or the device the kernels do not take."""
        return TritonBackend().why_not(heads)

    def key_group(self, heads: Heads) -> int:
        """One instruction's keys."""
        return KEY_GROUP

    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """The plan's tiles and pages on the device, with room for states."""
        from hydragen_kernels.segment_tiles import SegmentTiles
        from hydragen_tree.attention.fused import DeviceTails, OrderedPlan

        heads = replace(heads, is_ordered=True)
        slots = max(_FEWEST_SLOTS, _STATE_BYTES // (heads.partial_bytes * max(1, plan.n_queries)))
        schedule = heads.schedule(
            plan.items, plan.n_queries, slots, has_tails=plan.tails is not None
        )
        return OrderedPlan(
            SegmentTiles(schedule, heads.device),
            heads.states(max(1, schedule.partial_slots), plan.n_queries),
            DeviceTails.of(plan, heads),
        )

    def explain(self, heads: Heads) -> str:
        """The segment kernel's tiles."""
        config = replace(heads, is_ordered=True).tiles
        return (
            f"Triton, in one order of summation: all segments in one launch (tiles of "
            f"{config.block_q} rows x {config.block_k} keys), tails and adding up in one more"
        )
