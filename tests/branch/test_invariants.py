"""Batch, admission, residency and freezing: what must hold after every step of the host.

No model: prefill is a stand-in that knows nothing but logits of the right shape, and so do steps;
tokens and ends are drawn by a random number generator. All books (rows, samples, pages, segments)
are real.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.drawn import Drawn
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch import host_stepper
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.batch import Batch
from hydragen_tree.branch.drafting import Drafting
from hydragen_tree.branch.freezing import Freezing
from hydragen_tree.branch.host_stepper import HostStepper
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Progress, Waiting
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Trie

PAGE = 4
SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)
EAGER = CostModel("eager", bandwidth=1.0, item_s=0.0)  # sharing two tokens pays already
PROMPTS = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6, 7], [1, 2, 3], [9] * 9]


class GivenLogits(Prefill):
    """A prefill without a model: the logits after a prompt are its segment's number."""

    def __init__(self, trie: Trie, table: SegmentTable, max_tokens: int) -> None:
        no_model: Any = None
        super().__init__(no_model, trie, table, no_model, max_tokens)

    def _compute(self, pack: list[tuple[int, int, int]]) -> dict[int, torch.Tensor]:
        logits = {}
        for segment, start, stop in pack:
            above = self._table.parent[segment]
            assert above < 0 or self._table.n_computed[above] == self._table.n_tokens[above]
            assert self._table.slot[segment] >= 0
            assert self._table.n_computed[segment] == start < stop
            self._table.n_computed[segment] = stop
            self.computed_tokens += stop - start
            if stop == self._table.n_tokens[segment] and self._trie.segments[segment].ends_prompt:
                logits[segment] = torch.full((8,), float(segment))
        return logits

    def tails(self, *_: Any) -> None:
        pass


