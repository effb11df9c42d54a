"""Sets of prompts: made up, with a root, or real."""

import numpy as np
import pytest

from hydragen_bench.sets import POINTS, Point, from_real, made_up
from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt


def test_made_up_prompts_have_the_lengths_of_real_ones() -> None:
    prompts = made_up(POINTS["humaneval"], 1000)
    lengths = np.array([len(prompt.token_ids) for prompt in prompts])
    assert len(prompts) == 164
    assert np.percentile(lengths, [10, 50, 90]) == pytest.approx([75, 122, 231], rel=0.03)
    assert 42 <= lengths.min() < 60
    assert 275 < lengths.max() <= 395
    again = made_up(POINTS["humaneval"], 1000)
    assert all(
        np.array_equal(a.token_ids, b.token_ids) for a, b in zip(prompts, again, strict=True)
    )
    assert min(prompt.token_ids.min() for prompt in prompts) >= 1  # the end token is in none


def test_a_root_is_what_all_prompts_begin_with() -> None:
    prompts = made_up(POINTS["fewshot12"], 1000)
    tokens = np.stack([prompt.token_ids for prompt in prompts])
    assert tokens.shape == (12, 2750)
    assert (tokens[:, :2400] == tokens[0, :2400]).all()
    assert len({row[2400:].tobytes() for row in tokens}) == 12


def test_real_prompts_come_from_the_front_and_their_root_from_the_back() -> None:
    real = [Prompt(f"p{i}", 0, np.full(5, i, np.int32), (), f"text {i}") for i in range(4)]
    assert [prompt.text for prompt in from_real(Point(2, 1), real)] == ["text 0", "text 1"]
    rooted = from_real(Point(2, 1, 7, 3), real)
    assert [prompt.token_ids.tolist() for prompt in rooted] == [
        [3, 3, 3, 3, 3, 2, 2, i, i, i, i, i] for i in (0, 1)
    ]
    assert rooted[0].text is None
    with pytest.raises(InputError, match="4 prompts, expected at least 5"):
        from_real(Point(5, 1), real)
