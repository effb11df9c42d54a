"""Steps taken ahead: whatever there is too little of, every sample gets its own tokens.

The decoder is a stand-in that checks what it reads; `test_decoder.py` runs the real one.
"""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from hydragen_kernels.batch_state import TOO_MANY_ROWS
from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch import forecast
from hydragen_tree.branch.decoder import IN_FLIGHT
from hydragen_tree.branch.device_batch import DeviceBatch, Frozen
from hydragen_tree.branch.device_freezing import DeviceFreezing
from hydragen_tree.branch.device_stepper import DeviceStepper
from tests.branch.stand_in_decoder import Ahead
from tests.branch.stand_in_memory import PAGE
from tests.branch.stand_in_run import run


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
