"""A token a row through layers with running states. It runs as `test_attention.py` does."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.state_steps import (  # noqa: E402
    Placed,
    convolution_step,
    delta_step,
    mamba_step,
)

ROWS, PLACES = 3, 8
SOURCE, TARGET = [6, 1, 4], [6, 3, 0]  # the first row's state stays where it is
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (not INTERPRETED)


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def placed(*shape: int, dtype: torch.dtype = torch.float32) -> Placed:
    """States with a gap behind each place's."""
    size = torch.Size(shape).numel()
    states = numbers(PLACES, size + 16, dtype=dtype)[:, :size].view(PLACES, *shape)
    return Placed(states, *torch.tensor([SOURCE, TARGET], device=DEVICE))


def check(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """The worst row, relative by its norm."""
    error = (found.double() - expected).flatten(1).norm(dim=1)
    assert bool((error <= 4 * torch.finfo(dtype).eps * expected.flatten(1).norm(dim=1)).all())


def check_states(given: Placed, before: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Rows' states are at their targets, and no other place has changed."""
    check(given.states[TARGET], expected, dtype)
    others = [place for place in range(PLACES) if place not in TARGET]
    assert torch.equal(given.states[others], before[others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "taps"), [(5, 4), (300, 3), (256, 1)])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "silu"])
def test_convolution(channels: int, taps: int, plain: bool, dtype: torch.dtype) -> None:
    given = placed(channels, taps, dtype=dtype)
    before, x = given.states.clone(), numbers(ROWS, 2 * channels, dtype=dtype)[:, ::2]
    weight = numbers(channels, taps, dtype=dtype)
    bias = None if plain else numbers(channels, dtype=dtype)
    out = convolution_step(x, given, weight, bias, None if plain else "silu")
    window = torch.cat([before[SOURCE][..., 1:], x[..., None]], -1)
    y = (window.double() * weight.double()).sum(-1)
    if bias is not None:
        y = functional.silu(y + bias.double())
    check(out, y, dtype)
    assert torch.equal(given.states[TARGET], window)
    check_states(given, before, window.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "key_heads", "key", "value"), [(4, 2, 16, 40), (1, 1, 12, 5)])
def test_delta(
    heads: int, key_heads: int, key: int, value: int, normed: bool, dtype: torch.dtype
) -> None:
    given = placed(heads, key, value)
    before = given.states.clone()
    mixed = numbers(ROWS, key_heads, 2 * key, dtype=dtype)
    q, k = mixed[..., :key], mixed[..., key:]  # strided, as layers have them
    v, beta = numbers(ROWS, heads, value, dtype=dtype), numbers(ROWS, heads, dtype=dtype).sigmoid()
    g = -numbers(ROWS, heads).abs()
    out = delta_step(q, k, v, g, beta, given, normed=normed)

    def each(x: Tensor) -> Tensor:
        x = x.double()
        if normed:
            x = x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        return x.repeat_interleave(heads // key_heads, 1)

    state = before[SOURCE].double() * g.double().exp()[..., None, None]
    had = torch.einsum("rhkv,rhk->rhv", state, each(k))
    missing = (v.double() - had) * beta.double()[..., None]
    state = state + each(k)[..., None] * missing[..., None, :]
    check(out, torch.einsum("rhkv,rhk->rhv", state, each(q)) * key**-0.5, dtype)
    check_states(given, before, state, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("heads", "groups", "dim", "state"), [(4, 2, 24, 16), (2, 1, 5, 12)])
def test_mamba(
    heads: int, groups: int, dim: int, state: int, gated: bool, dtype: torch.dtype
) -> None:
    given = placed(heads, dim, state)
    before, x = given.states.clone(), numbers(ROWS, heads, dim, dtype=dtype)
    mixed = numbers(ROWS, groups, 2 * state, dtype=dtype)
    b, c = mixed[..., :state], mixed[..., state:]
    dt = numbers(ROWS, heads, seed=1, dtype=dtype)
    dt[0, 0] = 30.0  # its exponential is not needed
    a, d, bias = -numbers(heads).abs(), numbers(heads, seed=2), numbers(heads, seed=3)
    z = numbers(ROWS, heads, dim, dtype=dtype, seed=4) if gated else None
    out = mamba_step(x, dt, a, b, c, d, bias, z, given)

    step = functional.softplus(dt.double() + bias.double())
    taken, read = (y.double().repeat_interleave(heads // groups, 1) for y in (b, c))
    after = before[SOURCE].double() * (step * a.double()).exp()[..., None, None]
    after = after + x.double()[..., None] * (step[..., None] * taken)[..., None, :]
    y = torch.einsum("rhpn,rhn->rhp", after, read) + x.double() * d.double()[:, None]
    check(out, y if z is None else y * functional.silu(z.double()), dtype)
    check_states(given, before, after, torch.float32)


@pytest.mark.parametrize("wrong", ["states", "source"])
def test_states_that_do_not_fit_are_refused(wrong: str) -> None:
    given = placed(6, 4)
    bad: dict[str, Any] = {"states": given.states.mT, "source": given.source.int()}
    x, weight = numbers(ROWS, 6), numbers(6, 4)
    with pytest.raises(ValueError, match=f"{wrong}: expected"):
        convolution_step(x, given._replace(**{wrong: bad[wrong]}), weight, None, None)
    with pytest.raises(ValueError, match="activation: expected silu"):
        convolution_step(x, given, weight, None, "relu")


def test_no_rows_are_no_work() -> None:
    given = placed(6, 4)
    none = given._replace(source=given.source[:0], target=given.target[:0])
    assert convolution_step(numbers(0, 6), none, numbers(6, 4), None, None).shape == (0, 6)
