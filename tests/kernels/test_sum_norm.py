"""Sums over ranks with what follows them: all ranks in one process, one after the other."""

import os

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.layer_forms import NormForm  # noqa: E402
from hydragen_kernels.layers import rms_norm  # noqa: E402
from hydragen_kernels.sum_norm import EMPTY, sum_and_norm  # noqa: E402
from tests.kernels.test_layers import normed, numbers, worst_row  # noqa: E402

EPS = 1e-5
HALVES = (torch.float16,) if INTERPRETED else (torch.float16, torch.bfloat16)


class Ranks:
    """Inboxes of all ranks, each with a slot for every other one, larger than a part."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts, size = parts, len(parts)
        self.slot = -(-parts[0].numel() // 8) * 8 + 24
        kept = [torch.empty(size - 1, self.slot, dtype=torch.int16, device=DEVICE) for _ in parts]
        self.inboxes = [inbox.fill_(EMPTY.value) for inbox in kept]
        self.addresses = tuple(inbox.data_ptr() for inbox in self.inboxes)

    def sent(self, sender: int, to: int) -> Tensor:
        """What a rank's inbox has of another, as whole numbers of 16 bits."""
        return self.inboxes[to][sender - (sender > to)]

    def send(self, sender: int, to: int) -> None:
        """Writes as a rank that runs at the same time."""
        bits = (self.parts[sender] + 0.0).view(torch.int16).flatten()
        self.sent(sender, to)[: bits.numel()] = bits

    def run(
        self, rank: int, residual: Tensor, weight: Tensor, form: NormForm
    ) -> tuple[Tensor, ...]:
        return sum_and_norm(
            self.parts[rank],
            residual,
            weight,
            EPS,
            form,
            inboxes=self.addresses,
            rank=rank,
            slot_bytes=2 * self.slot,
        )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("form", NormForm)
@pytest.mark.parametrize(("rows", "width", "size"), [(5, 96, 2), (1, 5120, 2), (3, 40, 4)])
def test_all_ranks_have_the_sum_and_its_norm(
    dtype: torch.dtype, form: NormForm, rows: int, width: int, size: int
) -> None:
    parts = [numbers(rows, width, dtype=dtype, seed=rank) for rank in range(size)]
    parts[0][0, :7] = -0.0
    residual = numbers(rows, width, dtype=dtype, seed=8)
    weight = numbers(width, dtype=dtype, seed=9)
    ranks = Ranks(parts)
    exact = sum(part.double() for part in (*parts, residual))
    found = []
    for _ in range(2):  # a second time, with what the first has left
        for rank in range(size):
            others = [other for other in range(size) if other != rank]
            for other in others:
                ranks.send(other, rank)
            found.append(ranks.run(rank, residual, weight, form))
            assert (ranks.inboxes[rank] == EMPTY.value).all()  # for the next sum
            own = parts[rank].flatten()
            for other in others:
                bits = ranks.sent(rank, other)
                assert (bits[: own.numel()] != EMPTY.value).all()
                assert torch.equal(bits[: own.numel()].view(dtype), own)
                assert (bits[own.numel() :] == EMPTY.value).all()
                bits.fill_(EMPTY.value)  # read by the other
    out, after = found[0]
    assert all(torch.equal(out, a) and torch.equal(after, b) for a, b in found)
    assert worst_row(out, exact) < 4 * torch.finfo(dtype).eps
    assert worst_row(after, normed(exact, weight.double(), EPS, form)) < 8 * torch.finfo(dtype).eps
    if width > 1024:  # narrow rows share a program there, in another order
        assert torch.equal(after, rms_norm(out, weight, EPS, form))
    assert torch.equal(out, residual + sum(part.float() for part in parts).to(dtype))


def test_what_no_inbox_holds_is_refused() -> None:
    ranks = Ranks([torch.zeros(2, 8, dtype=torch.float16, device=DEVICE)] * 2)
    residual = torch.zeros_like(ranks.parts[0])
    wide, many = residual.float(), residual.new_zeros(9, 8)
    for part, given, said in (
        (wide, wide, "numbers of 16 bits, got torch.float32"),
        (many, many, "at most 80 bytes, got 144"),
        (residual.new_zeros(8, 2).T, residual, "dense rows of one shape, got part"),
        (residual, residual[:1], "dense rows of one shape, got part"),
    ):
        ranks.parts[0] = part
        with pytest.raises(ValueError, match=said):
            ranks.run(0, given, given[0], NormForm.ROUNDED)
