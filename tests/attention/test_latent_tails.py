"""Tails of latent vectors below segments of keys and values, against float64 dense attention."""

import os

import numpy as np
import pytest
import torch
from torch import Tensor

from hydragen_kernels import reference
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.latent_tails import LatentTails
from hydragen_tree.attention.plan import Plan, Tails
from hydragen_tree.attention.tree_attention import TreeAttention

KERNELS_RUN = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [pytest.mark.gpu] if DEVICE.type == "cuda" else []
RANK, ROTATED, NOPE, VALUE, PAGE = 40, 8, 24, 12, 4
HEAD_DIM = NOPE + ROTATED
# a tail that is empty, one in a page, whole pages, and several of them; the last two share a page
LENGTHS = [0, 1, 3, 8, 4, 70, 6, 7]


@pytest.mark.parametrize("is_capped", [False, True])
@pytest.mark.parametrize("heads", [3, 16, 20])
@pytest.mark.parametrize("backend", ["reference", "torch", "native", "triton"])
def test_equal_to_keys_and_values_of_every_head(backend: str, heads: int, is_capped: bool) -> None:
    if backend == "triton" and not KERNELS_RUN:
        pytest.skip("needs a GPU or the interpreter")
    if backend == "native" and (is_capped or DEVICE.type != "cpu"):
        pytest.skip("not what C computes")
    rng = np.random.default_rng(heads)
    rows, slots = len(LENGTHS), 256

    def random(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).float().to(DEVICE)

    segment_keys, segment_values = random(2, heads, 64, HEAD_DIM)
    segment_values[..., VALUE:] = 0.0
    vectors, queries = random(slots, RANK + ROTATED), random(rows, heads, HEAD_DIM) * 2
    down, up = random(heads, NOPE, RANK) / RANK**0.5, random(heads, RANK, VALUE) / RANK**0.5
    counts = [-(-length // PAGE) for length in LENGTHS]
    pages = np.full((rows, max(counts) + 1), -1, np.int32)
    free = rng.permutation(np.arange(16, slots // PAGE)).tolist()
    for row, count in enumerate(counts):
        pages[row, :count] = [free.pop() for _ in range(count)]
    pages[7, 0] = pages[6, 0]
    lengths = np.array(LENGTHS, np.int32)
    items = [Item(0, rows, 0, 30, 0, 0), Item(0, 4, 32, 9, 0, 1), Item(5, 3, 48, 16, 0, 1)]
    attend = TreeAttention(Plan(rows, item_table(items), Tails(pages, lengths, PAGE)), backend)
    softcap = 3.0 if is_capped else None
    asking = torch.cat(
        [torch.einsum("thn,hnr->thr", queries[..., :NOPE], down), queries[..., NOPE:]], -1
    )
    poisoned = vectors.clone()
    seen = [
        [int(pages[row, t // PAGE]) * PAGE + t % PAGE for t in range(length)]
        for row, length in enumerate(LENGTHS)
    ]
    unread = np.setdiff1d(np.arange(slots), np.concatenate(seen).astype(int))
    poisoned[unread] = torch.nan
    out = attend(
        0,
        queries,
        segment_keys,
        segment_values,
        scale=0.3,
        softcap=softcap,
        sinks=None,
        latent=LatentTails(asking, poisoned[None], up),
    )[..., :VALUE]

    double = {"scale": 0.3, "softcap": softcap}
    for row, own in enumerate(seen):
        met = [one for one in items if one.query_start <= row < one.query_stop]
        of_row = [slice(one.slot_start, one.slot_stop) for one in met]
        c, r = vectors[own].double().split((RANK, ROTATED), -1)
        keys = torch.einsum("tr,hnr->htn", c, down.double())
        keys = torch.cat([keys, r.expand(heads, -1, -1)], -1)
        values = torch.einsum("tr,hrv->htv", c, up.double())
        keys = torch.cat([*(segment_keys[:, one].double() for one in of_row), keys], 1)
        above = [segment_values[:, one, :VALUE].double() for one in of_row]
        values = torch.cat([*above, values], 1)
        truth = reference.partial(queries[row : row + 1].double(), keys, values, **double).out
        error = (out[row].double() - truth[0]).norm() / truth.norm()
        assert error < 2e-6, (row, float(error))
