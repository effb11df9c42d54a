"""Which drafts are worth their rows."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.draft_hash import SOURCES
from hydragen_tree.branch.draft_table import contexts_of
from hydragen_tree.branch.drafting import MOST_DRAFTS, Drafting, free_rows


def drafting(free: float, text: list[int] | None = None) -> Drafting:
    tokens = np.array(text or [1], np.int32)
    made = Drafting(np.array([0, 1]), lambda leaf: tokens, free)
    made.problems_of(np.array([0]))
    return made


@given(
    free=st.floats(0.1, 50.0),
    chances=st.lists(
        st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=2, max_size=2),
        min_size=1,
        max_size=3,
    ),
)
def test_no_other_choice_draws_more_tokens_a_second(
    free: float, chances: list[list[float]]
) -> None:
    together = np.array(chances).cumprod(1)
    rows = len(chances)

    def rate(counts: tuple[int, ...]) -> float:
        gained = sum(together[row, :count].sum() for row, count in enumerate(counts))
        return (rows + gained) / (free + rows + sum(counts))

    found = drafting(free)._worthwhile(together, np.ones(rows, np.int64))
    best = max(rate(counts) for counts in product(range(3), repeat=rows))
    assert rate(tuple(found.tolist())) == pytest.approx(best)


def test_few_rows_take_drafts_and_many_take_none() -> None:
    text = [*range(1, 20), 1, 2, 3]
    contexts = contexts_of(np.array([[1, 2, 3]], np.int32), np.array([3], np.int32))

    def counts(free: float, rows: int, limit: int = 100) -> list[int]:
        own = drafting(free, text)
        ones = np.ones(rows, np.int64)
        proposed = own.propose(0 * ones, np.repeat(contexts, rows), ones, limit * ones)
        return [] if proposed is None else proposed.counts.tolist()

    assert counts(200.0, 4) == [MOST_DRAFTS] * 4
    assert counts(200.0, 4, limit=2) == [2] * 4
    assert counts(8.0, 1024) == []
    assert counts(200.0, 4, limit=0) == []


def test_what_a_row_costs_goes_by_the_model_and_nothing_else() -> None:
    tiny, small, large = (6, 4_000_000), (30, 135_000_000), (32, 8_000_000_000)
    rows = [free_rows("cpu", *sizes, ordered=False) for sizes in (tiny, small, large)]
    assert rows == sorted(rows, reverse=True)
    assert 25 < rows[0] < 35
    assert 15 < rows[2] < 20
    assert free_rows("cpu", *tiny, ordered=True) < rows[0]
    assert free_rows("cuda", *large, ordered=False) > 100


def test_a_source_that_does_not_hold_is_left_alone() -> None:
    own = drafting(4.0, [*range(1, 20), 1, 2, 3])
    contexts = contexts_of(np.array([[1, 2, 3]], np.int32), np.array([3], np.int32))
    one, wrong = np.ones(1, np.int64), np.zeros(40, np.bool_)
    problems = np.zeros(1, np.int64)
    assert own.propose(problems, contexts, one, 8 * one) is not None
    own.learn(np.zeros(40, np.int64), np.zeros(40, np.int64), wrong)
    assert own.propose(problems, contexts, one, 8 * one) is None
    assert own.chances(np.arange(2))[1, 0] < 0.5, "the other problem learns from the first one"
    own.learn(np.ones(400, np.int64), np.zeros(400, np.int64), ~wrong.repeat(10))
    assert own.chances(np.arange(2))[1, 0] > 0.8
    assert own.chances(np.arange(2)).shape == (2, len(SOURCES))


def test_samples_that_may_part_take_fewer() -> None:
    own = drafting(200.0, [*range(1, 20), 1, 2, 3])
    contexts = contexts_of(np.array([[1, 2, 3]] * 2, np.int32), np.array([3, 3], np.int32))
    samples, limits = np.array([1, 40]), np.array([8, 8])
    proposed = own.propose(np.zeros(2, np.int64), contexts, samples, limits)
    assert proposed is not None
    assert proposed.counts[0] > proposed.counts[1]
