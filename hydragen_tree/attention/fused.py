"""A plan on the device, in the fixed buffers that our Triton kernels read.

All segments of a plan are one persistent launch of `segment_attention`; every row's tail and the
merge of its partials are one launch of `tail_attention`. The tables they read depend on the plan
alone, so they are built once a step and used by every layer.

Importing this module imports Triton.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hydragen_kernels.inputs import to_device
from hydragen_kernels.latent_tail import latent_tails
from hydragen_kernels.merge import merge
from hydragen_kernels.ordered_segment import ordered_segments
from hydragen_kernels.ordered_states import States
from hydragen_kernels.ordered_tail import ordered_tails
from hydragen_kernels.reference import Partial
from hydragen_kernels.segment import segment_attention
from hydragen_kernels.segment_tiles import SegmentTiles
from hydragen_kernels.tail import tail_attention
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.windows import WindowView


@dataclass(frozen=True, eq=False, slots=True)
class DeviceTails:
    """Every row's tail on the device.

    Attributes:
        pages: `[rows, max_pages]` int32.
        lengths: `[rows]` int32, tokens of each tail.
        page_tokens: slots a page.
        splits: programs a tail is split into.
    """

    pages: Tensor
    lengths: Tensor
    page_tokens: int
    splits: int

    @classmethod
    def of(cls, plan: Plan, heads: Heads) -> "DeviceTails":
        """Those of a plan; of no tokens where it has none."""
        rows = plan.n_queries
        pages, lengths, page_tokens = np.zeros((rows, 1), np.int32), np.zeros(rows, np.int32), 16
        if plan.tails is not None:
            page_tokens, lengths = plan.tails.page_tokens, plan.tails.lengths
            pages = plan.tails.pages.clip(min=0)
        return cls(
            pages=to_device(pages.astype(np.int32), heads.device),
            lengths=to_device(lengths.astype(np.int32), heads.device),
            page_tokens=page_tokens,
            splits=heads.splits(rows, int(lengths.max(initial=0))),
        )

    def finish(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        partials: tuple[Tensor, Tensor],
        counts: Tensor,
        *,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        view: WindowView | None = None,
        latent: LatentTails | None = None,
    ) -> Tensor:
        """Attention over the tails, merged with the segments' partials, `counts` of each row."""
        if latent is not None:
            _, rank, _ = latent.up.shape
            out, lse = latent_tails(
                *(latent.queries, latent.arena[0], rank),
                *(self.pages, self.lengths, self.page_tokens),
                scale=scale,
                softcap=softcap,
                splits=self.splits,
            )
            own = latent.expanded(Partial(out, lse))
            counts = counts[: queries.shape[0]]
            return merge(*partials, counts, sinks=sinks, own=own, dtype=queries.dtype)[0]
        return tail_attention(
            queries,
            keys,
            values,
            self.pages,
            self.lengths,
            self.page_tokens,
            *partials,
            counts[: queries.shape[0]],
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            splits=self.splits,
            first=None if view is None else view.first,
            positions=None if view is None else view.positions,
        )[0]


@dataclass(frozen=True, eq=False, slots=True)
class FusedPlan:
    """A plan on the device, with the room its partials need. Layers use it one after the other.

    Attributes:
        segments: tiles of all segments.
        partials: as `Heads.partials` makes them.
        tails: every row's tail.
    """

    segments: SegmentTiles
    partials: tuple[Tensor, Tensor]
    tails: DeviceTails

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
        """As of `hydragen_tree.attention.backend.Attend`."""
        segment_attention(
            *(queries, keys, values, self.segments, *self.partials),
            scale=scale,
            softcap=softcap,
            first=None if view is None else view.first,
        )
        return self.tails.finish(
            *(queries, keys, values, self.partials, self.segments.counts),
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            view=view,
            latent=latent,
        )


@dataclass(frozen=True, eq=False, slots=True)
class OrderedPlan:
    """A plan on the device whose sums have one order. Layers use it one after the other.

    Attributes:
        segments: tiles of all segments, of an ordered schedule.
        states: room for those of every row.
        tails: every row's tail.
    """

    segments: SegmentTiles
    states: States
    tails: DeviceTails

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
        """As of `hydragen_tree.attention.backend.Attend`; tails never hold latent vectors here."""
        rows, segments, tails = queries.shape[0], self.segments, self.tails
        first = None if view is None else view.first
        ordered_segments(
            *(queries, keys, values, segments, self.states),
            scale=scale,
            softcap=softcap,
            first=first,
        )
        prefixes, leads = segments.prefixes[:, :rows]
        return ordered_tails(
            queries,
            keys,
            values,
            tails.pages,
            tails.lengths,
            tails.page_tokens,
            prefixes,
            leads,
            self.states,
            segments.counts[:rows],
            scale=scale,
            softcap=softcap,
            sinks=sinks,
            splits=tails.splits,
            first=first,
        )
