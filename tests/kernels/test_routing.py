"""Experts and shares of tokens, against their definition in float64 and against torch."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.layer_forms import Scores  # noqa: E402
from hydragen_kernels.reference_experts import routed  # noqa: E402
from hydragen_kernels.routing import route  # noqa: E402

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])
# tokens, experts, choices
SHAPES = [
    (0, 4, 2),
    (1, 1, 1),
    (3, 4, 4),
    (5, 8, 2),
    (9, 32, 4),
    (3, 60, 4),
    (7, 64, 6),
    (5, 128, 8),
    (2, 160, 6),
    (3, 512, 10),
    (2, 513, 22),
]
FORMS = [(scores, normal) for scores in Scores for normal in (True, False)]


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def assert_alike(found: Tensor, expected: Tensor) -> None:
    """By the relative norm of the worst row."""
    if not found.numel():
        return
    errors = (found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    eps = torch.finfo(found.dtype).eps
    assert float(errors.max()) < (eps if eps > 1e-6 else 8 * eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("scores", "normal"), FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_experts_and_shares(
    shape: tuple[int, int, int], scores: Scores, normal: bool, dtype: torch.dtype
) -> None:
    tokens, experts, choices = shape
    logits = 2 * numbers(tokens, experts + 3, dtype=dtype)[:, :experts]  # rows apart
    biases = [None]
    if scores == Scores.SIGMOID:
        biases += [numbers(experts, dtype=kind, seed=1) for kind in (torch.float32, dtype)]
    for bias in biases:
        form = {"scores": scores, "is_normalised": normal, "scale": 2.5, "bias": bias}
        expected_chosen, expected = routed(logits, choices, **form)
        for out in (dtype, torch.float32):
            chosen, shares = route(logits, choices, dtype=out, **form)
            assert chosen.dtype == torch.int64
            assert shares.dtype == out
            assert torch.equal(chosen, expected_chosen)
            assert_alike(shares, expected)


@pytest.mark.parametrize(("scores", "normal"), FORMS)
def test_of_equal_ones_the_lower_numbers_come_first(scores: Scores, normal: bool) -> None:
    """And logits so large that most of what is made of them is nothing, or one."""
    logits = 64 * numbers(20, 100, dtype=torch.float32).round()
    logits[0] = 0.0
    logits[1, 5] = torch.inf if scores == Scores.SIGMOID else 1e30
    logits[2, ::2] = -torch.inf
    logits[3] = torch.where(torch.arange(100, device=DEVICE) % 3 == 0, -0.0, 0.0)
    form = {"scores": scores, "is_normalised": normal}
    chosen, shares = route(logits, 8, dtype=torch.float32, **form)
    expected_chosen, expected = routed(logits, 8, **form)
    assert torch.equal(chosen, expected_chosen)
    assert chosen[0].tolist() == chosen[3].tolist() == [*range(8)]
    assert_alike(shares, expected)


def test_what_is_less_than_everything_is_still_an_expert() -> None:
    """Rows of -inf or NaN go to no expert beyond those that there are."""
    logits = torch.full((2, 5), -torch.inf, device=DEVICE)
    logits[1] = torch.nan
    chosen, _ = route(logits, 3, scores=Scores.SIGMOID, is_normalised=True, dtype=torch.float32)
    assert chosen.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("experts", "choices"), [(32, 4), (128, 8)])
def test_it_is_what_torch_gives(experts: int, choices: int, dtype: torch.dtype) -> None:
    """Without ties, of which torch may take any."""
    order = numbers(6, experts, dtype=torch.float32).argsort(-1)
    logits = (order / experts * 8 - 4).to(dtype)
    for normal in (True, False):
        chosen, shares = route(
            logits, choices, scores=Scores.SOFTMAX, is_normalised=normal, dtype=torch.float32
        )
        expected, places = logits.softmax(-1, dtype=torch.float32).topk(choices)
        assert torch.equal(chosen, places)
        assert_alike(shares, (expected / expected.sum(-1, True) if normal else expected).double())
    chosen, shares = route(logits, choices, scores=Scores.SOFTMAX, is_normalised=True, dtype=dtype)
    assert_alike(shares, logits.topk(choices).values.softmax(-1).double())


def test_what_does_not_fit_is_refused() -> None:
    logits = numbers(3, 8, dtype=torch.float32)
    form = {"scores": Scores.SOFTMAX, "is_normalised": True, "dtype": torch.float32}
    with pytest.raises(ValueError, match="logits: expected fp16, bf16 or fp32"):
        route(logits.double(), 2, **form)
    with pytest.raises(ValueError, match="logits: expected a contiguous last dimension"):
        route(logits.T, 2, **form)
    with pytest.raises(ValueError, match="choices: expected 1 to 8"):
        route(logits, 9, **form)
    with pytest.raises(ValueError, match="choice by sigmoids"):
        route(logits, 2, bias=logits[0], **form)
    with pytest.raises(ValueError, match=r"bias: expected contiguous float32 \[8\]"):
        route(logits, 2, bias=logits[0, :7], **form | {"scores": Scores.SIGMOID})
