"""Prompts that come while a run is going: they join its tree and its queue.

The batch is not drained for them, and what is in the arena of them already is neither computed nor
stored again. A sample's random numbers are its own, so it is what it would have been with all
prompts there from the start.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.long_prompts import stand_ins
from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.errors import HydragenError, InputError
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.rotary import longrope_tokens
from hydragen_tree.prompt.prompts import Prompt, longest_sequence
from hydragen_tree.sample.feeding import branches
from hydragen_tree.sample.loop import Loop
from hydragen_tree.settings import SamplingSettings

# Gives the prompts that have come since it was asked last, or None: no more will come. Told whether
# to wait for one, when nothing else is left to do.
Late = Callable[[bool], Sequence[Prompt] | None]


class Joining:
    """Takes prompts into a run.

    One that cannot be drawn ends it: nothing is taken any more, and the error is raised when all
    before it have been drawn.

    Args:
        loop: it is going.
        prompts: that it has begun with.
        source: the model.
        check: refuses prompts that the model cannot hold.
        n: samples a task.
        settings: how to sample.
        done: by task id, sample indices that are not drawn again.
        late: gives the prompts.
    """

    def __init__(
        self,
        loop: Loop,
        prompts: Sequence[Prompt],
        source: ModelSource,
        check: Callable[[Sequence[Prompt]], None],
        n: int,
        settings: SamplingSettings,
        done: Mapping[str, Collection[int]],
        late: Late,
    ) -> None:
        self._source, self._check, self._loop, self._late = source, check, loop, late
        self._n, self._settings, self._done = n, settings, done
        self._longest = longest_sequence(prompts, settings.max_tokens)
        self._numbers: dict[bytes, int] = {}
        self._stand_ins(prompts)  # counts those of condensed prompts
        self._is_over = False
        self._fault: HydragenError | None = None
        loop.admission.keeps_segments = True

    def take(self) -> list[Waiting]:
        """Branches of the prompts that have come, the first one last; waits if nothing is left.

        Raises:
            HydragenError: a prompt cannot be drawn, or could not be read; all before it have been.
        """
        is_idle = self._loop.is_idle
        if self._fault is not None and is_idle:
            raise self._fault
        if self._is_over:
            return []
        try:
            came = self._late(is_idle)
            self._is_over = came is None
            return self._join(came) if came else []
        except HydragenError as error:
            self._is_over, self._fault = True, error
            return []

    def _join(self, prompts: Sequence[Prompt]) -> list[Waiting]:
        loop, settings = self._loop, self._settings
        self._check(prompts)
        self._check_frequencies(prompts)
        trie = loop.residency.trie
        before = trie.n_tokens
        leaves = loop.residency.join(self._stand_ins(prompts))
        if loop.prefill.long_segments is not None:
            ends = trie.leaf_segments[leaves].tolist()
            loop.prefill.long_segments.add(trie, ends, prompts)
        loop.residency.check_capacity(settings.max_tokens)
        ranges = {prompt.task_id: range(self._n) for prompt in prompts}
        parts = loop.records.extend(prompts, ranges, self._done)
        if loop.drafting is not None:
            tasks = loop.records.tasks[[number for number, _ in parts]]
            loop.drafting.join(np.array(leaves), tasks)
        stats = loop.stats
        stats.prompts_joined += len(prompts)
        stats.prompt_tokens += trie.n_tokens - before
        kinds = [loop.records.stop_set(number) for number, _ in parts]
        samples = [own for _, own in parts]
        return branches(leaves, kinds, samples, trie.place_of)

    def _stand_ins(self, prompts: Sequence[Prompt]) -> list[Int32]:
        """The prompts as the tree has them."""
        return stand_ins(self._source, prompts, self._settings.max_tokens, self._numbers)

    def _check_frequencies(self, prompts: Sequence[Prompt]) -> None:
        """Refuses a prompt for which the run would have to take longrope's other frequencies."""
        limit = longrope_tokens(self._source.config)
        longest = longest_sequence(prompts, self._settings.max_tokens)
        if limit is not None and self._longest <= limit < longest:
            raise InputError(
                f"a prompt that came late takes a sequence to {longest:,} tokens: beyond "
                f"{limit:,} the model has other rotary frequencies than the run began with; draw "
                "it in a run of its own",
                setting="prompts",
            )
