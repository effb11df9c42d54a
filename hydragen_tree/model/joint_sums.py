"""Memory that ranks share for the parts of a layer's sums, for one launch instead of three.

What a layer gives is summed over the ranks, added to what it was given, and normed for the next
product. Each rank's product writes its part where the others read it; `sum_and_norm` does the rest
(`kernels/hydragen_kernels/sum_norm.py` says how ranks wait for each other).
"""

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from hydragen_tree.model.peer_sums import Agreement, may_read_peers

if TYPE_CHECKING:
    from hydragen_kernels.layers import NormForm  # imports Triton

TURNS = 2  # sums in turn have places of their own: what attention gives, then what follows it
_SLOT_BYTES = 16 << 20
# With two ranks, each reads what the other has, as any way has to. With more, each reads all that
# the others have: so large sums go in parts, each rank's summed up once, see `peer_sums`.
_MANY_BYTES = 1 << 19


class JointSums:
    """Places for parts, and what is done with them.

    Args:
        memory: uint8, this rank's, as `n_bytes` says; zero.
        addresses: `[ranks]` int64, of all ranks' memories as this rank's device has them.
        rank: this one.
    """

    def __init__(self, memory: Tensor, addresses: Tensor, rank: int) -> None:
        self._memory, self._addresses, self._rank = memory, addresses, rank
        most = _SLOT_BYTES if addresses.numel() == 2 else _MANY_BYTES
        self._most_bytes = most

    @staticmethod
    def n_bytes(ranks: int) -> int:
        """Of each rank's memory."""
        from hydragen_kernels.sum_norm import SLOT_ROWS  # imports Triton

        return TURNS * _SLOT_BYTES + 4 * SLOT_ROWS * ranks

    def part(self, turn: int, rows: int, width: int, dtype: torch.dtype) -> Tensor | None:
        """`[rows, width]` where a product goes; None: there is no room for it.

        Args:
            turn: 0 or 1, in turn.
            rows: of the product.
            width: likewise.
            dtype: likewise.
        """
        from hydragen_kernels.sum_norm import SLOT_ROWS

        n_bytes = rows * width * dtype.itemsize
        if not 0 < n_bytes <= self._most_bytes or rows > SLOT_ROWS or n_bytes % (16 * rows):
            return None
        start = turn * _SLOT_BYTES
        return self._memory[start : start + n_bytes].view(dtype).view(rows, width)

    def holds(self, turn: int, x: Tensor) -> bool:
        """Whether these numbers are a part, and no sum yet."""
        return x.data_ptr() == self._memory.data_ptr() + turn * _SLOT_BYTES

    def add(
        self, turn: int, residual: Tensor, weight: Tensor, eps: float, form: "NormForm"
    ) -> tuple[Tensor, Tensor]:
        """What a layer was given and the sum of all parts of this turn; and the norm of that.

        Args:
            turn: of the part.
            residual: `[..., width]`.
            weight: `[width]` of the norm.
            eps: likewise.
            form: likewise.
        """
        from hydragen_kernels.sum_norm import sum_and_norm

        return sum_and_norm(
            residual.contiguous(),
            weight,
            eps,
            form,
            memories=self._addresses,
            rank=self._rank,
            part_at=turn * _SLOT_BYTES,
            flags_at=TURNS * _SLOT_BYTES,
        )


def find_joint_sums(ranks: Agreement, device: torch.device) -> JointSums | None:
    """Memory that all ranks share; all ranks at once.

    Args:
        ranks: that have met; NCCL has made its connections.
        device: of this rank.

    Returns:
        None where the GPUs do not read each other's memory.
    """
    found = None
    if ranks.least(int(may_read_peers(device))):
        try:
            found = _shared(device)
        except Exception:  # of drivers and of what torch lacks: sums by themselves are always there
            found = None
    return found if ranks.least(int(found is not None)) else None


def _shared(device: torch.device) -> JointSums:
    from torch.distributed import _symmetric_memory

    group = dist.group.WORLD
    assert group is not None
    n_bytes = JointSums.n_bytes(group.size())
    memory = _symmetric_memory.empty(n_bytes, dtype=torch.uint8, device=device)
    memory.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how groups were named once
        handle = _symmetric_memory.rendezvous(memory, group)
    places = [int(place) for place in handle.buffer_ptrs]
    if places[group.rank()] != memory.data_ptr():
        raise RuntimeError("symmetric memory begins elsewhere")
    torch.cuda.synchronize(device)  # it is zero before this rank says that it has it
    return JointSums(memory, torch.tensor(places, device=device), group.rank())
