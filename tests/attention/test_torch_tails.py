"""Tails of any length, private or shared, dense or scattered, against the plain reference."""

from typing import Any

import numpy as np
import pytest
import torch

from hydragen_kernels import reference
from hydragen_kernels.inputs import FP8
from hydragen_tree.attention.plan import Tails
from hydragen_tree.attention.torch_tails import PagedTails

PAGE, KV_HEADS, GROUP, HEAD_DIM, N_PAGES = 4, 2, 3, 20, 60


def tails_of(kind: str) -> Tails:
    rng = np.random.default_rng(7)
    lengths = np.array([1, 4, 5, 9, 12, 3, 2], np.int32)
    own = rng.permutation(N_PAGES if kind == "scattered" else 24)[:21].reshape(7, 3)
    if kind == "shared":
        own[:, 0] = own[2, 0]  # all forked after one full page ...
        own[3:5, 1] = own[3, 1]  # ... and two of them after another
        lengths = np.maximum(lengths, 5).astype(np.int32)
    if kind == "some empty":
        lengths[[0, 3, 6]] = 0
    if kind == "empty":
        lengths[:] = 0
    pages = np.full((7, 5), -1, np.int32)  # more columns than any tail fills
    pages[:, :3] = own
    return Tails(pages, lengths, PAGE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, FP8], ids=str)
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("kind", ["own", "shared", "scattered", "some empty", "empty"])
def test_equals_the_reference(kind: str, softcap: float | None, dtype: torch.dtype) -> None:
    tails = tails_of(kind)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator).to(dtype)

    queries = random(7, KV_HEADS * GROUP, HEAD_DIM)
    queries = queries.float() if dtype == FP8 else queries
    keys, values = random(2, KV_HEADS, N_PAGES * PAGE, HEAD_DIM)
    prepared = PagedTails(tails, torch.device("cpu"))
    found = prepared.attend(queries, keys, values, scale=0.3, softcap=softcap)
    assert found.out.dtype == found.lse.dtype == torch.float32
    for row, length in enumerate(tails.lengths.tolist()):
        slots = [int(tails.pages[row, at // PAGE]) * PAGE + at % PAGE for at in range(length)]
        expected = reference.partial(
            queries[row : row + 1].float(),
            keys.float()[:, slots],
            values.float()[:, slots],
            scale=0.3,
            softcap=softcap,
        )
        torch.testing.assert_close(found.out[row], expected.out[0].float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.lse[row], expected.lse[0].float(), rtol=1e-5, atol=1e-5)
