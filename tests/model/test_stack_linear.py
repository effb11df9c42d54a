"""A layer of blocks on a GPU: few rows fused, many by weights made for the call."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_tree.model import stack_linear  # noqa: E402
from hydragen_tree.model.sign_blocks import SignBlock, decompose  # noqa: E402
from hydragen_tree.model.stack_linear import StackLinear  # noqa: E402


@pytest.mark.parametrize("rows", [6, 8])
def test_few_rows_and_many(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_linear, "FUSED_ROWS", 6)
    made, weight_of = [], StackLinear.weight

    def watched(layer: StackLinear, dtype: torch.dtype) -> Tensor:
        made.append(dtype)
        return weight_of(layer, dtype)

    monkeypatch.setattr(StackLinear, "weight", watched)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(17, 21, generator=generator)
    blocks = [block for block, _ in decompose(weight, torch.ones(17), torch.ones(21), 2, 3)]
    bias = torch.randn(17, generator=generator).half()
    there = [SignBlock(*(part.to(DEVICE) for part in block)) for block in blocks]
    layer = StackLinear(there, bias.to(DEVICE))
    x = torch.randn(2, rows // 2, 21, generator=generator).half().to(DEVICE)
    out = layer(x)
    assert (out.dtype, out.shape) == (torch.float16, (2, rows // 2, 17))
    whole = sum((block.matrix().double() for block in blocks), torch.zeros(17, 21).double())
    expected = x.cpu().double() @ whole.T + bias.double()
    error = (out.cpu().double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 4 * torch.finfo(torch.float16).eps
    assert bool(made) == (rows > 6)
