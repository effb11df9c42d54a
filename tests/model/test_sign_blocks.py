"""Blocks of one bit a number: packed and unpacked, ever closer, and multiplied as they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hydragen_tree.model.sign_blocks import (
    SignBlock,
    decompose,
    pack_signs,
    unpack_signs,
    usual_rank,
)
from hydragen_tree.model.stack_linear import StackLinear


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
def test_signs_come_back(rows: int, columns: int, seed: int) -> None:
    is_plus = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_signs(is_plus)
    assert packed.shape == (rows, -(-columns // 8))
    assert torch.equal(unpack_signs(packed, columns), is_plus)


@pytest.mark.parametrize(("rows", "columns", "rank"), [(7, 13, 1), (64, 40, 2), (33, 128, 3)])
def test_blocks_come_ever_closer(rows: int, columns: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(rows, columns, generator=generator)
    by_row = torch.rand(rows, generator=generator) + 0.1
    by_column = 100 * torch.rand(columns, generator=generator) + 0.1
    total, before = torch.zeros_like(weight), float("inf")
    for block, left in decompose(weight, by_row, by_column, rank, 6):
        again = SignBlock.from_bytes(block.to_bytes(), rows, columns)
        assert all(torch.equal(ours, stored) for ours, stored in zip(block, again, strict=True))
        assert block.to_bytes().numel() == block.n_bytes
        total += again.matrix()
        missed = ((weight - total) * by_row[:, None] * by_column).square().sum()
        assert left == pytest.approx(float(missed), rel=1e-4)
        assert left < before
        before = left
    scaled = (weight * by_row[:, None] * by_column).square().sum()
    assert before < 0.08**2 * scaled


def test_what_counts_more_is_closer() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    important = torch.ones(64)
    important[:8] = 30
    (block, _), *_ = decompose(weight, torch.ones(64), important, 4, 1)
    (plain, _), *_ = decompose(weight, torch.ones(64), torch.ones(64), 4, 1)
    missed, usual = ((weight - one.matrix())[:, :8].norm() for one in (block, plain))
    assert missed < 0.97 * usual


def test_zeros_and_tiny_numbers() -> None:
    for weight in (torch.zeros(8, 8), torch.full((8, 8), 1e-9)):
        for block, left in decompose(weight, torch.ones(8), torch.ones(8), 1, 3):
            assert bool(block.matrix().isfinite().all())
            assert left <= 64 * 1e-18


def test_rank_goes_with_the_size() -> None:
    sizes = [(4096, 4096), (576, 1536), (256, 640), (16, 16)]
    assert [usual_rank(*size) for size in sizes] == [16, 3, 1, 1]


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no block of 8 x 9"):
        SignBlock.from_bytes(torch.zeros(33, dtype=torch.uint8), 8, 9)


@pytest.mark.parametrize("columns", [5, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_multiplies_the_sum_of_its_blocks(columns: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(17, columns, generator=generator)
    scales = torch.ones(17), torch.ones(columns)
    blocks = [block for block, _ in decompose(weight, *scales, 2, 3)]
    bias = torch.randn(17, generator=generator).to(dtype)
    layer = StackLinear(blocks, bias)
    whole = sum((block.matrix() for block in blocks), torch.zeros(17, columns))
    assert torch.equal(layer.weight(torch.float32), whole)
    x = torch.randn(2, 3, columns, generator=generator).to(dtype)
    out = layer(x)
    assert out.dtype == dtype
    assert torch.equal(out, functional.linear(x, whole.to(dtype), bias))
