"""Keys and values of 8 bits: every code, every rounding; interpreted, or compiled on a GPU.

What attention makes of them is in the tables of `test_kernel_attention.py`. On the CPU
`test_interpreter.py` runs this file, as it does those tables.
"""

import os

import pytest
import torch

from hydragen_kernels.inputs import FP8
from hydragen_kernels.reference import narrow

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from hydragen_kernels.append import append  # noqa: E402
from hydragen_kernels.fp8 import e4m3_bits, readable, widen  # noqa: E402
from hydragen_kernels.quantise import quantise_groups  # noqa: E402
from hydragen_tree.model.fp8_linear import quantise  # noqa: E402


@triton.jit
def _widen_kernel(codes, out, n: tl.constexpr):
    index = tl.arange(0, n)
    tl.store(out + index, widen(tl.load(codes + index), out.dtype.element_ty))


@triton.jit
def _bits_kernel(x, out, n: tl.constexpr):
    index = tl.program_id(0) * n + tl.arange(0, n)
    tl.store(out + index, e4m3_bits(tl.load(x + index)))


@pytest.mark.parametrize("as_bits", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_code_is_read_exactly(dtype: torch.dtype, as_bits: bool) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("the interpreter holds bf16 as uint16")
    codes = torch.arange(256, dtype=torch.uint8, device=DEVICE)
    out = torch.empty(256, dtype=dtype, device=DEVICE)
    _widen_kernel[(1,)](codes if as_bits else readable(codes.view(FP8)), out, 256)
    numbers = codes.view(FP8).float()
    real = ~numbers.isnan()  # two codes stand for NaN, which nobody stores
    assert real.sum() == 254
    assert torch.equal(out.float()[real], numbers[real])


def awkward_numbers() -> torch.Tensor:
    """All numbers of the format, what lies just beside and halfway between them, and beyond."""
    codes = torch.arange(256, dtype=torch.uint8).view(FP8).float()
    numbers = codes[codes.isfinite()].sort().values
    halfway = (numbers[1:] + numbers[:-1]) / 2
    exact = torch.cat([numbers, halfway, torch.tensor([448.0, 460.0, 464.0, 480.0, 512.0])])
    beside = [torch.nextafter(exact, torch.tensor(side)) for side in (torch.inf, -torch.inf)]
    far = torch.tensor([1e-30, 1e5, 3e38, torch.inf, torch.nan])
    random = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 30
    return torch.cat([exact, *beside, far, -far, random])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    x = awkward_numbers().to(DEVICE, dtype)
    x = torch.nn.functional.pad(x, (0, -len(x) % 256))
    out = torch.empty(len(x), dtype=torch.uint8, device=DEVICE)
    _bits_kernel[(len(x) // 256,)](x, out, 256)
    expected = narrow(x, FP8)
    found = out.view(FP8).float()
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0, equal_nan=True)
    real = ~x.isnan()  # of NaN the sign is nobody's business
    assert torch.equal(out[real], expected.view(torch.uint8)[real])
    assert found[real].abs().max() == 448.0


def test_append_rounds_and_saturates() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.zeros(2, 3, 40, 64, device=DEVICE).to(FP8)
    k, v = (torch.randn(2, 4, 3, 64, generator=generator) * 200).to(DEVICE, torch.float16)
    slots = torch.tensor([3, -1, 0, 17], dtype=torch.int32, device=DEVICE)
    append(keys, values, k, v, slots)
    at, written = slots[[0, 2, 3]].long(), [0, 2, 3]
    for arena, new in ((keys, k), (values, v)):
        stored = arena.float()[:, at].transpose(0, 1)
        assert torch.equal(stored, narrow(new[written], FP8).float())
        assert stored.abs().max() == 448.0
        assert arena.float().count_nonzero() <= stored.numel()


def test_append_rounds_what_it_has_rotated() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, values = torch.zeros(2, 2, 8, 64, device=DEVICE).to(FP8)
    k, v = torch.randn(2, 5, 2, 64, generator=generator).to(DEVICE, torch.float16)
    angle = torch.randn(5, 32, generator=generator).repeat(1, 2).to(DEVICE)
    slots = torch.arange(5, dtype=torch.int32, device=DEVICE)
    append(keys, values, k, v, slots, rotary=(angle.cos(), angle.sin()))
    half = torch.cat([-k[..., 32:], k[..., :32]], -1).double()
    turned = k.double() * angle.cos()[:, None] + half * angle.sin()[:, None]
    stored = keys[:, :5].transpose(0, 1).double()
    assert (stored - turned).norm() < 0.05 * turned.norm()
    largest = (stored - turned).abs() / turned.abs().clamp(min=2**-6)
    assert largest.max() < 2**-4 + 1e-5  # half of the last of three bits


def test_an_arena_of_two_types_is_refused() -> None:
    keys, values = torch.zeros(2, 1, 4, 64, device=DEVICE)
    k = torch.zeros(1, 1, 64, device=DEVICE)
    slots = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="arena of one dtype"):
        append(keys.to(FP8), values, k, k, slots)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "width", "group"), [(1, 64, 64), (5, 384, 128), (3, 1808, 1808), (2, 9000, 9000)]
)
def test_groups_are_quantised_as_torch_does_it(
    rows: int, width: int, group: int, dtype: torch.dtype
) -> None:
    """To the bit, a group of zeros included."""
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("the interpreter holds bf16 as uint16")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator) * torch.logspace(-2, 2, rows)[:, None]
    x[-1, :group] = 0.0
    x = x.to(DEVICE, dtype)
    numbers, scale = quantise_groups(x, group)
    expected = quantise(x, group)
    assert torch.equal(scale, expected.scale)
    assert torch.equal(numbers.view(torch.uint8), expected.numbers.view(torch.uint8))


def test_no_rows_are_quantised() -> None:
    numbers, scale = quantise_groups(torch.empty(0, 64, device=DEVICE), 64)
    assert numbers.shape == (0, 64)
    assert scale.shape == (0, 1)
