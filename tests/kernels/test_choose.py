"""The choice kernel against sorting, and its draws against the random numbers' own."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hydragen_kernels import reference_choice
from hydragen_kernels.random import uniforms

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
AVAILABLE = INTERPRETED or torch.cuda.is_available()

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "plain": {"temperature": 1.0},
    "cold": {"temperature": 0.05},
    "hot": {"temperature": 5.0, "top_p": 0.9},
    "top-k": {"temperature": 0.8, "top_k": 7},
    "top-1": {"temperature": 0.8, "top_k": 1},
    "top-k above the vocabulary": {"temperature": 0.8, "top_k": 10_000},
    "top-p": {"temperature": 0.8, "top_p": 0.95},
    "tiny top-p": {"temperature": 0.8, "top_p": 1e-6},
    "min-p": {"temperature": 1.2, "min_p": 0.1},
    "all": {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
}

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# a dtype changes how logits are read; the interpreter shows that at its largest size only
SIZES = (
    [(1, torch.float32), (33, torch.float32), *((1000, dtype) for dtype in DTYPES)]
    if INTERPRETED
    else [(vocab, dtype) for vocab in (1, 33, 1000, 50_257) for dtype in DTYPES]
)


def rows_of_logits(dtype: torch.dtype, vocab: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(5, vocab, generator=generator) * 3
    logits[1] = 0.25  # all alike
    logits[2] = logits[2].mul(2).round().div(2)  # many ties
    logits[3, 1::3] = -torch.inf  # forbidden tokens
    logits[4] = -30.0
    logits[4, vocab // 2] = 30.0  # certain
    return logits.to(dtype)


if AVAILABLE:
    from hydragen_kernels.choose import choose


def needs_kernels(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs the kernels: on a GPU, or interpreted."""
    test = pytest.mark.skipif(not AVAILABLE, reason="no GPU, not under the interpreter")(test)
    return test if INTERPRETED else pytest.mark.gpu(test)


@needs_kernels
@pytest.mark.filterwarnings("ignore:divide by zero encountered in log")
@pytest.mark.parametrize(("vocab", "dtype"), SIZES, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_choose(name: str, vocab: int, dtype: torch.dtype) -> None:
    settings = SETTINGS[name]
    logits = rows_of_logits(dtype, vocab)
    samples = 15 if INTERPRETED else 40
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 5, (samples,), dtype=torch.int32, generator=generator)
    keys = torch.randint(-(2**63), 2**63 - 1, (samples,), generator=generator)
    positions = torch.arange(samples, dtype=torch.int32) % 7
    arguments = (x.to(DEVICE) for x in (logits, rows, keys, positions))
    found = choose(*arguments, **settings)
    expected = reference_choice.choose(logits, rows, keys, positions, **settings)

    tokens = found.tokens.cpu()
    raw = torch.log_softmax(logits.double(), -1)
    if settings["temperature"] > 0.0:
        # a number within rounding of the boundary between two tokens may fall on either side
        numbers = uniforms(keys.numpy().view(np.uint64), positions.numpy())
        for sample in torch.nonzero(tokens != expected.tokens).flatten().tolist():
            weights, is_kept = reference_choice.kept(
                logits[rows[sample]].float(), **{"top_k": 0, "top_p": 1.0, "min_p": 0.0, **settings}
            )
            upto = torch.where(is_kept, weights, 0.0).cumsum(0)
            token = int(tokens[sample])
            low = (upto[token - 1] if token else 0.0) / upto[-1]
            assert low - 2e-6 <= numbers[sample] <= upto[token] / upto[-1] + 2e-6
    else:
        assert torch.equal(tokens, expected.tokens)
    assert (tokens == expected.tokens).float().mean() > 0.97
    same = tokens == expected.tokens
    torch.testing.assert_close(
        found.logprobs.cpu().double(), raw[rows.long(), tokens.long()], rtol=1e-5, atol=2e-5
    )
    torch.testing.assert_close(
        found.sampled_logprobs.cpu()[same], expected.sampled_logprobs[same], rtol=1e-5, atol=2e-5
    )


@needs_kernels
def test_padding_draws_nothing() -> None:
    logits = torch.randn(2, 50, device=DEVICE)
    rows = torch.tensor([1, -1], dtype=torch.int32, device=DEVICE)
    keys = torch.tensor([3, 4], device=DEVICE)
    positions = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    found = choose(logits, rows, keys, positions, temperature=1.0)
    assert found.tokens[0] >= 0
    assert found.tokens[1] == -1
    assert found.logprobs[1] == 0.0
