"""Copies of running states. It runs as `test_attention.py` does."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import copy_states as kernel  # noqa: E402
from hydragen_kernels.copy_states import copy_states  # noqa: E402


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.int32, device=DEVICE).view(shape)


@pytest.mark.parametrize("words", [1, 4096, 4097, 9000])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_are_copied_as_the_device_says(
    words: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By fewer programs than there are blocks, as it is with large states."""
    monkeypatch.setattr(kernel, "_PROGRAMS", 4)
    buffer = numbers(9, words)
    expected = buffer.clone()
    source = torch.tensor([7, 0, 7, 2], device=DEVICE)
    target = torch.tensor([1, 8, 4, 5], device=DEVICE)
    copy_states(buffer, source, target, torch.tensor([count], device=DEVICE))
    expected[target[:count]] = expected[source[:count]]
    assert torch.equal(buffer, expected)


@pytest.mark.parametrize("wrong", ["buffer", "source", "count"])
def test_what_does_not_fit_is_refused(wrong: str) -> None:
    given = {
        "buffer": numbers(4, 6),
        "source": numbers(2).long(),
        "target": numbers(2).long(),
        "count": numbers(1).long(),
    }
    given[wrong] = given[wrong].float()
    with pytest.raises(ValueError, match=f"{wrong}: expected"):
        copy_states(**given)
