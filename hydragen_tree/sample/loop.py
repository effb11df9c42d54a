"""The loop: waiting branches in, finished samples out.

    while branches are live or waiting:
        admit     waiting branches into the batch, their missing keys and values computed
        step      the rows through the model, and a token drawn for every sample
        extend    rows whose samples differ fork; finished samples leave, and are yielded

How a step is taken, by the host or ahead of it on a device, is the stepper's business.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.batch import Batch, Children
from hydragen_tree.branch.freezing import Freezing
from hydragen_tree.branch.host_stepper import Stepper
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.sample import FinishReason, Sample


class Loop:
    """Draws all samples of a run; `assemble` makes one.

    Args:
        batch: the rows; empty.
        admission: fills it.
        stepper: steps it.
        freezing: makes segments of its shared tails.
        residency: of the tree's segments.
        prefill: computes them.
        cache: where their keys and values are.
        records: the samples.
        stats: filled while running.
    """

    def __init__(
        self,
        batch: Batch,
        admission: Admission,
        stepper: Stepper,
        freezing: Freezing,
        residency: Residency,
        prefill: Prefill,
        cache: KVCache,
        records: SampleRecords,
        stats: RunStats,
    ) -> None:
        self.batch, self.admission, self.stepper = batch, admission, stepper
        self.freezing, self.residency, self.prefill = freezing, residency, prefill
        self.cache, self.records, self.stats = cache, records, stats

    def samples(self) -> Iterator[Sample]:
        """Yields every sample as it finishes.

        Raises:
            CapacityError: not even one branch fits to its end.
        """
        self.residency.check_capacity(self.batch.max_tokens)
        while self.batch.size or self.admission.has_waiting:
            yield from self.step()

    def step(self) -> Iterator[Sample]:
        """One token of every sample, those that are admitted before it included."""
        waits = self.admission.is_worthwhile()
        if not self.stepper.is_ahead:
            if waits:
                self.admission.admit()
                waits = False
            self.admission.make_room()
        drawn = self.stepper.step(go_on=not waits)
        self.records.add(self.batch.samples, drawn)
        if self.stepper.took_ahead:
            self.stats.steps_device += 1
        else:
            self.stats.steps_host += 1
        self.stats.rows_computed += self.batch.size
        self.stats.tokens_sampled += self.batch.samples.size
        yield from self._extend(drawn)
        self._update_stats()

    def _extend(self, drawn: Drawn[NDArray[Any]]) -> Iterator[Sample]:
        """Forks where draws differ, yields what has finished, and keeps the rest."""
        batch = self.batch
        children = batch.children(drawn.tokens)
        alive = np.ones(children.parent.size, np.bool_)
        for child, history, reason, text in self._endings(children):
            alive[child] = False
            samples = batch.samples[children.of_sample == child]
            yield from self.records.finished(samples, history, reason, text)
        someone_left = not alive.all()
        self.admission.set_aside(children, alive)
        self.freezing.freeze(children, alive)
        batch.grow(children, alive, self.cache)
        if someone_left:
            self.admission.evict_unused()
        if not batch.size:
            self.stepper.settle()

    def _endings(self, children: Children) -> Iterator[tuple[int, Int32, FinishReason, str]]:
        """The children that end here: number, tokens, why, and text."""
        batch = self.batch
        n_drawn = batch.n_drawn[children.parent] + 1
        firsts = batch.samples[np.unique(children.of_sample, return_index=True)[1]]
        for child in np.flatnonzero(self.records.may_end(firsts, n_drawn)).tolist():
            history = batch.history(child, children)
            reason, text = self.records.ending(int(firsts[child]), history)
            if reason is not None:
                yield child, history, reason, text

    def _update_stats(self) -> None:
        """Brings the live figures up to date."""
        stats, cache = self.stats, self.cache
        stats.samples_live, stats.rows_live = self.batch.samples.size, self.batch.size
        stats.prefilled_tokens = self.prefill.computed_tokens
        stats.kv_bytes_peak = cache.peak_pages * cache.page_bytes
