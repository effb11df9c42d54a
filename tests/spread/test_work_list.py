"""The work list: whatever is handed out, lost and given back, every sample is drawn, and once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sample import Sample
from hydragen_tree.spread.work_list import Piece, WorkList, missing_samples


def prompt(task: str, tokens: int = 10) -> Prompt:
    return Prompt(task, 0, np.arange(tokens, dtype=np.int32), ())


def work_list(tasks: dict[str, range], **options: int) -> WorkList:
    usual = {"workers": 2, "max_tokens": 100, "max_rows": 8}
    prompts = [prompt(task) for task in tasks]
    work = WorkList(prompts, tasks, **{**usual, **options})
    work.add(missing_samples(tasks, {}))
    return work


def names_of(piece: Piece) -> list[tuple[str, int]]:
    return [(task, int(index)) for task, own in piece.indices.items() for index in own]


def size_of(indices: dict[str, np.ndarray]) -> int:
    return sum(own.size for own in indices.values())


def sample(task: str, index: int, n_tokens: int = 7) -> Sample:
    return Sample(task, index, 0, "", "", "eos", n_tokens, -1.0, -1.0, seed=0)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    workers=st.integers(1, 5),
    max_rows=st.integers(1, 40),
    lives=st.lists(st.integers(0, 20), max_size=8),
    modulus=st.integers(1, 9),
)
def test_every_sample_is_drawn_once(
    sizes: list[int], workers: int, max_rows: int, lives: list[int], modulus: int
) -> None:
    ranges = {f"t{i}": range(i, i + size) for i, size in enumerate(sizes)}
    done = {task: {i for i in own if i % modulus == 1} for task, own in ranges.items()}
    prompts = [prompt(task, 3) for task in ranges]
    work = WorkList(prompts, ranges, workers=workers, max_tokens=20, max_rows=max_rows)
    pieces = [{task: own} for task, own in missing_samples(ranges, done).items()]
    for indices in pieces[::2]:
        work.add(indices)
    later = pieces[1::2]
    missing = {(task, i) for task, own in ranges.items() for i in own if i not in done[task]}
    assert work.n_waiting == work.n_samples == len(missing) - sum(map(size_of, later))
    drawn: list[tuple[str, int]] = []
    while later or not work.is_finished:
        if later:
            work.add(later.pop())
        piece = work.take()
        assert piece is not None
        names = names_of(piece)
        assert names
        assert len(set(names)) == len(names) == piece.n_samples
        lives_for = lives.pop() if lives else len(names)  # samples, before it is lost
        for name in names[:lives_for]:
            assert work.finished(sample(*name, n_tokens=1 + name[1] % 20))
            assert not work.finished(sample(*name))  # a double counts once
            drawn.append(name)
        assert work.give_back(piece) == len(names[lives_for:])
    assert work.take() is None
    assert work.n_samples == len(missing)
    assert sorted(drawn) == sorted(missing)


def test_pieces_become_smaller_and_all_workers_end_together() -> None:
    """Three workers, one half as fast: drawn as by the clock."""
    work = work_list({f"t{i}": range(200) for i in range(20)}, workers=3, max_rows=32)
    clocks, speeds = [0.0, 0.0, 0.0], [1.0, 1.0, 0.5]
    sizes = []
    while not work.is_finished:
        worker = clocks.index(min(clocks))
        piece = work.take()
        assert piece is not None
        sizes.append(piece.n_samples)
        for name in names_of(piece):
            work.finished(sample(*name))
        clocks[worker] += piece.n_samples / speeds[worker]
    assert sizes[0] > 4 * sizes[-1]
    assert len(sizes) < 40
    assert max(clocks) < 1.05 * sum(sizes) / sum(speeds)


def test_problems_stay_whole_where_they_fit() -> None:
    work = work_list({f"t{i}": range(10) for i in range(40)}, workers=4, max_rows=8)
    first = work.take()
    assert first is not None
    assert {own.size for own in first.indices.values()} == {10}


def test_one_problem_is_cut() -> None:
    work = work_list({"a": range(1000)}, workers=4, max_rows=16)
    sizes = [piece.n_samples for piece in iter(work.take, None)]
    assert sum(sizes) == 1000
    assert sizes[:4] == pytest.approx([150] * 4, abs=15)
    assert max(sizes[-4:]) <= 16


def test_long_samples_count_more() -> None:
    """A problem whose samples have proved to be long fills a piece sooner."""
    work = work_list({"short": range(1000), "long": range(1000)}, max_rows=8)
    for index in range(100):
        work.finished(sample("long", index, 100))
        work.finished(sample("short", index, 10))
    pieces = list(iter(work.take, None))
    first = {
        task: [p.indices[task].size for p in pieces if task in p.indices]
        for task in ("short", "long")
    }
    assert first["long"][0] < first["short"][0] / 2


def test_what_is_given_back_is_next() -> None:
    work = work_list({"a": range(10), "b": range(10), "c": range(10)})
    lost, kept = work.take(), work.take()
    assert lost is not None
    assert kept is not None
    work.finished(sample(*names_of(lost)[0]))
    assert work.give_back(lost) == lost.n_samples - 1
    again = work.take()
    assert again is not None
    assert names_of(again)[0] == names_of(lost)[1]
    assert not set(names_of(again)) & set(names_of(kept))
