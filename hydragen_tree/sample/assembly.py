"""How the parts of a run are put together: one place for the sampler and the benchmarks.

The order matters once: the model has to be loaded before memory is measured, since what its weights
leave is what keys and values may take. So a run is assembled around a model and a cache that are
there already.
"""

from typing import TYPE_CHECKING

import numpy as np

from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.batch import Batch
from hydragen_tree.branch.drafting import Drafting, free_rows
from hydragen_tree.branch.freezing import Freezing
from hydragen_tree.branch.host_stepper import HostStepper
from hydragen_tree.branch.live_trie import ALL_KNOWN, Sharing
from hydragen_tree.branch.long_prompts import LongSegments
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Stepper, Waiting
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.sample.feeding import roots
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Trie

if TYPE_CHECKING:
    from hydragen_tree.branch.decoder import Decoder
    from hydragen_tree.branch.draft_widths import DraftWidths


def assemble(
    model: TreeModel,
    shape: KVShape,
    trie: Trie,
    cache: KVCache,
    records: SampleRecords,
    stats: RunStats,
    settings: SamplingSettings,
    *,
    cost: CostModel,
    max_rows: int,
    prefill_tokens: int,
    decoder: "Decoder | None" = None,
    waiting: list[Waiting] | None = None,
    prefill_class: type[Prefill] = Prefill,
    key_group: int = 1,
    long_segments: LongSegments | None = None,
    drafts: bool = False,
    draft_patience: int = 0,
    sharing: Sharing = ALL_KNOWN,
) -> Loop:
    """A run that is ready to start.

    Args:
        model: the adapted model.
        shape: its sizes.
        trie: the tree to run, folded where sharing does not pay.
        cache: big enough for any one path and its tail; nothing in use.
        records: the samples.
        stats: filled now, and while running.
        settings: how to sample.
        cost: the device's constants, for freezing tails.
        max_rows: rows of the batch at the most.
        prefill_tokens: tokens of a prefill pass at the most.
        decoder: steps rows on a GPU, if there is one.
        waiting: the branches to draw, first one last; by default one a leaf with all its samples.
        prefill_class: computes segments and tails.
        key_group: keys that attention takes in together, see `Backend.key_group`.
        long_segments: those of prompts beyond the model's context; None: there are none.
        drafts: steps take along what samples have drawn before, where it is worth it; a decoder's
            if it is made for that.
        draft_patience: see `DraftWidths`.
        sharing: what prompts that come late share.
    """
    residency = Residency(trie, cache, sharing)
    table = residency.table
    ends = trie.leaf_segments[trie.prompt_leaves[np.unique(records.prompt)]]
    stats.prompt_tokens = int(table.n_tokens[table.live(ends)].sum())
    prefill = prefill_class(model, residency.trie, table, cache, prefill_tokens, key_group)
    prefill.long_segments = long_segments
    stepper: Stepper
    drafting: Drafting | None = None
    widths: DraftWidths | None = None
    problems = np.zeros(trie.leaf_segments.size, np.int64)
    problems[trie.prompt_leaves] = records.tasks
    if decoder is None:
        batch = Batch(settings.max_tokens, cache.pages_for(settings.max_tokens))
        freezing = Freezing(batch, residency, cache, cost, shape, key_group)
        if drafts and not cache.states.is_kept:
            sizes = shape.layers, _parameters(model)
            free = free_rows(model.device.type, *sizes, ordered=model.batch_invariant)
            drafting = Drafting(problems, residency.trie.leaf_tokens, free)
        rest = freezing, settings, max_rows, records, drafting
        stepper = HostStepper(batch, model, cache, table, *rest)
    else:
        from hydragen_tree.branch.device_freezing import DeviceFreezing  # these import Triton
        from hydragen_tree.branch.device_stepper import DeviceStepper
        from hydragen_tree.branch.draft_widths import DraftWidths as Widths

        if drafts and decoder.drafts is not None:
            texts = problems, residency.trie.leaf_tokens
            widths = Widths(*texts, decoder.samples, decoder.drafts, draft_patience)
        shared: DeviceFreezing | None = None
        if cache.latents is None:
            rest_of = cost, shape, settings.max_tokens, key_group
            shared = DeviceFreezing(decoder.batch, residency, cache, *rest_of)
        stepper = DeviceStepper(decoder, cache, table, settings, records, widths, shared)
    admission = Admission(
        roots(trie, records) if waiting is None else waiting,
        stepper,
        residency,
        prefill,
        cache,
        max_rows,
        settings.temperature == 0.0,
    )
    run = cache, records, stats, model.ranks, drafting or widths
    return Loop(admission, stepper, residency, prefill, *run)


def _parameters(model: TreeModel) -> int:
    """Of a model, or of rank 0's part of it."""
    weights = model.model.parameters()
    return model.ranks.agree(lambda: sum(int(one.numel()) for one in weights))
