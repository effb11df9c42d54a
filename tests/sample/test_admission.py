"""Prompts that are computed beside the steps: no row waits long, and no row is empty for them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from hydragen_tree.branch import admission
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.stepper import Progress
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

ROWS, PAGE = 16, 16
SETTINGS = SamplingSettings(temperature=1.0, max_tokens=48, stop=("e", "t", "7"))


def problems(number: int, own_tokens: int) -> list[Prompt]:
    """Behind a common root."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 70)
    return [
        Prompt(f"p{i}", 0, np.append(root, rng.integers(0, 250, own_tokens)).astype(np.int32), ())
        for i in range(number)
    ]


@dataclass
class Round:
    """What happened between one round of steps and the next.

    Attributes:
        prompt_tokens: computed in it.
        rows, samples: in the batch when its steps began.
        waiting: samples that did not come into it.
        computed: rows that its steps computed.
        left: samples in the batch after them.
    """

    prompt_tokens: int
    rows: int
    samples: int
    waiting: int
    computed: int = 0
    left: int = 0


@dataclass
class Watch:
    """Looks at every round of a loop, and counts its pages."""

    rounds: list[Round] = field(default_factory=list)

    @classmethod
    def put_on(cls, patch: pytest.MonkeyPatch) -> "Watch":
        watch, follow, step = cls(), Admission.follow, Loop.step

        def watched(loop: Loop) -> Iterator[Sample]:
            before, take = loop.prefill.computed_tokens, loop.stepper.step

            def stepping() -> Progress:
                stepper, tokens = loop.stepper, loop.prefill.computed_tokens - before
                waiting = loop.admission.n_waiting
                watch.rounds.append(Round(tokens, stepper.n_rows, stepper.n_samples, waiting))
                return take()

            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(loop.stepper, "step", stepping)
                yield from step(loop)
            count_pages(loop)

        def followed(self: Admission, progress: Progress) -> None:
            watch.rounds[-1].computed = progress.rows
            watch.rounds[-1].left = self._stepper.n_samples
            follow(self, progress)

        patch.setattr(Loop, "step", watched)
        patch.setattr(Admission, "follow", followed)
        return watch


def count_pages(loop: Loop) -> None:
    """Every page in use is a row's or a segment's, once for each."""
    cache, table, batch = loop.cache, loop.residency.table, loop.stepper._batch
    users = np.zeros(cache.n_pages, int)
    np.add.at(users, batch.pages[batch.pages >= 0], 1)
    for segment in np.flatnonzero(table.slot[: table.size] >= 0).tolist():
        first = int(table.slot[segment]) // PAGE
        users[first : first + cache.pages_for(int(table.n_tokens[segment]))] += 1
    assert users.tolist() == cache.arenas[0].users.tolist(), "pages lost, or shared by mistake"


def drawn(
    sampler: Sampler, prompts: list[Prompt], n: int, settings: SamplingSettings = SETTINGS
) -> dict[tuple[str, int], Sample]:
    samples = sampler.sample(prompts, n, settings)
    return {(sample.task_id, sample.sample_index): sample for sample in samples}


def test_a_round_of_steps_waits_for_few_prompt_tokens(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, n = problems(12, 90), 8
    whole = drawn(Sampler.from_pretrained(str(random_model), max_rows=12 * n), prompts, n)
    watch = Watch.put_on(monkeypatch)
    sampler = Sampler.from_pretrained(str(random_model), max_rows=ROWS)
    found = drawn(sampler, prompts, n)
    assert found.keys() == whole.keys()
    assert all(found[name].token_ids == whole[name].token_ids for name in whole)
    assert len({sample.n_tokens for sample in found.values()}) > 10  # of many lengths

    for before, now in zip(watch.rounds, watch.rounds[1:], strict=False):
        if before.left >= admission._FULL * ROWS:
            assert now.prompt_tokens <= max(before.computed, admission._FREE_TOKENS_CPU)
    assert sampler.stats.prefilled_tokens == sampler.stats.prompt_tokens
    assert 0 < sampler.stats.admission_s < sampler.stats.elapsed_s
    assert sampler.stats.rows_parked == 0


def test_rows_that_end_are_followed_by_the_next_problem(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch.put_on(monkeypatch)
    sampler = Sampler.from_pretrained(str(random_model), max_rows=ROWS)
    drawn(sampler, problems(12, 30), 8)
    while_waiting = [one.samples for one in watch.rounds[1:] if one.waiting]
    assert len(while_waiting) > 20
    assert np.mean(while_waiting) > 0.85 * ROWS


@pytest.mark.parametrize(
    "ends", [tuple("et7aoQ%(9xy"), ()], ids=["some end early", "none ends early"]
)
def test_a_small_memory_is_filled_and_few_rows_are_put_back(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, ends: tuple[str, ...]
) -> None:
    """More rows than would fit at their full length, if samples end before; the same samples."""
    settings = replace(SETTINGS, stop=ends)
    prompts, n, rows = problems(6, 20), 12, 32
    whole = drawn(Sampler.from_pretrained(str(random_model)), prompts, n, settings)
    sampler = Sampler.from_pretrained(str(random_model), max_rows=rows)
    fits = 12  # rows of the full length
    tokens = 70 + 2 * 20 + 3 * PAGE + fits * (settings.max_tokens + PAGE)
    memory_bytes = tokens * sampler.source.shape.token_bytes
    sampler = Sampler.from_pretrained(str(random_model), max_rows=rows, memory_bytes=memory_bytes)
    watch = Watch.put_on(monkeypatch)
    found = drawn(sampler, prompts, n, settings)
    assert found.keys() == whole.keys()
    assert all(found[name].token_ids == whole[name].token_ids for name in whole)
    stats = sampler.stats
    assert stats.rows_parked < 0.2 * len(found)
    in_use = np.mean([one.samples for one in watch.rounds if one.waiting])
    lengths = np.array([sample.n_tokens for sample in found.values()])
    if ends:
        assert in_use > 1.2 * fits
        assert stats.lengths_predicted > len(found) / 4
        error = stats.length_error_tokens / stats.lengths_predicted
        assert error < 1.5 * np.abs(lengths - np.median(lengths)).mean()
    else:
        assert in_use > 0.7 * fits
