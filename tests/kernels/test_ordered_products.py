"""Products of one order of summation: against float64, and, on a GPU, bit for bit across shapes."""

import pytest
import torch

from tests.kernels.test_ordered_triton import DTYPES, INTERPRETED, TOLERANCES, numbers, worst_row

# isort: split

from hydragen_kernels import ordered_matmul as matmul_module
from hydragen_kernels.ordered_matmul import Tiles, ordered_matmul, product

pytestmark = [] if INTERPRETED else [pytest.mark.gpu]


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so short that small inputs have several."""
    monkeypatch.setattr(matmul_module, "CHUNK", 64)


TILINGS = [
    Tiles(16, 32, 32, 4, 2, swapped=True),
    Tiles(16, 32, 32, 4, 2, swapped=True, split=True),
    Tiles(32, 16, 64, 4, 2),
    Tiles(64, 64, 32, 4, 2, split=True),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tiles", TILINGS, ids=str)
@pytest.mark.parametrize(
    ("rows", "columns", "k"), [(1, 8, 16), (3, 40, 64), (70, 33, 136), (0, 8, 16), (5, 1, 200)]
)
def test_products(
    dtype: torch.dtype, tiles: Tiles, rows: int, columns: int, k: int, short_chunks: None
) -> None:
    x, weight = numbers(rows, k, dtype=dtype), numbers(columns, k, dtype=dtype, seed=1)
    for bias in (None, numbers(columns, dtype=dtype, seed=2)):
        found = product(x, weight, bias, tiles)
        expected = x.double() @ weight.double().T + (0.0 if bias is None else bias.double())
        assert found.shape == expected.shape
        if rows:
            assert worst_row(found, expected) < TOLERANCES[dtype]


def test_a_product_of_a_view() -> None:
    x = numbers(2, 3, 24, dtype=torch.float32)[..., 4:20]
    weight = numbers(9, 16, dtype=torch.float32, seed=1)
    found = ordered_matmul(x, weight)
    assert found.shape == (2, 3, 9)
    assert worst_row(found, x.double() @ weight.double().T) < 1e-6


@pytest.mark.parametrize(
    ("x", "weight", "said"),
    [
        ((2, 16), (4, 8), "expected x"),
        ((2, 6), (4, 6), "aligned to 16 bytes"),
    ],
)
def test_products_that_do_not_fit(x: tuple[int, int], weight: tuple[int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ordered_matmul(numbers(*x, dtype=torch.float32), numbers(*weight, dtype=torch.float32))


@pytest.mark.skipif(INTERPRETED, reason="numpy's products depend on the number of rows")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [576, 4096, 5000])
def test_a_product_has_the_same_bits_in_any_company(dtype: torch.dtype, k: int) -> None:
    x, weight = numbers(300, k, dtype=dtype), numbers(520, k, dtype=dtype, seed=1)
    expected = ordered_matmul(x, weight)
    for rows in (1, 2, 16, 17, 64, 65, 129):
        assert torch.equal(ordered_matmul(x[:rows], weight), expected[:rows])
    if dtype != torch.float32:
        for tiles in (*TILINGS, Tiles(128, 128, 64, 8, 3)):
            assert torch.equal(product(x, weight, None, tiles), expected)
