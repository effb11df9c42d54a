"""Steps taken ahead: whatever there is too little of, every sample gets its own tokens.

The decoder is a stand-in that checks what it reads; `test_decoder.py` runs the real one.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from hydragen_kernels.batch_state import TOO_MANY_ROWS
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch import device_states, device_stepper, draft_widths, forecast, groups
from hydragen_tree.branch.admission import Admission
from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.decoder import IN_FLIGHT
from hydragen_tree.branch.device_batch import DeviceBatch, Frozen
from hydragen_tree.branch.device_freezing import DeviceFreezing
from hydragen_tree.branch.device_stepper import DeviceStepper
from hydragen_tree.branch.draft_widths import DraftWidths
from hydragen_tree.branch.live_trie import Sharing
from hydragen_tree.branch.residency import Residency
from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.states import LayerKinds, StateKind, StatePlaces, States
from hydragen_tree.sample.loop import Loop
from hydragen_tree.sample.records import RunStats
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.trie import Trie
from tests.branch.stand_in_decoder import (
    PAGE,
    STATE_WORDS,
    Ahead,
    Memory,
    Texts,
    copy_states,
    pages_balance,
)

SHAPE = KVShape(layers=1, q_heads=1, kv_heads=1, head_dim=2, itemsize=4)
EAGER = CostModel("eager", bandwidth=1.0, item_s=0.0)  # sharing a page pays already
PROMPTS = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6, 7], [1, 2, 3], [9] * 9]


def run(
    *,
    prompts: int,
    n: int,
    n_pages: int,
    max_rows: int,
    max_tokens: int,
    vocabulary: int,
    together: int,
    p_end: float,
    greedy: bool,
    chunk: int,
    pass_tokens: int,
    least_rows: int,
    seed: int,
    late: int = 0,
    every: int = 1,
    entering: int = 0,
    widths: tuple[int, ...] = (1,),
    key_group: int = 0,
) -> int | None:
    """Draws all samples; None where the run would be refused, else drafts that were drawn.

    So many of the prompts come late, one after so many rounds each, or when nothing is left to do.
    Rows have running states if so many of them may be on their way into the batch. Shared tails are
    frozen if attention takes in a number of keys together.
    """
    arrays = [np.array(p, np.int32) for p in PROMPTS[:prompts]]
    late = min(late, prompts - 1)
    trie = Trie.build(arrays[: prompts - late], max(key_group, 1))
    coming = arrays[prompts - late :]
    cpu = torch.device("cpu")
    kinds = {0: LayerKinds(None, StateKind((STATE_WORDS,), torch.int32))} if entering else {}
    states = States(kinds, StatePlaces(90, entering, padded_rows(max_rows)), cpu)
    cache = KVCache(SHAPE, n_pages, PAGE, torch.float32, cpu, states=states)
    residency = Residency(trie, cache, Sharing(2, 9, max(key_group, 1), not entering))
    try:
        residency.check_capacity(max_tokens)
    except CapacityError:
        return None
    leaves = prompts

    def leaf_of(sample: int) -> int:
        return sample // n

    of_text = leaf_of if greedy else int
    texts = Texts(leaves * n, of_text, max_tokens, vocabulary, together, p_end, seed)
    memory = Memory(residency.trie, residency.table, states, pass_tokens)
    has_drafts = widths != (1,) and not entering  # running states cannot go back
    parts = texts, memory, cache, residency, max_rows, max_tokens
    decoder: Any = Ahead(*parts, has_drafts=has_drafts)
    texts_of = np.arange(prompts - late), arrays.__getitem__
    chooser = DraftWidths(*texts_of, max_rows, decoder.drafts)
    decoder.leaf_of = leaf_of
    options = SamplingSettings(temperature=0.0 if greedy else 1.0, max_tokens=max_tokens)
    stand_ins: Any = texts, memory
    ends, prefill = stand_ins
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_states, "copy_states", copy_states)
        patch.setattr(device_stepper, "CHUNK_STEPS", chunk)
        patch.setattr(forecast, "LEAST_ROWS", least_rows)
        patch.setattr(groups, "_LEAST_ROOM", least_rows)
        patch.setattr(draft_widths, "WIDTHS", widths)
        patch.setattr(draft_widths, "step_cost", lambda queries: 1.0)
        given = decoder, cache, residency.table, options, ends
        freezing = None
        if key_group:
            patch.setattr(cache.arenas[0], "copy_to_run", memory.copy_to_run)
            sizes = EAGER, SHAPE, max_tokens, key_group
            freezing = DeviceFreezing(decoder.batch, residency, cache, *sizes)
        stepper = DeviceStepper(*given, chooser if has_drafts else None, freezing)
        decoder.segment_of = lambda group: int(stepper._groups.segments_of(np.array([group]))[0])
        waiting = [
            Waiting(leaf, np.empty(0, np.int32), np.arange(leaf * n, (leaf + 1) * n))
            for leaf in reversed(range(leaves - late))
        ]
        parts = stepper, residency, prefill, cache, max_rows, greedy
        admission = Admission(waiting, *parts)
        loop = Loop(admission, stepper, residency, prefill, cache, ends, RunStats())
        rounds, admission.keeps_segments = 0, late > 0
        while stepper.n_samples or admission.has_waiting or coming:
            has_work = stepper.n_samples or admission.has_waiting
            if coming and (rounds % every == 0 or not has_work):
                (leaf,) = residency.join([coming.pop(0)])
                assert leaf == leaves - len(coming) - 1
                chooser.join(np.array([leaf]), np.array([leaf]))
                try:
                    residency.check_capacity(max_tokens)
                except CapacityError:
                    return None
                own = np.arange(leaf * n, (leaf + 1) * n)
                admission.add([Waiting(leaf, np.empty(0, np.int32), own)])
            list(loop.step())
            pages_balance(stepper, cache, residency)
            rounds += 1
            assert rounds < 500 + 20 * leaves * n * max_tokens, "the run does not end"
        list(loop.samples())  # those that have ended in the last round
    assert sorted(texts.ended) == list(range(leaves * n))
    admission.keeps_segments = False
    admission._evict_unused([])
    assert cache.free_pages == n_pages
    return int(decoder.accepted)


@settings(max_examples=200, phases=[Phase.explicit, Phase.generate])
@given(
    prompts=st.integers(1, 4),
    n=st.integers(1, 12),
    n_pages=st.integers(8, 90),
    max_rows=st.integers(1, 30),
    max_tokens=st.integers(1, 22),
    vocabulary=st.sampled_from([1, 2, 3, 4, 30]),
    together=st.integers(0, 6),
    p_end=st.sampled_from([0.0, 0.05, 0.3]),
    greedy=st.sampled_from([False, False, False, True]),
    chunk=st.integers(1, 8),
    pass_tokens=st.sampled_from([1, 3, 8, 100]),
    least_rows=st.sampled_from([1, 2, 64]),
    seed=st.integers(0, 2**32),
    late=st.integers(0, 3),
    every=st.integers(1, 9),
    entering=st.sampled_from([0, 0, 1, 2, 5]),
    widths=st.sampled_from([(1,), (2,), (4,), (1, 4)]),
    key_group=st.sampled_from([0, 1, 1, 4]),
)
@example(  # one row becomes six, for which the queue must hold more than for two rows of a graph
    prompts=4,
    n=34,
    n_pages=200,
    max_rows=6,
    max_tokens=3,
    vocabulary=30,
    together=1,
    p_end=0.0,
    greedy=False,
    chunk=2,
    pass_tokens=8,
    least_rows=2,
    seed=1953744977,
    late=0,
    every=1,
    entering=2,
    widths=(1,),
    key_group=0,
)
@example(  # a single row grows into pages that prompts of waiting branches have
    prompts=4,
    n=1,
    n_pages=12,
    max_rows=109,
    max_tokens=30,
    vocabulary=3,
    together=1,
    p_end=0.05,
    greedy=False,
    chunk=1,
    pass_tokens=8,
    least_rows=2,
    seed=1578828202,
    late=0,
    every=1,
    entering=2,
    widths=(1,),
    key_group=0,
)
@example(  # samples come to a group, of whose rows a chunk tells that was launched before
    prompts=3,
    n=9,
    n_pages=300,
    max_rows=4,
    max_tokens=14,
    vocabulary=8,
    together=0,
    p_end=0.1,
    greedy=False,
    chunk=1,
    pass_tokens=8,
    least_rows=64,
    seed=987925197,
    late=0,
    every=1,
    entering=2,
    widths=(1,),
    key_group=0,
)
@example(  # rows that were parked for others to fork would fit, were it not for the others
    prompts=4,
    n=37,
    n_pages=9,
    max_rows=15,
    max_tokens=3,
    vocabulary=8,
    together=1,
    p_end=0.3,
    greedy=False,
    chunk=8,
    pass_tokens=8,
    least_rows=64,
    seed=4143639662,
    late=0,
    every=1,
    entering=2,
    widths=(1,),
    key_group=0,
)
def test_every_sample_gets_its_own_tokens(**options: Any) -> None:
    run(**options)


@pytest.mark.parametrize(("widths", "together"), [((2,), 6), ((4,), 2), ((1, 4), 6)])
def test_rows_go_on_by_drafts(widths: tuple[int, ...], together: int) -> None:
    """Enough memory, and so little that rows leave."""
    sizes = {"prompts": 4, "n": 6, "max_rows": 20, "max_tokens": 22, "vocabulary": 3}
    drawn = [
        run(
            **sizes,
            **{"n_pages": n_pages, "together": together, "p_end": 0.02, "greedy": False},
            **{"chunk": 3, "pass_tokens": 8, "least_rows": 2, "seed": 5, "late": 1},
            widths=widths,
        )
        for n_pages in (400, 30)
    ]
    assert drawn[0]
    assert drawn[1] is not None


@pytest.mark.parametrize("key_group", [1, 4])
@pytest.mark.parametrize("widths", [(1,), (1, 4)])
def test_pages_that_rows_share_become_segments(
    key_group: int, widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels of them, while chunks are on their way that know nothing of it yet."""
    found: list[tuple[bool, int]] = []  # whether another is above, and tokens of that in front
    told: list[bool] = []  # of chunks that may not know of one: whether they have rows below it
    frozen: list[int] = []  # at the end of a chunk, so many
    add, below, freeze = SegmentTable.add, DeviceFreezing._below, DeviceBatch.freeze

    def added(self: SegmentTable, parent: int, n_tokens: int, *slots: int, lead: int = 0) -> int:
        assert (n_tokens - lead) % PAGE == 0
        found.append((bool(self.is_tail[parent]), lead))
        return add(self, parent, n_tokens, *slots, lead=lead)

    def read(self: DeviceFreezing, chunk: Any, of: Frozen) -> Any:
        after = below(self, chunk, of)
        told.append(bool((after.row("groups") != chunk.row("groups")).any()))
        return after

    def done(self: DeviceBatch, of: Frozen, page_tokens: int) -> None:
        frozen.append(len(of.last))
        freeze(self, of, page_tokens)

    monkeypatch.setattr(SegmentTable, "add", added)
    monkeypatch.setattr(DeviceFreezing, "_below", read)
    monkeypatch.setattr(DeviceBatch, "freeze", done)
    run(
        **{"prompts": 4, "n": 12, "n_pages": 900, "max_rows": 48, "max_tokens": 40},
        **{"vocabulary": 3, "together": 9, "p_end": 0.0, "greedy": False, "chunk": 2},
        **{"pass_tokens": 100, "least_rows": 1, "seed": 2, "late": 1, "every": 3},
        widths=widths,
        key_group=key_group,
    )
    assert len(found) == sum(frozen) > len(frozen) > 4
    assert any(is_deep for is_deep, _ in found)
    assert any(lead for _, lead in found) == (key_group > 1)
    assert sum(told) > len(frozen), "no chunk was on its way"


