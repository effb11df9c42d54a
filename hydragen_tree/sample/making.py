"""What a sampler's run is made of: an arena, a decoder where a device steps, and the loop."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hydragen_tree.branch.arena import deepest, make_arena
from hydragen_tree.branch.budget import DEVICE_FROZEN_LEVELS, kv_budget_bytes, path_levels
from hydragen_tree.branch.live_trie import ALL_KNOWN, Sharing
from hydragen_tree.branch.long_prompts import LongSegments
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.ranks import Ranks
from hydragen_tree.model.support import why_uncaptured
from hydragen_tree.sample.assembly import assemble
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.outline import Outline

if TYPE_CHECKING:
    from hydragen_tree.branch.decoder import Decoder

_DRAFTED_BY_DEVICES = False  # without being asked for
_DRAFT_PATIENCE = 64  # steps, see `DraftWidths`
_JOINED_LEVELS = 4  # segments on a path, beyond those of the first prompts
_JOINED_TOKENS = 512  # of a prompt, for each row of the batch: as many may be there at a time


@dataclass(frozen=True, eq=False, slots=True)
class Means:
    """What a sampler gives its runs.

    Attributes:
        model: loaded.
        source: the model's place and sizes.
        cost: the device's constants.
        backend: of attention, by name.
        is_fused: Triton's kernels make the whole step.
        key_group: tokens that segments never part.
        page_tokens: of a page of keys and values.
        prefill_tokens: of one pass at the most.
        max_rows: branches in the batch at the most.
        memory_bytes: for keys and values; None: measured.
        ranks: that have the model together.
        drafts: `auto`: steps of the host may take them along; `on`: a device's, too; or `off`.
    """

    model: TreeModel
    source: ModelSource
    cost: CostModel
    backend: str
    is_fused: bool
    key_group: int
    page_tokens: int
    prefill_tokens: int
    max_rows: int
    memory_bytes: int | None
    ranks: Ranks
    drafts: str


def make_loop(
    means: Means,
    outline: Outline,
    records: SampleRecords,
    stats: RunStats,
    is_fed: bool,
    is_joined: bool,
) -> Loop:
    """A run that is ready to start.

    Args:
        means: what the run may use.
        outline: of the prompts.
        records: of their samples.
        stats: filled now, and while running.
        is_fed: no sample waits yet.
        is_joined: prompts may come while it is going.

    Raises:
        CapacityError: there is too little memory.
    """
    trie, model, source = outline.trie, means.model, means.source
    depth, rows, sharing = deepest(trie), outline.rows, ALL_KNOWN
    if is_joined:
        depth, rows = depth + _JOINED_LEVELS, means.max_rows
        keeps_states = bool(source.shape.state_bytes)
        sharing = Sharing(means.page_tokens, depth, means.key_group, not keeps_states)
    cache = _arena(means, outline, records, rows, depth, is_joined)
    return assemble(
        model,
        source.shape,
        trie,
        cache,
        records,
        stats,
        records.settings,
        cost=means.cost,
        max_rows=cache.states.most_rows(means.max_rows),
        prefill_tokens=means.prefill_tokens,
        decoder=_decoder(means, cache, records, depth, rows),
        waiting=[] if is_fed else None,
        key_group=means.key_group,
        long_segments=LongSegments(source, model, trie, outline.prompts),
        drafts=means.drafts != "off",
        draft_patience=0 if means.drafts == "on" else _DRAFT_PATIENCE,
        sharing=sharing,
    )


def _arena(
    means: Means,
    outline: Outline,
    records: SampleRecords,
    rows: int,
    depth: int,
    is_joined: bool,
) -> KVCache:
    """Room for what the run can use at the most, within the budget."""
    source, page, max_tokens = means.source, means.page_tokens, records.settings.max_tokens
    levels = path_levels(depth, max_tokens, page)
    budget = means.memory_bytes or means.ranks.least(
        kv_budget_bytes(source, means.prefill_tokens, rows, levels, _has_drafts(means, records))
    )
    joined = source.context_tokens + rows * _JOINED_TOKENS if is_joined else 0
    sizes = budget, rows, max_tokens, page
    kinds = means.model.state_kinds
    captured = _captures(means, records)
    return make_arena(source, kinds, outline.trie, *sizes, means.is_fused, captured, joined)


def _captures(means: Means, records: SampleRecords) -> bool:
    """Whether a device can take the steps."""
    is_able = means.is_fused and not records.searches_texts
    return is_able and why_uncaptured(means.source.config) is None


def _decoder(
    means: Means, cache: KVCache, records: SampleRecords, depth: int, rows: int
) -> "Decoder | None":
    """Steps the batch on the device; None where the host has to."""
    source, states = means.source, cache.states
    lacks_places = states.is_kept and not states.places.device_rows
    stops = records.stop_table if _captures(means, records) and not lacks_places else None
    if stops is None:
        return None
    from hydragen_tree.branch.decoder import Decoder  # imports Triton

    heads = replace(source.heads, is_ordered=means.backend == "ordered")
    frozen = DEVICE_FROZEN_LEVELS if cache.latents is None else 0
    levels = path_levels(depth, records.settings.max_tokens, cache.page_tokens, frozen)
    sizes = records.settings, stops, states.most_rows(rows), levels
    return Decoder(means.model, cache, heads, *sizes, has_drafts=_has_drafts(means, records))


def _has_drafts(means: Means, records: SampleRecords) -> bool:
    """Whether a device's steps may take drafts along; running states could not go back."""
    is_wanted = means.drafts == "on" or (means.drafts == "auto" and _DRAFTED_BY_DEVICES)
    return is_wanted and not means.source.shape.state_bytes and _captures(means, records)
