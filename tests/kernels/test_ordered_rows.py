"""Soft-max and sums of rows in one order: against float64, and bit for bit whatever the company."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.ordered_rows import WIDEST, softmax, sums  # noqa: E402

# the interpreter reads bf16 as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 64), (4, 130), (2, 1000), (0, 8)])
def test_rows(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(len(shape))
    x = (3 * torch.randn(shape)).to(DEVICE, dtype)
    wide = x.double()
    for found, expected in (
        (softmax(x), wide.softmax(-1)),
        (sums(x), wide.sum(-1, keepdim=True)),
        (softmax(x.mT.contiguous().mT), wide.softmax(-1)),
    ):
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        difference = (found.double() - expected).norm(dim=-1)
        size = expected.norm(dim=-1) if found.shape[-1] > 1 else wide.abs().sum(-1)
        assert (difference <= 1e-6 * size.clamp(min=1.0)).all()


def test_a_row_has_the_same_bits_in_any_company() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 97).to(DEVICE)
    for form in (softmax, sums):
        expected = form(x)
        for rows in (1, 2, 33):
            assert torch.equal(form(x[:rows]), expected[:rows])
            assert torch.equal(form(x[rows:]), expected[rows:])


def test_rows_that_are_too_wide() -> None:
    with pytest.raises(ValueError, match="rows of 1 to"):
        sums(torch.zeros(1, WIDEST + 1, device=DEVICE))
