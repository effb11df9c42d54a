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

from hydragen_kernels.layers import NormForm, rms_norm  # noqa: E402
from hydragen_kernels.sum_norm import SLOT_ROWS, sum_and_norm  # noqa: E402
from tests.kernels.test_layers import DTYPES, normed, numbers, worst_row  # noqa: E402

EPS = 1e-5
PART_AT = 64


class Ranks:
    """Memories that all ranks read: some bytes, the parts, and flags behind them."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.flags_at = PART_AT + -(-parts[0].nbytes // 16) * 16
        n_bytes = self.flags_at + 4 * SLOT_ROWS * len(parts)
        self.memories = [torch.zeros(n_bytes, dtype=torch.uint8, device=DEVICE) for _ in parts]
        for memory, part in zip(self.memories, parts, strict=True):
            memory[PART_AT : PART_AT + part.nbytes] = part.flatten().view(torch.uint8)
        addresses = [memory.data_ptr() for memory in self.memories]
        self.addresses = torch.tensor(addresses, device=DEVICE)

    def flags(self, rank: int) -> Tensor:
        """`[rows, ranks]` whose row has come."""
        return self.memories[rank][self.flags_at :].view(torch.int32).view(SLOT_ROWS, -1)

    def run(
        self, rank: int, residual: Tensor, weight: Tensor, form: NormForm
    ) -> tuple[Tensor, ...]:
        return sum_and_norm(
            residual,
            weight,
            EPS,
            form,
            memories=self.addresses,
            rank=rank,
            part_at=PART_AT,
            flags_at=self.flags_at,
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", NormForm)
@pytest.mark.parametrize(("rows", "width", "size"), [(5, 96, 2), (1, 5120, 2), (3, 40, 4)])
def test_all_ranks_have_the_sum_and_its_norm(
    dtype: torch.dtype, form: NormForm, rows: int, width: int, size: int
) -> None:
    parts = [numbers(rows, width, dtype=dtype, seed=rank) for rank in range(size)]
    residual = numbers(rows, width, dtype=dtype, seed=8)
    weight = numbers(width, dtype=dtype, seed=9)
    ranks = Ranks(parts)
    exact = sum(part.double() for part in (*parts, residual))
    found = []
    for turn in range(2):  # a second time, with the flags that the first has left
        for rank in range(size):
            others = torch.arange(size, device=DEVICE) != rank
            ranks.flags(rank)[:rows] = others.int()  # ranks that run at the same time have come
            for other in range(size):
                if other != rank:
                    ranks.flags(other)[:rows, rank] = 0
            found.append(ranks.run(rank, residual, weight, form))
            assert not ranks.flags(rank)[:rows].any(), (turn, rank)
            told = [bool(ranks.flags(other)[:rows, rank].all()) for other in range(size)]
            assert told == others.tolist()
            assert not ranks.flags(rank)[rows:].any()
    out, after = found[0]
    assert all(torch.equal(out, a) and torch.equal(after, b) for a, b in found)
    assert worst_row(out, exact) < 4 * torch.finfo(dtype).eps
    assert worst_row(after, normed(exact, weight.double(), EPS, form)) < 8 * torch.finfo(dtype).eps
    if width > 1024 and dtype != torch.float32:  # narrow rows share a program, in another order
        assert torch.equal(after, rms_norm(out, weight, EPS, form))
    assert torch.equal(out, residual + sum(part.float() for part in parts).to(dtype))


def test_what_has_no_flags_is_refused() -> None:
    residual = torch.zeros(SLOT_ROWS + 1, 2, device=DEVICE)
    with pytest.raises(ValueError, match="at most 4096 dense rows"):
        Ranks([residual]).run(0, residual, residual[0], NormForm.ROUNDED)
    with pytest.raises(ValueError, match="dense"):
        Ranks([residual]).run(0, residual[:4].T, residual[0], NormForm.ROUNDED)
