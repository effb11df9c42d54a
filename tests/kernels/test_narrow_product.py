"""Products of 8 and 16 bits in C against float64, of the same rounded numbers."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hydragen_kernels import narrow_product

GROUP = 128
KINDS = [torch.int8, torch.bfloat16]


class Case(NamedTuple):
    rows: int
    inputs: int
    outputs: int
    bias: bool = False


CASES = {
    "one number": Case(1, 1, 1),
    "less than a word": Case(3, 3, 5, bias=True),
    "odd sizes": Case(13, 131, 70, bias=True),
    "groups that are cut": Case(5, 300, 33),
    "whole panels": Case(12, 256, 64),
    "every block of rows": Case(23, 128, 32),
    "more rows than a band": Case(403, 64, 96, bias=True),
}


def skip_without(kind: torch.dtype) -> None:
    if why := narrow_product.why_unavailable(kind):
        pytest.skip(why)


def whole(shape: tuple[int, int], seed: int) -> Tensor:
    """Whole numbers of 8 bits, the least and the largest among them."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
    numbers[0, 0], numbers[-1, -1] = -127, 127
    return numbers


def rounded(x: Tensor) -> Tensor:
    """Rows as they are multiplied in 8 bits, in float64."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % GROUP)).double().unflatten(1, (-1, GROUP))
    step = groups.abs().amax(2, keepdim=True) / 127
    return ((groups / step).nan_to_num().round() * step).flatten(1)[:, : x.shape[1]]


def worst_row(found: Tensor, expected: Tensor) -> float:
    """The greatest relative error of a row, by the Euclidean norm."""
    return float(((found.double() - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_products_are_those_of_the_rounded_numbers(
    kind: torch.dtype, name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without(kind)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rows, inputs, outputs, has_bias = CASES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator)
    x *= torch.logspace(-3, 3, rows)[:, None]
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    if kind == torch.int8:
        numbers = whole((outputs, inputs), 1)
        scale = torch.zeros(narrow_product.padded_outputs(outputs))
        scale[:outputs] = torch.logspace(-2, 2, outputs)
        weight = numbers.double() * scale[:outputs, None].double()
        seen = rounded(x)
    else:
        numbers, scale = torch.randn(outputs, inputs, generator=generator).to(kind), None
        weight, seen = numbers.double(), x.to(kind).double()
    expected = seen @ weight.T + (0 if bias is None else bias.double())
    packed = narrow_product.pack(numbers)
    found = narrow_product.product(x, packed, outputs, kind, scale=scale, bias=bias)
    assert worst_row(found, expected) < 3e-6
    again = narrow_product.unpack(packed, outputs, inputs, kind)
    assert torch.equal(again, numbers)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_rows_and_rows_of_zeros(kind: torch.dtype) -> None:
    skip_without(kind)
    packed = narrow_product.pack(torch.ones(40, 200).to(kind))
    scale = torch.ones(narrow_product.padded_outputs(40))
    for rows in (0, 2):
        x = torch.zeros(rows, 200)
        found = narrow_product.product(x, packed, 40, kind, scale=scale)
        assert torch.equal(found, torch.zeros(rows, 40))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_row_that_is_not_finite_is_not_hidden(kind: torch.dtype) -> None:
    skip_without(kind)
    packed = narrow_product.pack(torch.ones(40, 200).to(kind))
    scale = torch.ones(narrow_product.padded_outputs(40))
    x = torch.ones(3, 200)
    x[0, 3], x[2, 7] = torch.nan, torch.inf
    found = narrow_product.product(x, packed, 40, kind, scale=scale)
    assert not found[0].isfinite().any()
    assert (found[1] - 200).abs().max() < 1e-3
    assert not found[2].isfinite().any()
