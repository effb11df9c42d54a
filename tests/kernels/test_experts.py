"""Products of routed tokens, against one expert at a time in float64."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.experts import (  # noqa: E402
    ExpertTile,
    combine,
    expert_product,
    expert_tiles,
    sort_by_expert,
)
from hydragen_kernels.reference_experts import mixture  # noqa: E402

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])
NONE = 1 << 20  # an expert that there is not


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def routed(tokens: int, choices: int, experts: int, kind: str) -> Tensor:
    """Experts of each token, no two the same."""
    generator = torch.Generator().manual_seed(tokens)
    chosen = torch.rand(tokens, experts, generator=generator).argsort(-1)[:, :choices]
    if kind == "alike":
        chosen = chosen[:1].expand(tokens, -1).contiguous()
    if kind == "some without":
        chosen[::3, 0] = NONE
    return chosen.to(DEVICE)


ROUTINGS = [(1, 1, 1), (5, 2, 4), (33, 3, 5), (70, 2, 3), (9, 4, 40), (1100, 1, 2)]
KINDS = ["spread", "alike", "some without"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ROUTINGS, ids=str)
def test_pairs_are_sorted_by_expert(shape: tuple[int, int, int], kind: str) -> None:
    chosen = routed(*shape, kind)
    order, starts, choices = sort_by_expert(chosen, shape[2])
    assert choices == shape[1]
    pairs = chosen.flatten()
    assert starts.tolist() == [int((pairs < expert).sum()) for expert in range(shape[2] + 1)]
    expected = torch.sort(pairs, stable=True).indices[: starts[-1]]
    assert order[: starts[-1]].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("kind", "transposed"), [("spread", False), ("alike", True), ("some without", True)]
)
@pytest.mark.parametrize("shape", ROUTINGS[:-1], ids=str)
def test_products_in_either_order(
    shape: tuple[int, int, int], kind: str, transposed: bool, dtype: torch.dtype
) -> None:
    """There with a gather, back with a scatter: what a layer's two products do."""
    (tokens, _, experts), inputs, inner = shape, 40, 24
    chosen = routed(*shape, kind)
    x = numbers(tokens, inputs, dtype=dtype)
    weight = numbers(experts, inner, inputs, dtype=dtype, seed=1)
    back = numbers(experts, inputs, inner, dtype=dtype, seed=2)
    if transposed:
        weight, back = (w.mT.contiguous().mT for w in (weight, back))
    bias = numbers(experts, inner, dtype=dtype, seed=3) if transposed else None
    shares = numbers(*chosen.shape, dtype=torch.float32, seed=4).softmax(-1)
    routing = sort_by_expert(chosen, experts)
    sorted_pairs = expert_product(x, weight, bias, routing, by_token=True)
    y = expert_product(sorted_pairs, back, None, routing, by_token=False)
    y[(chosen >= experts).flatten()] = torch.nan  # as memory that nobody wrote may be
    found = combine(y, shares, chosen, experts)
    wide = [w.double() for w in (x, weight, back, shares)]
    each = torch.zeros(tokens, inputs, dtype=torch.float64, device=DEVICE)
    for choice in range(chosen.shape[1]):
        one, all_of_it = chosen[:, [choice]], torch.ones_like(wide[3][:, [choice]])
        middle = mixture(wide[0], wide[1], None if bias is None else bias.double(), one, all_of_it)
        each += mixture(middle, wide[2], None, one, wide[3][:, [choice]])
    error = (found.double() - each).norm(dim=-1) / each.norm(dim=-1).clamp(min=1e-9)
    assert float(error.max()) < 8 * torch.finfo(dtype).eps


@pytest.mark.skipif(INTERPRETED, reason="numpy's products depend on the number of rows")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("inputs", [40, 128, 768, 2048])
def test_a_token_has_the_same_bits_in_any_company(inputs: int, dtype: torch.dtype) -> None:
    """By any tile, and with any others among its experts."""
    experts = 6
    chosen = routed(500, 2, experts, "spread")
    x = numbers(500, inputs, dtype=dtype)
    weight = numbers(experts, 264, inputs, dtype=dtype, seed=1)
    bias = numbers(experts, 264, dtype=dtype, seed=2)
    shares = numbers(*chosen.shape, dtype=torch.float32, seed=4).softmax(-1)

    def mixed(rows: slice, tile: ExpertTile | None) -> Tensor:
        routing = sort_by_expert(chosen[rows], experts)
        given = x[rows].repeat_interleave(2, 0)[routing.order.long()]
        y = expert_product(given, weight, bias, routing, by_token=False, tile=tile)
        return combine(y, shares[rows], chosen[rows], experts)

    expected = mixed(slice(None), None)
    for tile in (None, *expert_tiles(dtype)):
        assert torch.equal(mixed(slice(None), tile), expected)
        for rows in (slice(0, 1), slice(3, 20), slice(90, 350)):
            assert torch.equal(mixed(rows, tile), expected[rows])


def test_what_does_not_fit_is_refused() -> None:
    chosen = routed(5, 2, 4, "spread")
    routing = sort_by_expert(chosen, 4)
    x, weight = numbers(5, 8, dtype=torch.float32), numbers(4, 6, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match="chosen: expected integers"):
        sort_by_expert(chosen.float(), 4)
    with pytest.raises(ValueError, match=r"x: expected dense \[10, 8\]"):
        expert_product(x, weight, None, routing, by_token=False)
    with pytest.raises(ValueError, match="of one kind"):
        expert_product(x, weight.half(), None, routing, by_token=True)
    with pytest.raises(ValueError, match="3 experts, routed among 4"):
        expert_product(x, weight[:3], None, routing, by_token=True)
    with pytest.raises(ValueError, match="shares"):
        combine(numbers(10, 8, dtype=torch.float32), numbers(5, 3, dtype=torch.float32), chosen, 4)