@pytest.mark.parametrize("is_guess_low", [False, True])
def test_others_go_on_while_first_tokens_are_drawn(
    is_guess_low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks with first tokens have steps, and others behind them; a low guess loses nothing."""
    launched: list[tuple[bool, bool, int]] = []
    launch = Ahead.launch

    def recorded(self: Ahead, choice: Any, steps: int, fresh: Any = None) -> Any:
        wait = launch(self, choice, steps, fresh)
        rides = fresh is not None and steps > 0
        launched.append((rides, self.flying == IN_FLIGHT, int(self.batch.control.stuck)))
        return wait

    monkeypatch.setattr(Ahead, "launch", recorded)
    if is_guess_low:
        monkeypatch.setattr(forecast.Openings, "most", property(lambda self: self.rows))
    run(
        prompts=4,
        n=40,
        n_pages=900,
        max_rows=160,
        max_tokens=22,
        vocabulary=30,
        together=0,
        p_end=0.0,
        greedy=False,
        chunk=3,
        pass_tokens=100,
        least_rows=1,
        seed=1,
        late=3,
        every=4,
    )
    rides = [one for one in launched if one[0]]
    assert any(is_behind for _, is_behind, _ in rides)
    assert any(before[0] and one[1] for before, one in pairwise(launched))
    assert any(stuck == TOO_MANY_ROWS for *_, stuck in rides) == is_guess_low


@pytest.mark.parametrize(("step_s", "most"), [(1e-4, 8), (0.03, 4), (0.2, 1)])
def test_a_chunk_has_fewer_steps_where_they_take_long(
    step_s: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of: list[int] = []  # of each chunk after the first that was timed
    timed: list[int] = []
    launch = Ahead.launch

    def recorded(self: Ahead, choice: Any, steps: int, fresh: Any = None) -> Any:
        receive = launch(self, choice, steps, fresh)
        if timed:
            steps_of.append(steps)

        def wait() -> Any:
            if steps:
                timed.append(steps)
                self.graphs.took(choice, steps, steps * step_s)
            return receive()

        return wait

    monkeypatch.setattr(Ahead, "launch", recorded)
    run(
        **{"prompts": 4, "n": 20, "n_pages": 900, "max_rows": 40, "max_tokens": 22},
        **{"vocabulary": 30, "together": 1, "p_end": 0.02, "greedy": False, "chunk": 8},
        **{"pass_tokens": 100, "least_rows": 8, "seed": 1},
    )
    assert max(steps_of) == most


def test_rows_that_take_no_step_say_nothing_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    steps_of: list[int] = []  # of each chunk
    growths: list[tuple[float, float]] = []  # before and after those with first tokens only
    launch, take = Ahead.launch, DeviceStepper._take

    def recorded(self: Ahead, choice: Any, steps: int, fresh: Any = None) -> Any:
        steps_of.append(steps)
        return launch(self, choice, steps, fresh)

    def taken(self: DeviceStepper, flight: Any, chunk: Any) -> Any:
        before = self._forecast._growth
        progress = take(self, flight, chunk)
        if not steps_of[flight.number]:
            growths.append((before, self._forecast._growth))
        return progress

    monkeypatch.setattr(Ahead, "launch", recorded)
    monkeypatch.setattr(DeviceStepper, "_take", taken)
    for seed in range(3):
        steps_of.clear()
        run(
            **{"prompts": 4, "n": 60, "n_pages": 1900, "max_rows": 240, "max_tokens": 22},
            **{"vocabulary": 30, "together": 4, "p_end": 0.0, "greedy": False, "chunk": 8},
            **{"pass_tokens": 100, "least_rows": 8, "seed": seed, "late": 3, "every": 3},
        )
    assert any(before >= forecast._FAST for before, _ in growths)
    assert all(before == after for before, after in growths)
