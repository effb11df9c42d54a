"""The ordered forms: right, and the same bits whatever stands beside a row.

Also the same bits with vectors of another width, since sums are always those of 16 partial ones.
"""

import ctypes
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hydragen_kernels import ordered_attention, ordered_layers
from hydragen_kernels.items import Item, item_table
from hydragen_kernels.layer_forms import Activation, NormForm
from hydragen_kernels.ordered_attention import OrderedTables
from hydragen_kernels.ordered_layers import Form

pytestmark = pytest.mark.skipif(
    ordered_layers.why_unavailable() is not None, reason="no C compiler"
)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTHS = [(), ("-mno-avx512f",)]
PAGE = 4


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_width(module: ModuleType, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a module's calls computed by a library that was compiled with further flags."""
    built = module.build(flags)
    if not isinstance(built, ctypes.CDLL):
        pytest.skip("not with this processor")
    monkeypatch.setattr(module, "_library", lambda: built)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (300, 77), (700, 5)])
def test_a_product_of_a_row_does_not_depend_on_the_others(
    dtype: torch.dtype,
    inputs: int,
    outputs: int,
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
) -> None:
    x, weight = random(110, inputs).to(dtype), random(outputs, inputs, seed=1).to(dtype)
    bias = random(outputs, seed=2).to(dtype)
    panels = ordered_layers.pack(weight)
    assert torch.equal(ordered_layers.unpacked_rows(panels, torch.arange(outputs)), weight)
    whole = ordered_layers.product(x, panels, outputs, bias)
    exact = x.double() @ weight.double().T + bias.double()
    assert (whole.double() - exact).norm() <= 4 * torch.finfo(dtype).eps * exact.norm()
    for flags in WIDTHS:
        with_width(ordered_layers, flags, monkeypatch)
        for count, rows in ((1, 1), (2, 2), (5, 7), (16, 24), (3, 110)):
            threads(count)
            for first in {0, 13, 110 - rows} if rows < 110 else {0}:
                own = slice(first, first + rows)
                found = ordered_layers.product(x[own], panels, outputs, bias)
                assert torch.equal(found, whole[own])


