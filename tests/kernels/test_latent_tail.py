"""The tail kernel for latent vectors, and the merge behind it, against float64."""

import os
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from hydragen_kernels import reference
from hydragen_kernels.latent_tail import latent_tails
from hydragen_kernels.merge import merge

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cpu" and not INTERPRETED, reason="needs a GPU"),
]
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float32, torch.bfloat16]
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class Case(NamedTuple):
    """Tails, and what their vectors and heads are like."""

    lengths: list[int]
    heads: int = 16
    rank: int = 64
    rotated: int = 16
    page_tokens: int = 16
    softcap: float | None = None
    splits: int = 1
    is_strided: bool = False


CASES = {
    "no tails": Case([0, 0]),
    "one token": Case([1]),
    "ragged": Case([0, 1, 16, 17, 64, 0, 65, 130]),
    "one head": Case([5, 70], heads=1),
    "twenty heads": Case([5, 70], heads=20),
    "forty heads": Case([5, 70], heads=40),
    "odd sizes": Case([20, 70], rank=80, rotated=24),
    "as DeepSeek's": Case([3, 66], rank=512, rotated=64, page_tokens=64),
    "pages of 64": Case([0, 63, 64, 65, 130], page_tokens=64),
    "soft cap": Case([20, 0, 70], softcap=2.0),
    "split": Case([600, 0, 1, 257], splits=4),
    "strided": Case([20, 70], is_strided=True),
}


def close(out: Tensor, lse: Tensor, truth: reference.Partial, dtype: torch.dtype) -> None:
    """Rows of heads by relative norm, the worst one; rows without keys exactly."""
    assert out.isfinite().all()
    empty = truth.lse == -torch.inf
    assert torch.equal(lse == -torch.inf, empty)
    assert not out[empty].any()
    error = (out.double() - truth.out).norm(dim=-1) / truth.out.norm(dim=-1).clamp(min=1e-30)
    assert error[~empty].amax() < TOLERANCES[dtype] if (~empty).any() else True
    apart = (lse.double() - truth.lse)[~empty].abs()
    assert not apart.numel() or apart.max() < 4 * TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_tails(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    generator = torch.Generator().manual_seed(len(name))
    width, size = case.rank + case.rotated, case.page_tokens
    counts = [-(-length // size) for length in case.lengths]
    pages = torch.full((len(counts), max(counts) + 1), -1, dtype=torch.int32)
    order = torch.randperm(sum(counts) + 2, generator=generator).int()
    for row, (own, count) in enumerate(zip(order[2:].split(counts), counts, strict=True)):
        pages[row, :count] = own
    vectors = torch.full((len(order) * size, width + 8), torch.nan, dtype=dtype)[:, :width]
    if not case.is_strided:
        vectors = vectors.contiguous()
    owned = []
    for row, length in enumerate(case.lengths):
        at = torch.arange(length)
        owned.append(pages[row, at // size].long() * size + at % size)
        vectors[owned[-1]] = torch.randn(length, width, generator=generator).to(dtype)
    rows = len(case.lengths)
    queries = torch.randn(case.heads, rows, width, generator=generator).to(dtype).transpose(0, 1)
    rules = {"scale": width**-0.5, "softcap": case.softcap}
    out, lse = latent_tails(
        queries.to(DEVICE),
        vectors.to(DEVICE),
        case.rank,
        pages.to(DEVICE),
        torch.tensor(case.lengths, dtype=torch.int32, device=DEVICE),
        size,
        splits=case.splits,
        **rules,
    )
    assert out.dtype == dtype
    for row, own in enumerate(owned):
        keys = vectors[own].double()[None]
        asked = queries[row : row + 1].double()
        truth = reference.partial(asked, keys, keys[..., : case.rank], **rules)
        close(out[row : row + 1].cpu(), lse[row : row + 1].cpu(), truth, dtype)


def test_one_more_partial_of_every_row_is_merged_and_may_be_narrower() -> None:
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(3, 5, 4, 24, generator=generator)
    lse = torch.randn(3, 5, 4, generator=generator) * 4
    own = (
        torch.randn(4, 5, 16, generator=generator).transpose(0, 1),
        4 * torch.randn(5, 4, generator=generator),
    )
    own[1][1] = -torch.inf
    counts = torch.tensor([0, 0, 1, 2, 3], dtype=torch.int32)
    for row, count in enumerate(counts.tolist()):
        out[count:, row], lse[count:, row] = torch.nan, torch.nan
    own[0][1] = 0.0
    moved = own[0].to(DEVICE), own[1].to(DEVICE)
    found = merge(out.to(DEVICE), lse.to(DEVICE), counts.to(DEVICE), own=moved)
    assert found[0].shape == (5, 4, 16)
    for row, count in enumerate(counts.tolist()):
        truth = reference.Partial(*(x[row : row + 1].double() for x in own))
        for slot in range(count):
            part = out[slot, row : row + 1, :, :16].double(), lse[slot, row : row + 1].double()
            truth = reference.merge(truth, reference.Partial(*part))
        close(*(x[row : row + 1].cpu() for x in found), truth, torch.float32)


def test_what_does_not_fit_is_refused() -> None:
    queries, vectors = torch.zeros(2, 4, 24, device=DEVICE), torch.zeros(32, 24, device=DEVICE)
    pages = torch.zeros(2, 1, dtype=torch.int32, device=DEVICE)
    lengths = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    for rank, size, asked, why in (
        (24, 16, vectors, "a rank below 24"),
        (16, 12, vectors, "a power of two"),
        (16, 16, vectors[:, :20], "vectors"),
        (16, 16, vectors.half(), "float16"),
    ):
        with pytest.raises(ValueError, match=why):
            latent_tails(queries, asked, rank, pages, lengths, size, scale=1.0)
