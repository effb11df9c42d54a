"""Tokens drawn in C against sorting, and the same bits whatever stands beside a row."""

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hydragen_kernels import native_choose, reference_choice
from hydragen_kernels.random import uniforms
from tests.kernels.test_choose import SETTINGS, rows_of_logits

pytestmark = pytest.mark.skipif(native_choose.why_unavailable() is not None, reason="no C compiler")
SAMPLES = 200
KEYS = np.arange(SAMPLES, dtype=np.uint64) * 104729
POSITIONS = np.arange(SAMPLES, dtype=np.int64) % 7
ROWS = np.repeat(np.array([0, 1, 2, 4], np.int32), SAMPLES // 4)  # none of row 3


def chosen(logits: Tensor, **settings: Any) -> native_choose.Drawn[Any]:
    return native_choose.choose(logits, ROWS, uniforms(KEYS, POSITIONS), **settings)


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [1, 33, 1000, 5003])
@pytest.mark.parametrize("name", SETTINGS)
def test_choice(name: str, vocabulary: int, dtype: torch.dtype) -> None:
    settings, logits = SETTINGS[name], rows_of_logits(dtype, vocabulary)
    logits[[3, 4]] = logits[[4, 3]]
    found = chosen(logits, **settings)
    places = (torch.from_numpy(x) for x in (ROWS, KEYS.view(np.int64), POSITIONS))
    expected = reference_choice.choose(logits, *places, **settings)
    same = found.tokens == expected.tokens.numpy()
    # a number within rounding of the boundary between two tokens may fall on either side
    assert same.mean() > 0.99 if settings["temperature"] else same.all()
    for ours, theirs in (
        (found.logprobs, expected.logprobs),
        (found.sampled_logprobs, expected.sampled_logprobs),
    ):
        np.testing.assert_allclose(ours[same], theirs.numpy()[same], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_is_drawn_from_alike_beside_any_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, logits = SETTINGS[name], rows_of_logits(torch.float32, 2500)
    whole, before = chosen(logits, **settings), torch.get_num_threads()
    for flags in ((), ("-mno-avx512f",)):
        built = native_choose.build(flags)
        if not isinstance(built, ctypes.CDLL):
            pytest.skip("not with this processor")
        monkeypatch.setattr(native_choose, "_library", lambda built=built: built)
        for threads in (1, 3, 16):
            torch.set_num_threads(threads)
            found = chosen(logits.clone(), **settings)
            torch.set_num_threads(before)
            assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    own = np.flatnonzero(ROWS == 2)
    alone = native_choose.choose(
        logits[2:3], ROWS[own] * 0, uniforms(KEYS[own], POSITIONS[own]), **settings
    )
    assert all(np.array_equal(a, b[own]) for a, b in zip(alone, whole, strict=True))


def test_rows_without_a_distribution_say_so() -> None:
    logits = torch.zeros(5, 40)
    logits[0, 3], logits[1, 5], logits[2] = torch.nan, torch.inf, -torch.inf
    for temperature in (0.0, 0.7):
        found = chosen(logits, temperature=temperature, top_p=0.9)
        assert np.isnan(found.logprobs[ROWS < 3]).all()
        assert np.isfinite(found.logprobs[ROWS == 4]).all()
