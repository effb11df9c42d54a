"""Memory that ranks share for a layer's sums, for one launch instead of three.

What a layer gives is summed over the ranks, added to what it was given, and normed for the next
product. Each rank has an inbox, where the others write their parts; `sum_and_norm` does all of it
(`kernels/hydragen_kernels/sum_norm.py` says how ranks wait for each other).
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from hydragen_tree.model.peer_sums import Agreement, may_read_peers

if TYPE_CHECKING:
    from hydragen_kernels.layer_forms import NormForm

TURNS = 2  # sums in turn have places of their own: what attention gives, then what follows it
# Of a part. With two ranks, each sends what any way has to. With more, each sends all that it has
# to all others: so large sums go in parts, each rank's summed up once, see `peer_sums`.
_SLOT_BYTES, _MANY_BYTES = 16 << 20, 1 << 19


class JointSums:
    """Inboxes, and what is done with them.

    Args:
        memory: int16, this rank's, as `numbers` says; made empty here.
        addresses: of all ranks' memories, as this rank's device has them.
        rank: this one.
    """

    def __init__(self, memory: Tensor, addresses: Sequence[int], rank: int) -> None:
        from hydragen_kernels.sum_norm import EMPTY  # imports Triton

        ranks = len(addresses)
        self._memory, self._rank, self._slot_bytes = memory, rank, _slot_bytes(ranks)
        memory.fill_(EMPTY.value)
        turn_bytes = (ranks - 1) * self._slot_bytes
        self._inboxes = [
            tuple(address + turn * turn_bytes for address in addresses) for turn in range(TURNS)
        ]

    @staticmethod
    def numbers(ranks: int) -> int:
        """Of each rank's memory."""
        return TURNS * (ranks - 1) * _slot_bytes(ranks) // 2

    def takes(self, rows: int, width: int, dtype: torch.dtype) -> bool:
        """Whether parts are of 16 bits and there is room for them; the same on all ranks."""
        return dtype.itemsize == 2 and 0 < 2 * rows * width <= self._slot_bytes and width % 8 == 0

    def add(
        self,
        turn: int,
        part: Tensor,
        residual: Tensor,
        weight: Tensor,
        eps: float,
        form: "NormForm",
    ) -> tuple[Tensor, Tensor]:
        """What a layer was given and the sum of all parts; and the norm of that.

        Args:
            turn: 0 or 1, in turn.
            part: `[..., width]` of this rank; `takes` it.
            residual: likewise.
            weight: `[width]` of the norm.
            eps: likewise.
            form: likewise.
        """
        from hydragen_kernels.sum_norm import sum_and_norm

        return sum_and_norm(
            part.contiguous(),
            residual.contiguous(),
            weight,
            eps,
            form,
            inboxes=self._inboxes[turn],
            rank=self._rank,
            slot_bytes=self._slot_bytes,
        )


def _slot_bytes(ranks: int) -> int:
    return _SLOT_BYTES if ranks == 2 else _MANY_BYTES


def find_joint_sums(ranks: Agreement, device: torch.device) -> JointSums | None:
    """Memory that all ranks share; all ranks at once.

    Args:
        ranks: that have met; NCCL has made its connections.
        device: of this rank.

    Returns:
        None where the GPUs do not write into each other's memory.
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
    size = JointSums.numbers(group.size())
    memory = _symmetric_memory.empty(size, dtype=torch.int16, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how groups were named once
        handle = _symmetric_memory.rendezvous(memory, group)
    places = [int(place) for place in handle.buffer_ptrs]
    if places[group.rank()] != memory.data_ptr():
        raise RuntimeError("symmetric memory begins elsewhere")
    found = JointSums(memory, places, group.rank())
    torch.cuda.synchronize(device)  # it is empty before this rank says that it has it
    return found