def test_rows_of_norms_activations_and_distributions(
    monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    x = 4 * random(21, 2500)

    def all_of(rows: Tensor) -> list[Tensor]:
        forms = [
            ordered_layers.activate(rows.abs() if form is Form.LOG else rows, form) for form in Form
        ]
        return [
            ordered_layers.normalise(rows, 1e-5),
            *forms,
            ordered_layers.probabilities(rows),
        ]

    whole = all_of(x)
    expected = [
        functional.rms_norm(x, x.shape[1:], eps=1e-5),
        functional.silu(x),
        functional.gelu(x, approximate="tanh"),
        functional.gelu(x),
        x.sigmoid(),
        x.tanh(),
        x.expm1(),
        x.abs().log(),
        x.softmax(-1),
    ]
    for ours, theirs in zip(whole, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-6)
    for flags in WIDTHS:
        with_width(ordered_layers, flags, monkeypatch)
        for count, rows in ((1, 1), (4, 3), (16, 21)):
            threads(count)
            found = all_of(x[:rows].clone())
            assert all(torch.equal(a, b[:rows]) for a, b in zip(found, whole, strict=True))


def test_other_numbers_are_refused() -> None:
    x, weight = random(3, 8), random(8)
    with pytest.raises(ValueError, match="weight: expected float32"):
        ordered_layers.rms_norm(x, weight.bfloat16(), 1e-5, NormForm.EXACT)
    with pytest.raises(ValueError, match="weight"):
        ordered_layers.rms_norm(x, random(16)[::2], 1e-5, NormForm.EXACT)
    with pytest.raises(ValueError, match="x: expected float32"):
        ordered_layers.gated(x.half(), Activation.SILU)
    heads = x.view(1, 1, 3, 8)
    with pytest.raises(ValueError, match="cos: expected float32"):
        ordered_layers.rotate(heads, heads, x[None].half(), x[None])
    with pytest.raises(ValueError, match="x: expected float32"):
        ordered_layers.store(random(1, 4, 8), torch.arange(3), random(1, 3, 8).half())


def test_rows_of_weighted_norms_gates_and_rotations(
    monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    x, weight = 4 * random(21, 2100), random(2100, seed=1)
    cos, sin = random(2, 1, 21, 12, seed=2)

    def all_of(rows: int) -> list[Tensor]:
        own = x[:rows].clone()
        # heads in the middle of what a product gives
        q, k = own[:, 36:1260].view(1, rows, -1, 12).transpose(1, 2).split([100, 2], 1)
        turned = ordered_layers.rotate(q, k, cos[:, :rows], sin[:, :rows])
        return [
            *(ordered_layers.rms_norm(own, weight, 1e-5, form) for form in NormForm),
            *(ordered_layers.gated(own, activation) for activation in Activation),
            *(heads[0].transpose(0, 1) for heads in turned),
        ]

    whole = all_of(21)
    normed = functional.rms_norm(x.double(), x.shape[1:], eps=1e-5)
    gate, up = x.double().chunk(2, 1)
    heads = x[:, 36:1260].double().view(21, -1, 12)
    turned = torch.cat([-heads[..., 6:], heads[..., :6]], -1)
    rotated = heads * cos[0, :, None].double() + turned * sin[0, :, None].double()
    expected = [
        *(normed * weight.double(),) * 2,
        normed * (1.0 + weight.double()),
        functional.silu(gate) * up,
        functional.gelu(gate, approximate="tanh") * up,
        *rotated.split([100, 2], 1),
    ]
    for ours, exact in zip(whole, expected, strict=True):
        errors = (ours.double() - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
        assert float(errors.max()) < 4 * torch.finfo(torch.float32).eps
    for flags in WIDTHS:
        with_width(ordered_layers, flags, monkeypatch)
        for count, rows in ((1, 1), (4, 3), (16, 21)):
            threads(count)
            assert all(map(torch.equal, all_of(rows), (found[:rows] for found in whole)))


def test_keys_go_to_their_slots() -> None:
    slots = torch.tensor([7, 0, 19])
    for new in (random(2, 3, 12), random(3, 2, 12).transpose(0, 1)):
        arena = random(3, 2, 20, 12, seed=1)
        expected = arena.clone()
        expected[1].index_copy_(1, slots, new)
        ordered_layers.store(arena[1], slots, new)
        assert torch.equal(arena, expected)


def test_what_is_no_number_stays_none() -> None:
    x = torch.tensor([[0.0, torch.nan], [-torch.inf, -torch.inf], [torch.inf, 0.0]])
    assert ordered_layers.probabilities(x).isnan().all()
    assert ordered_layers.probabilities(torch.tensor([[-torch.inf, 1.0]])).tolist() == [[0.0, 1.0]]
    far = torch.tensor([-3e38, -200.0, 200.0, torch.nan])
    least_and_most = dict.fromkeys(Form, (0.0, 200.0)) | {
        Form.SIGMOID: (0.0, 1.0),
        Form.TANH: (-1.0, 1.0),
        Form.EXPM1: (-1.0, torch.inf),
    }
    for form in set(Form) - {Form.LOG}:
        least, most = least_and_most[form]
        assert ordered_layers.activate(far, form)[:3].tolist() == [least, least, most]
        assert ordered_layers.activate(far, form)[3].isnan()
    assert ordered_layers.activate(far, Form.LOG)[[0, 3]].isnan().all()


class Sequence:
    """Keys and values of a long sequence, and its queries."""

    def __init__(self, dtype: torch.dtype, head_dim: int, length: int) -> None:
        self.length = length
        self.queries = (2 * random(length, 4, head_dim)).to(dtype)
        self.keys = random(2, length, head_dim, seed=1).to(dtype)
        self.values = random(2, length, head_dim, seed=2).to(dtype)

    def prefilled(self) -> Tensor:
        """All queries at once."""
        items = item_table([Item(0, self.length, 0, self.length, causal=1, level=0)])
        tables = OrderedTables(items, self.length, None, None, 1)
        return tables.attend(self.queries, self.keys, self.values, scale=0.25)

    def decoded(self, rows: list[int], cuts: tuple[int, int]) -> Tensor:
        """Some queries, which hang from two segments, and have the rest as tails in pages."""
        upper, lower = cuts
        lengths = np.array(rows, np.int32) + 1 - lower
        width = int(-(-lengths.max() // PAGE))
        first = -(-lower // PAGE)  # page behind the segments
        order = np.random.default_rng(0).permutation(width * len(rows)).astype(np.int32)
        pages = (first + order).reshape(len(rows), width)
        shape = (2, (first + order.size) * PAGE, self.keys.shape[2])
        keys, values = (x.new_zeros(shape) for x in (self.keys, self.values))
        for arena, own in ((keys, self.keys), (values, self.values)):
            arena[:, :lower] = own[:, :lower]
            for row, length in enumerate(lengths.tolist()):
                for at in range(length):
                    slot = int(pages[row, at // PAGE]) * PAGE + at % PAGE
                    arena[:, slot] = own[:, lower + at]
        items = [
            Item(0, len(rows), 0, upper, causal=0, level=0),
            Item(0, len(rows), upper, lower - upper, causal=0, level=1),
        ]
        tables = OrderedTables(item_table(items), len(rows), pages, lengths, PAGE)
        return tables.attend(self.queries[rows], keys, values, scale=0.25)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [16, 40, 64, 128])
def test_attention_of_a_query_depends_on_its_keys_alone(
    dtype: torch.dtype,
    head_dim: int,
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
) -> None:
    """By prefill or decode, wherever the tree is cut, whoever shares the step."""
    case = Sequence(dtype, head_dim, 150)
    whole = case.prefilled()
    for flags in WIDTHS:
        with_width(ordered_attention, flags, monkeypatch)
        assert torch.equal(case.prefilled(), whole)
        for count, rows in ((1, [149]), (2, [60, 61, 62]), (16, [149, 70, 101, 149, 99, 58])):
            threads(count)
            for cuts in ((1, 2), (16, 33), (17, 58)):
                assert torch.equal(case.decoded(rows, cuts), whole[rows])


def test_sums_begin_anew_at_fixed_positions() -> None:
    case = Sequence(torch.float32, 32, 2100)
    whole = case.prefilled()
    for cuts in ((1000, 1100), (1024, 2048), (3, 1025)):
        assert torch.equal(case.decoded([2099, 2050], cuts), whole[[2099, 2050]])
