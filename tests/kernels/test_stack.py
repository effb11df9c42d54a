"""Products with blocks of one bit a number, against their sum in float64."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels import stack as stack_module  # noqa: E402
from hydragen_kernels.reference_stack import stack_weight  # noqa: E402
from hydragen_kernels.stack import stack_product  # noqa: E402

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def stack(blocks: int, outputs: int, inputs: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks of which each is a third of the one before; the bits behind the inputs are set."""
    generator = torch.Generator().manual_seed(blocks)
    shape = blocks, outputs, -(-inputs // 8)
    signs = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    if inputs % 8:
        signs[:, :, -1] |= 0xFF << inputs % 8 & 0xFF
    left = numbers(blocks, outputs, rank, dtype=torch.float16, seed=1)
    left *= 3.0 ** -torch.arange(blocks, device=DEVICE, dtype=torch.float16)[:, None, None]
    return signs.to(DEVICE), left, numbers(blocks, inputs, rank, dtype=torch.float16, seed=2)


SHAPES = [  # rows, blocks, outputs, inputs, rank
    (1, 1, 1, 1, 1),
    (3, 2, 17, 13, 3),
    (16, 3, 70, 264, 16),
    (17, 4, 65, 520, 5),
    (33, 5, 70, 140, 18),
    (70, 9, 20, 24, 1),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_the_sum(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype
) -> None:
    rows, blocks, outputs, inputs, rank = shape
    packed = stack(blocks, outputs, inputs, rank)
    x = numbers(rows, 2 * inputs, dtype=dtype, seed=3)[:, :inputs]  # strided
    bias = numbers(outputs, dtype=dtype, seed=4) if blocks % 2 else None
    expected = x.double() @ stack_weight(*packed, torch.float64).T
    expected += 0 if bias is None else bias.double()
    found = stack_product(x, *packed, bias)
    assert found.dtype == dtype
    error = (found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_are_the_sum(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    packed = stack(*shape[1:])
    found, expected = (
        stack_module.stack_weight(*packed, dtype),
        stack_weight(*packed, torch.float64),
    )
    assert found.dtype == dtype
    error = (found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 2 * torch.finfo(dtype).eps


def test_a_program_takes_all_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several steps and rounds of blocks in one sum, as where there are many outputs."""
    monkeypatch.setattr(stack_module, "_PROGRAMS", 1)
    packed = stack(5, 33, 1030, 2)
    x = numbers(2, 1030, dtype=torch.float16, seed=3)
    expected = x.double() @ stack_weight(*packed, torch.float64).T
    error = (stack_product(x, *packed).double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 4 * torch.finfo(torch.float16).eps


def test_no_rows() -> None:
    assert stack_product(numbers(0, 9, dtype=torch.float16), *stack(1, 5, 9, 1)).shape == (0, 5)


def test_what_does_not_fit_is_refused() -> None:
    signs, left, right = stack(2, 5, 9, 1)
    x = numbers(3, 9, dtype=torch.float16)
    with pytest.raises(ValueError, match="x: expected fp16, bf16 or fp32"):
        stack_product(x.long(), signs, left, right)
    with pytest.raises(ValueError, match=r"signs: expected contiguous uint8 \[2, 5, 2\]"):
        stack_product(x, signs[:, :, :1], left, right)
    with pytest.raises(ValueError, match=r"left: expected contiguous float16"):
        stack_product(x, signs, left.float(), right)
    with pytest.raises(ValueError, match=r"right: expected contiguous float16 \[2, 9, 1\]"):
        stack_product(x, signs, left, right[:, :8])
    with pytest.raises(ValueError, match=r"bias: expected contiguous float16 \[5\]"):
        stack_product(x, signs, left, right, x[0])