class RandomEnds:
    """Ends that come as they like; a branch's state is how many tokens it has drawn."""

    keys: np.ndarray

    def __init__(self) -> None:
        self.rng, self.p_end = np.random.default_rng(0), 0.0

    def state(self, sample: int, tokens: np.ndarray) -> int:
        return int(tokens.size)

    def advance(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        ends = self.rng.random(states.size) < self.p_end
        return np.where(ends, -1 - states, states + 1)

    def has_ended(self, sample: int, tokens: np.ndarray) -> bool:
        return True


@dataclass
class Books:
    """All parts of a run's books, as `assemble` puts them together."""

    n_pages: int
    max_rows: int
    max_tokens: int
    samples_a_leaf: int
    pass_tokens: int = 8
    key_group: int = 1
    drafts: bool = False

    def __post_init__(self) -> None:
        self.trie = Trie.build(np.array(p, np.int32) for p in PROMPTS)
        device = torch.device("cpu")
        self.cache = KVCache(SHAPE, self.n_pages, PAGE, torch.float32, device)
        self.batch = Batch(self.max_tokens, self.cache.pages_for(self.max_tokens) + 1)
        self.residency = Residency(self.trie, self.cache)
        leaves, n = len(self.trie.leaf_segments), self.samples_a_leaf
        self.total = leaves * n
        self.waiting = [
            Waiting(leaf, np.empty(0, np.int32), np.arange(leaf * n, (leaf + 1) * n))
            for leaf in reversed(range(leaves))
        ]
        self.ends, cache = RandomEnds(), self.cache
        around = self.batch, self.residency, cache
        freezing = Freezing(*around, EAGER, SHAPE, self.key_group)
        self.ends.keys = np.arange(self.total, dtype=np.uint64)
        settings = SamplingSettings(temperature=1.0, max_tokens=self.max_tokens)
        no_model = SimpleNamespace(batch_invariant=False)
        table = self.residency.table
        parts: Any = self.batch, no_model, cache, table, freezing, settings
        drafting = None
        if self.drafts:
            problems = np.arange(leaves) // 2
            drafting = Drafting(problems, self.trie.leaf_tokens, free_rows=1e3)
        self.stepper = HostStepper(*parts, self.max_rows, self.ends, drafting)
        prefill = GivenLogits(self.trie, table, self.pass_tokens)
        rest = self.residency, prefill, cache, self.max_rows, False
        self.admission = Admission(self.waiting, self.stepper, *rest)
        self.ended: list[int] = []
        self.n_accepted = 0

    def check(self) -> None:
        """What must hold between any two operations."""
        batch, table = self.batch, self.residency.table
        live = np.concatenate([batch.samples, *(branch.samples for branch in self.waiting)])
        everyone = np.sort(np.append(live, self.ended)).tolist()
        assert everyone == list(range(self.total)), "a sample is lost, or there twice"
        assert (np.diff(batch.row_of) >= 0).all()
        assert np.unique(batch.row_of).tolist() == list(range(batch.size)), "a row without samples"
        assert batch.size <= self.max_rows or batch.size == 1
        assert (np.diff(batch.leaf) >= 0).all(), "rows are not depth-first"

        resident = np.flatnonzero(table.slot[: table.size] >= 0)
        above = table.parent[resident]
        assert (table.slot[above[above >= 0]] >= 0).all(), "a resident segment hangs from one gone"

        users = np.zeros(self.n_pages, int)
        for row in range(batch.size):
            pages = batch.pages[row][batch.pages[row] >= 0]
            assert pages.size == np.unique(pages).size
            assert pages.size >= self.cache.pages_for(int(batch.tail[row]))
            users[pages] += 1
        for segment in np.flatnonzero(table.slot[: table.size] >= 0).tolist():
            first = int(table.slot[segment]) // PAGE
            run = slice(first, first + self.cache.pages_for(int(table.n_tokens[segment])))
            assert not users[run].any(), "a segment lies where something else does"
            users[run] += 1
        assert users.tolist() == self.cache.arenas[0].users.tolist(), (
            "pages lost, or shared by mistake"
        )

        last = batch.tail // PAGE
        part_full = np.flatnonzero(batch.tail % PAGE)
        own = batch.pages[part_full, last[part_full]]
        assert np.unique(own).size == own.size, "two rows would write to one page"
        hung = table.live(batch.segment)
        assert (table.slot[: table.size][hung] >= 0).all(), "a row reads a segment that is gone"
        is_computed = (table.n_computed == table.n_tokens)[: table.size]
        assert is_computed[hung].all(), "a row reads a segment that is not computed"
        assert not table.n_computed[: table.size][table.slot[: table.size] < 0].any()
        for row in range(batch.size):
            on_path = int(batch.n_drawn[row] - (batch.n_drawn[row] > 0))
            frozen = self._frozen_tokens(int(batch.segment[row]), int(batch.leaf[row]))
            assert batch.tail[row] + frozen == on_path, "tail and frozen tails are not the history"

    def _frozen_tokens(self, segment: int, leaf: int) -> int:
        table, end = self.residency.table, int(self.trie.leaf_segments[leaf])
        total = 0
        while segment != end:
            total += int(table.n_tokens[segment])
            segment = int(table.parent[segment])
        return total

    def step(self, rng: np.random.Generator, spread: int, p_end: float) -> None:
        """One round of the loop with random tokens and ends."""
        batch, histories = self.batch, self.histories()
        self.admission.admit()
        self.check()
        histories = self.histories()
        self.admission.prefetch()
        self.check()
        if self.stepper.lacks_pages:
            self.admission.give_up_prefetched()
            self.check()
        self.ends.rng, self.ends.p_end = rng, p_end
        progress = self.with_tokens(rng, spread, self.stepper.step)
        for column, sample in enumerate(progress.samples.tolist()):
            drawn = progress.drawn.tokens[:, column]
            histories[sample] = [*histories[sample], *drawn[drawn >= 0].tolist()]
        self.n_accepted += progress.drafts[1]
        for ended in progress.ended:
            for sample in ended.samples.tolist():
                assert ended.tokens.tolist() == histories.pop(sample)
                self.ended.append(sample)
        for branch in progress.parked:
            for sample in branch.samples.tolist():
                assert branch.drawn.tolist() == histories.pop(sample)
        self.admission.follow(progress)
        self.check()
        assert self.histories() == histories
        assert (batch.stops == batch.n_drawn).all(), "a row has another's stop state"

    def histories(self) -> dict[int, list[int]]:
        """What each sample of the batch has drawn."""
        batch = self.batch
        rows = [batch.drawn[row, : batch.n_drawn[row]].tolist() for row in range(batch.size)]
        pairs = zip(batch.samples.tolist(), batch.row_of.tolist(), strict=True)
        return {sample: rows[row] for sample, row in pairs}

    def with_tokens(
        self, rng: np.random.Generator, spread: int, step: Callable[[], Progress]
    ) -> Progress:
        """A step whose logits are nobody's, and whose tokens are random."""

        def drawn(logits: torch.Tensor, rows: np.ndarray, *_: Any) -> Drawn[np.ndarray]:
            assert len(logits) == np.unique(rows).size
            assert self.drafts or len(logits) == self.batch.size
            return Drawn(rng.integers(0, spread, rows.size), *np.zeros((2, rows.size)))

        def decoded(*arguments: Any) -> torch.Tensor:
            return torch.zeros(arguments[-1].size, 8)

        def decoded_tokens(*arguments: Any) -> torch.Tensor:
            *_, tokens, _, _, pages, tails = arguments
            rows = np.arange(tokens.size)
            assert (pages[rows, tails // PAGE] >= 0).all(), "a draft has no page"
            slots = pages[rows, tails // PAGE] * PAGE + tails % PAGE
            assert np.unique(slots).size == rows.size, "two tokens would lie in one place"
            return torch.zeros(tokens.size, 8)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host_stepper, "draw", drawn)
            patch.setattr(host_stepper, "decode", decoded)
            patch.setattr(host_stepper, "decode_tokens", decoded_tokens)
            return step()


@given(
    seed=st.integers(0, 2**32),
    n_pages=st.integers(9, 40),
    max_rows=st.integers(1, 9),
    max_tokens=st.integers(1, 17),
    samples_a_leaf=st.integers(1, 6),
    spread=st.integers(1, 3),
    p_end=st.sampled_from([0.0, 0.05, 0.4]),
    pass_tokens=st.sampled_from([1, 3, 8, 100]),
    drafts=st.booleans(),
)
def test_books_balance_after_every_operation(
    seed: int,
    n_pages: int,
    max_rows: int,
    max_tokens: int,
    samples_a_leaf: int,
    spread: int,
    p_end: float,
    pass_tokens: int,
    drafts: bool,
) -> None:
    books = Books(
        n_pages, max_rows, max_tokens, samples_a_leaf, pass_tokens=pass_tokens, drafts=drafts
    )
    try:
        books.residency.check_capacity(max_tokens)
    except CapacityError:
        return  # such a run is refused before it starts
    rng = np.random.default_rng(seed)
    rounds = 0
    while books.batch.size or books.admission.has_waiting:
        books.step(rng, spread, p_end)
        rounds += 1
        assert rounds < 2000, "the run does not end"
    assert sorted(books.ended) == list(range(books.total))
    assert books.cache.free_pages == n_pages


def test_rows_go_on_by_drafts() -> None:
    books = Books(n_pages=200, max_rows=6, max_tokens=24, samples_a_leaf=3, drafts=True)
    rng = np.random.default_rng(0)
    while books.batch.size or books.admission.has_waiting:
        books.step(rng, spread=2, p_end=0.02)
    assert books.n_accepted > 30


def test_a_tail_is_frozen_once_and_shared() -> None:
    books = Books(n_pages=40, max_rows=8, max_tokens=16, samples_a_leaf=4)
    rng = np.random.default_rng(0)
    for _ in range(6):
        books.step(rng, spread=1, p_end=0.0)  # all samples of a leaf stay together
    before = books.residency.table.size
    books.step(rng, spread=4, p_end=0.0)
    assert books.residency.table.size > before
    assert (books.batch.tail < PAGE).any()


def test_a_segment_that_does_not_fit_reserves_nothing() -> None:
    books = Books(n_pages=3, max_rows=1, max_tokens=1, samples_a_leaf=1)
    longest = int(books.trie.leaf_segments[-1])
    assert not books.residency.place([0, longest])
    assert books.cache.free_pages == 3
    with pytest.raises(CapacityError, match="one branch needs"):
        books.residency.check_capacity(100)


def test_nothing_is_frozen_where_segments_part_between_groups() -> None:
    books = Books(n_pages=40, max_rows=8, max_tokens=16, samples_a_leaf=4, key_group=2)
    rng, before = np.random.default_rng(0), books.residency.table.size
    for spread in (1, 1, 1, 1, 1, 1, 4):
        books.step(rng, spread, p_end=0.0)
    assert books.residency.table.size == before
