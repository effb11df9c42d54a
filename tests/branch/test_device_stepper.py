"""Steps taken ahead: what the device may still write to is nobody else's, and nothing is lost.

The decoder is a stand-in that keeps what it was told, as the real one does on a device, and checks
its pages whenever a chunk is launched. `test_decoder.py` runs the real one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton")

from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.batch import Batch, Waiting
from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.decoder import IN_FLIGHT
from hydragen_tree.branch.device_stepper import DeviceStepper
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.cache import KVCache
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.trie import Trie

PAGE, VOCABULARY = 4, 8
SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)


class Ahead:
    """A decoder whose token t of a row is a function of its stream key and t alone."""

    def __init__(self, batch: Batch, cache: KVCache) -> None:
        self.batch, self.cache = batch, cache
        self.keys = np.empty(0, np.int64)
        self.drawn = np.empty(0, np.int32)
        self.pages = np.empty((0, 0), np.int32)
        self.flying = 0

    @property
    def padded(self) -> int:
        return padded_rows(self.keys.size)

    def load(self, *columns: Any) -> None:
        *_, self.drawn, self.keys, self.pages, _ = (np.array(column) for column in columns)
        assert not self.flying, "the batch is replaced while chunks are in flight"

    def load_pages(self, pages: np.ndarray) -> None:
        assert pages.shape == self.pages.shape
        self.pages = pages.copy()

    def keep(self, rows: np.ndarray, pages: np.ndarray, items: np.ndarray) -> None:
        self.keys, self.drawn, self.pages = self.keys[rows], self.drawn[rows], pages.copy()

    def logits(self) -> torch.Tensor:
        logits = torch.full((self.keys.size, VOCABULARY), -20.0)
        logits[torch.arange(self.keys.size), torch.from_numpy(token(self.keys, self.drawn))] = 20.0
        return logits

    def launch(self, steps: int) -> Callable[[], Drawn]:
        assert self.flying < IN_FLIGHT
        self.flying += 1
        each = np.stack([token(self.keys, self.drawn + step) for step in range(steps)])
        self.drawn = self.drawn + steps
        self.check()

        def wait() -> Drawn:
            self.flying -= 1
            nothing = np.zeros(each.shape, np.float32)
            return Drawn(each.astype(np.int32), nothing, nothing)

        return wait

    def check(self) -> None:
        """A chunk writes to its columns' pages: nobody but a column's own row may have them."""
        living = dict(zip(self.batch.samples.tolist(), self.batch.pages.tolist(), strict=True))
        for column, key in zip(self.pages.tolist(), self.keys.tolist(), strict=True):
            own = {page for page in column if page >= 0}
            assert (self.cache._users[list(own)] > 0).all(), "a page was free when it was written"
            for sample, others in living.items():
                assert sample == key or not own & set(others), "a page has two writers"


def token(keys: np.ndarray, position: np.ndarray) -> np.ndarray:
    return (keys * 7 + position * 5 + keys * position) % VOCABULARY


@given(
    n_pages=st.integers(14, 60),
    max_rows=st.integers(1, 20),
    max_tokens=st.integers(1, 40),
    n=st.integers(1, 20),
    seed=st.integers(0, 2**32),
    p_end=st.sampled_from([0.0, 0.02, 0.2]),
)
def test_every_row_gets_its_own_tokens(
    n_pages: int, max_rows: int, max_tokens: int, n: int, seed: int, p_end: float
) -> None:
    trie = Trie.build([np.arange(6, dtype=np.int32)])
    cache = KVCache(SHAPE, n_pages, PAGE, torch.float32, torch.device("cpu"))
    batch = Batch(max_tokens, cache.pages_for(max_tokens) + 1)
    residency = Residency(trie, cache)
    fresh: dict[int, torch.Tensor] = {}
    keys = np.arange(n, dtype=np.uint64)

    class GivenLogits:
        def segments(self, segments: list[int]) -> dict[int, torch.Tensor]:
            return {segment: torch.zeros(VOCABULARY) for segment in segments}

        def tails(self, *_: Any) -> None:
            pass

    # each sample is a branch of its own from the start, so that one step may go far ahead
    waiting = [Waiting(0, np.empty(0, np.int32), np.array([sample])) for sample in range(n)][::-1]
    prefill: Any = GivenLogits()
    admission = Admission(waiting, batch, trie, residency, prefill, cache, fresh, max_rows, False)
    decoder: Any = Ahead(batch, cache)
    model: Any = None
    settings = SamplingSettings(temperature=1.0, max_tokens=max_tokens)
    stepper = DeviceStepper(
        batch, model, cache, residency.table, fresh, keys, settings, decoder=decoder
    )
    rng, ended = np.random.default_rng(seed), []
    while batch.size or admission.has_waiting:
        waits = admission.is_worthwhile()
        if not stepper.is_ahead:
            if waits:
                admission.admit()
                waits = False
            admission.make_room()
        drawn = stepper.step(go_on=not waits)
        later = batch.n_drawn > 0
        expected = token(batch.samples, batch.n_drawn)
        assert drawn.tokens[later].tolist() == expected[later].tolist()
        children = batch.children(drawn.tokens)
        alive = (batch.n_drawn + 1 < max_tokens) & (rng.random(batch.size) >= p_end)
        ended += batch.samples[~alive].tolist()
        admission.set_aside(children, alive)
        batch.grow(children, alive, cache)
        admission.evict_unused()
        if not batch.size:
            stepper.settle()
    assert sorted(ended) == list(range(n))
    assert cache.free_pages == n_pages
