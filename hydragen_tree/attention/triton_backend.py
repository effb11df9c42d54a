"""Our Triton kernels: all segments in one launch, tails and merging in one more.

Nothing here imports Triton before a plan is prepared, so that the question whether it can serve
has an answer where Triton is missing.
"""

import os
from importlib.util import find_spec

from hydragen_kernels.inputs import FLOATS, FP8
from hydragen_tree.attention.backend import Backend, Prepared
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.plan import Plan

MAX_HEAD_DIM = 256
MAX_GROUP = 128  # query heads of a kv head, which share a tile


class TritonBackend(Backend):
    """`segment_attention` and `tail_attention`, on CUDA or under Triton's interpreter."""

    def why_not(self, heads: Heads) -> str | None:
        """What of the heads or the device the kernels do not take."""
        if find_spec("triton") is None:
            return "needs Triton, which is not installed"
        if heads.device.type != "cuda" and not is_interpreting():
            return f"computes on a CUDA device, not on {heads.device}"
        if heads.dtype not in FLOATS or heads.arena_dtype not in (heads.dtype, FP8):
            return f"no kernel for {heads.dtype} with keys and values in {heads.arena_dtype}"
        if heads.head_dim > MAX_HEAD_DIM:
            return f"heads of at most {MAX_HEAD_DIM} numbers, not of {heads.head_dim}"
        if heads.group > MAX_GROUP:
            return f"at most {MAX_GROUP} query heads a key-value head, not {heads.group}"
        return None

    def prepare(self, plan: Plan, heads: Heads) -> Prepared:
        """The plan's tiles and pages on the device, with room for partials."""
        from hydragen_kernels.segment_tiles import SegmentTiles
        from hydragen_tree.attention.fused import DeviceTails, FusedPlan

        schedule = heads.schedule(plan.items, plan.n_queries, None)
        return FusedPlan(
            SegmentTiles(schedule, heads.device),
            heads.partials(max(1, schedule.partial_slots), plan.n_queries),
            DeviceTails.of(plan, heads),
        )

    def explain(self, heads: Heads) -> str:
        """The segment kernel's form and its tiles."""
        config = heads.tiles
        form = "Hopper form, " if config.specialized else ""
        return (
            f"Triton: all segments in one launch ({form}tiles of {config.block_q} rows x "
            f"{config.block_k} keys), tails and merging in one more"
        )


def is_interpreting() -> bool:
    """Whether Triton was asked to interpret its kernels, which runs them on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"
