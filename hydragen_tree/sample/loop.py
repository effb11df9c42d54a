"""The loop: waiting branches in, finished samples out.

    while branches are live or waiting:
        admit     waiting branches into the batch, those whose prompts are computed
        launch    the next steps, where a device takes them
        prefetch  prompts of the branches that are next, in no more time than the steps take
        finish    the samples that have ended before: text and program, one record each
        step      the rows through the model, a token drawn for every sample; rows fork, samples end

How steps are taken, one by one by the host or many at once by a device, is the stepper's business.
A device computes prompts behind the steps that it was given, and works on while samples are
finished.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.drafting import Drafting
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Ended, Progress, Stepper, Waiting
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.ranks import ALONE, Ranks
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.sample import Sample

if TYPE_CHECKING:
    from hydragen_tree.branch.draft_widths import DraftWidths


class Loop:
    """Draws all samples of a run; `assemble` makes one.

    Args:
        admission: fills the batch.
        stepper: holds and steps it.
        residency: of the tree's segments.
        prefill: computes them.
        cache: where their keys and values are.
        records: the samples.
        stats: filled while running.
        ranks: those that run the same loop, each on its part of the model.
        drafting: of the stepper, if it takes drafts along.
    """

    def __init__(
        self,
        admission: Admission,
        stepper: Stepper,
        residency: Residency,
        prefill: Prefill,
        cache: KVCache,
        records: SampleRecords,
        stats: RunStats,
        ranks: Ranks = ALONE,
        drafting: "Drafting | DraftWidths | None" = None,
    ) -> None:
        self.admission, self.stepper = admission, stepper
        self.residency, self.prefill = residency, prefill
        self.cache, self.records, self.stats = cache, records, stats
        self._ranks, self.drafting = ranks, drafting
        self._ended: list[Ended] = []  # in the last round

    @property
    def is_idle(self) -> bool:
        """Whether all samples that it was given have been drawn and said."""
        return not (self.stepper.n_samples or self.admission.has_waiting or self._ended)

    def samples(self, more: Callable[[int], list[Waiting]] | None = None) -> Iterator[Sample]:
        """Yields every sample as it finishes.

        Args:
            more: asked before every round for further branches, with the number of samples that
                wait; the run ends when every sample has been taken and nothing more comes.

        Raises:
            CapacityError: not even one branch fits to its end.
        """
        self.residency.check_capacity(self.stepper.max_tokens)
        while True:
            if more is not None:
                self.admission.add(more(self.admission.n_waiting))
            if self.stepper.n_samples or self.admission.has_waiting:
                yield from self.step()
            elif self._ended:
                ended, self._ended = self._ended, []
                yield from self.records.finished(ended)
            else:
                return

    def step(self) -> Iterator[Sample]:
        """One round: as many steps as the stepper takes at a time.

        Yields the samples that have ended in the round before.
        """
        stats = self.stats
        with _timed(stats, "admission_s"):
            self.admission.admit()
        with _timed(stats, "stepping_s"):
            self.stepper.launch()
        with _timed(stats, "admission_s"):
            self.admission.prefetch()
        yield from self.records.finished(self._ended)
        if self.stepper.lacks_pages:
            self.admission.give_up_prefetched()
        with _timed(stats, "stepping_s"):
            progress = self.stepper.step()
        self._ranks.check_same(progress.drawn.tokens)
        self.records.add(progress.samples, progress.drawn)
        self._count(progress)
        self._ended = progress.ended
        with _timed(stats, "admission_s"):
            self.admission.follow(progress)
        self._update_stats()

    def _count(self, progress: Progress) -> None:
        """Adds up what was computed."""
        self.stats.rows_computed += progress.rows
        self.stats.drafts_proposed += progress.drafts[0]
        self.stats.drafts_accepted += progress.drafts[1]
        self.stats.rows_parked += len(progress.parked)
        if self.stepper.is_ahead:
            self.stats.steps_device += progress.steps
        else:
            self.stats.steps_host += progress.steps

    def _update_stats(self) -> None:
        """Brings the live figures up to date."""
        stats, cache = self.stats, self.cache
        stats.samples_live, stats.rows_live = self.stepper.n_samples, self.stepper.n_rows
        lengths = self.admission.lengths
        stats.lengths_predicted = lengths.n_compared
        stats.length_predicted_tokens = lengths.predicted_tokens
        stats.length_real_tokens = lengths.real_tokens
        stats.length_error_tokens = lengths.error_tokens
        stats.prefilled_tokens = self.prefill.computed_tokens
        stats.kv_bytes_peak = cache.peak_bytes


@contextmanager
def _timed(stats: RunStats, name: Literal["admission_s", "stepping_s"]) -> Iterator[None]:
    """Adds the seconds of a block to a figure."""
    started = time.perf_counter()
    yield
    setattr(stats, name, getattr(stats, name) + time.perf_counter() - started)
