"""What lies between the products of a layer, against the same in plain torch and in float64."""

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.layers import (  # noqa: E402
    Activation,
    NormForm,
    Rotation,
    add_norm,
    gated,
    gated_clamped,
    rms_norm,
    rotate,
    rotate_pairs,
)

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def worst_row(found: Tensor, expected: Tensor) -> float:
    """The greatest relative error of a row, by the Euclidean norm."""
    difference = (found.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1).clamp(min=1e-9)).max())


def normed(x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
    """As transformers' models do it, in the dtype that the input has."""
    wide = x if x.dtype == torch.float64 else x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if form == NormForm.ROUNDED:
        return weight * wide.to(x.dtype)
    factor = weight.to(wide.dtype) + (form == NormForm.AROUND_ONE)
    return (factor * wide).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", NormForm)
@pytest.mark.parametrize("shape", [(5, 96), (1, 7, 3, 16), (3, 1), (1, 2, 5000), (0, 8)], ids=str)
def test_norms(dtype: torch.dtype, form: NormForm, shape: tuple[int, ...]) -> None:
    x, weight = 3 * numbers(*shape, dtype=dtype), numbers(shape[-1], dtype=dtype, seed=1)
    found = rms_norm(x, weight, 1e-6, form)
    assert found.shape == x.shape
    if found.numel():
        expected = normed(x, weight, 1e-6, form)
        assert (found != expected).float().mean() < 0.02 or dtype == torch.float32
        exact = normed(x.double(), weight.double(), 1e-6, form)
        assert worst_row(found, exact) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", NormForm)
@pytest.mark.parametrize("shape", [(1, 5, 48), (3, 2100), (1, 0, 8)], ids=str)
def test_a_sum_and_its_norm(dtype: torch.dtype, form: NormForm, shape: tuple[int, ...]) -> None:
    x, more = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=1)
    weight = numbers(shape[-1], dtype=dtype, seed=2)
    total, normed = add_norm(x, more, weight, 1e-5, form)
    assert torch.equal(total, x + more)
    assert torch.equal(normed, rms_norm(total, weight, 1e-5, form))


def test_norms_of_a_view() -> None:
    """Heads that are a part of what one product gives."""
    whole = numbers(1, 6, 80, dtype=torch.float32)
    x, weight = whole[..., 16:64].view(1, 6, 3, 16), numbers(16, dtype=torch.float32)
    assert not x.is_contiguous()
    found = rms_norm(x, weight, 1e-5, NormForm.ROUNDED)
    assert worst_row(found, normed(x, weight, 1e-5, NormForm.ROUNDED)) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [16, 20, 128])
@pytest.mark.parametrize(("q_heads", "kv_heads", "tokens"), [(4, 2, 5), (33, 1, 2), (3, 3, 0)])
def test_rotation(dtype: torch.dtype, dim: int, q_heads: int, kv_heads: int, tokens: int) -> None:
    whole = numbers(1, tokens, q_heads + kv_heads, dim, dtype=dtype).transpose(1, 2)
    q, k = whole[:, :q_heads], whole[:, q_heads:]
    cos, sin = numbers(2, 1, tokens, dim, dtype=dtype, seed=1)
    for found, x in zip(rotate(q, k, cos, sin), (q, k), strict=True):
        assert found.shape == x.shape
        assert found.transpose(1, 2).is_contiguous()
        turned = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
        expected = x * cos + turned * sin
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "angles"), [(64, 16), (20, 12), (80, 64), (8, 2)])
def test_a_part_of_a_head_is_rotated(dtype: torch.dtype, dim: int, angles: int) -> None:
    q, k = (numbers(1, heads, 5, dim, dtype=dtype, seed=heads) for heads in (6, 2))
    cos, sin = numbers(2, 1, 5, angles, dtype=dtype, seed=1)
    parts = [x[..., :angles] for x in (q, k)]
    for found, x, part in zip(
        rotate(q, k, cos, sin, Rotation.LEADING),
        (q, k),
        rotate(*parts, cos, sin),
        strict=True,
    ):
        assert torch.equal(found[..., :angles], part)
        assert torch.equal(found[..., angles:], x[..., angles:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [16, 20, 128])
def test_both_halves_have_the_same_angles(dtype: torch.dtype, dim: int) -> None:
    q, k = (numbers(1, heads, 5, dim, dtype=dtype, seed=heads) for heads in (6, 2))
    cos, sin = numbers(2, 1, 5, dim // 2, dtype=dtype, seed=1)
    all_angles = (torch.cat([x, x], -1) for x in (cos, sin))
    found = rotate(q, k, cos, sin, Rotation.TWICE)
    for one, other in zip(found, rotate(q, k, *all_angles), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "q_heads", "kv_heads"), [(64, 16, 1), (20, 3, 2), (8, 300, 1)])
def test_pairs_are_rotated(dtype: torch.dtype, dim: int, q_heads: int, kv_heads: int) -> None:
    whole = numbers(1, 5, q_heads + kv_heads, dim, dtype=dtype).transpose(1, 2)
    given = whole.split([q_heads, kv_heads], 1)
    angles = numbers(1, 5, dim // 2, 2, dtype=torch.float32, seed=1)
    by = torch.view_as_complex(angles.double())[:, None]
    for found, x in zip(rotate_pairs(*given, torch.view_as_complex(angles)), given, strict=True):
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
        exact = torch.view_as_real(pairs * by).flatten(-2)
        assert found.dtype == dtype
        assert found.transpose(1, 2).is_contiguous()
        assert worst_row(found, exact) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("shape", [(3, 10), (1, 4, 5000), (2, 0), (0, 6)], ids=str)
def test_gates(dtype: torch.dtype, activation: Activation, shape: tuple[int, ...]) -> None:
    x = 20 * numbers(*shape, dtype=dtype)
    found = gated(x, activation)
    gate, up = x.chunk(2, -1)
    if activation == Activation.SILU:
        expected = functional.silu(gate) * up
    else:
        expected = functional.gelu(gate, approximate="tanh") * up
    torch.testing.assert_close(found, expected)
    if dtype != torch.float32 and found.numel():
        # far below zero torch's 1 + tanh has no digits left
        assert (found != expected)[gate > -4].float().mean() < 0.02


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 10), (1, 4, 5000), (2, 0), (0, 6)], ids=str)
def test_clamped_gates(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = 8 * numbers(*shape, dtype=dtype)
    found = gated_clamped(x, 1.702, 7.0)
    gate, up = x[..., ::2].clamp(max=7.0), x[..., 1::2].clamp(-7.0, 7.0)
    expected = (up + 1) * (gate * torch.sigmoid(gate * 1.702))
    torch.testing.assert_close(found, expected)
    if dtype != torch.float32 and found.numel():
        assert (found != expected).float().mean() < 0.02


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_a_row_is_the_same_in_any_company(rows: int) -> None:
    x, weight = numbers(40, 96, dtype=torch.float32), numbers(96, dtype=torch.float32)
    alone = rms_norm(x[:rows], weight, 1e-6, NormForm.ROUNDED)
    assert torch.equal(alone, rms_norm(x, weight, 1e-6, NormForm.ROUNDED)[:rows])
