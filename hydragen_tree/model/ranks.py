"""The processes that hold one model between them.

Each has its part of every layer's heads and of its inner width, and runs the same loop on it: the
same rows, in the same order, with the same random numbers. Twice a layer what they have computed is
summed, after which all have the same numbers again; so the logits are equal, and all draw the same
tokens. What a process alone can know, such as how much memory it has, or what comes in while it
draws, is agreed on.

NCCL sums on GPUs, or what is faster there (`peer_sums.py`, `joint_sums.py`), and gloo on CPUs; gloo
also carries what processes agree on.
"""

import pickle
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from hydragen_tree.errors import HydragenError
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.joint_sums import JointSums, find_joint_sums
from hydragen_tree.model.peer_sums import PeerSums, find_peer_sums

T = TypeVar("T")

# Who waits for work waits for as long as it takes; that a rank is gone is noticed otherwise.
_PATIENCE = timedelta(days=30)
_SHORT_BYTES, _LENGTH_BYTES = 512, 8
# Two numbers have one sum, whoever adds them up and however many there are beside them.
MOST_ORDERED_RANKS = 2


class RankLostError(HydragenError):
    """Another rank does not answer: it has failed, or is gone."""


@dataclass(slots=True)
class Ranks:
    """One of the processes that hold a model, and the way to the others.

    Args:
        rank: which one this is.
        size: how many there are; 1: this one holds it all, and nothing is sent.
        meeting: a path that all can open and where nothing is yet: there they find each other.

    Attributes:
        joint: sums in one launch with what follows them; None: there are none.
    """

    rank: int = 0
    size: int = 1
    meeting: str = ""
    joint: JointSums | None = field(default=None, init=False, repr=False)
    _peers: PeerSums | None = field(default=None, init=False, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Finds the others; returns when all are there. Once a process, before all else.

        Args:
            device: where this rank computes.
        """
        if self.size == 1:
            return
        on_gpu = device.type == "cuda"
        with _heard():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=dist.FileStore(self.meeting, self.size),  # type: ignore[attr-defined]
                rank=self.rank,
                world_size=self.size,
                timeout=_PATIENCE,
                device_id=device if on_gpu else None,
            )
            # NCCL makes its connections with the first sum, which nothing may capture.
            dist.all_reduce(torch.zeros(1, device=device))
        if on_gpu:
            self._peers = find_peer_sums(self, device)
            self.joint = find_joint_sums(self, device)

    @hidden_from_compiler
    def sum_up(self, x: Tensor) -> Tensor:
        """The sum of all ranks' tensors, equal to the last bit on all of them; maybe in place."""
        if self.size == 1:
            return x
        way = None if self._peers is None else self._peers.way(x)
        if way is not None:
            return way(x)
        with _heard():
            dist.all_reduce(x)
        return x

    def sums_by(self, x: Tensor) -> str:
        """What `sum_up` has such tensors summed by: `symmetric memory`, `nccl` or `gloo`."""
        if self._peers is not None and self._peers.way(x) is not None:
            return "symmetric memory"
        return "nccl" if x.is_cuda else "gloo"

    def agree(self, decide: Callable[[], T]) -> T:
        """What rank 0 decides; the others are not asked.

        Args:
            decide: called on rank 0 alone; what it returns can be pickled.
        """
        if self.size == 1:
            return decide()
        message = pickle.dumps(decide()) if self.leads else b""
        agreed: T = pickle.loads(_from_first(message))
        return agreed

    def least(self, value: int) -> int:
        """The least of all ranks' numbers."""
        if self.size == 1:
            return value
        number = torch.tensor([value])
        with _heard():
            dist.all_reduce(number, dist.ReduceOp.MIN)
        return int(number)

    def check_same(self, drawn: NDArray[Any]) -> None:
        """Refuses to go on where a rank has drawn other tokens than rank 0.

        Args:
            drawn: what this rank has drawn.

        Raises:
            HydragenError: it is not what rank 0 has drawn.
        """
        if self.size == 1:
            return
        own = zlib.crc32(np.ascontiguousarray(drawn).tobytes())
        if self.agree(lambda: own) != own:
            raise HydragenError(
                f"rank {self.rank} of {self.size} has drawn other tokens than rank 0: "
                "their sums differ; are the devices of one kind?"
            )


ALONE = Ranks()


def _from_first(message: bytes) -> bytes:
    """What rank 0 has to say, on all ranks: in one piece, if it is as short as most."""
    first = torch.zeros(_SHORT_BYTES, dtype=torch.uint8)
    length, content = first[:_LENGTH_BYTES].view(torch.int64), first[_LENGTH_BYTES:]
    if message:
        length[0] = len(message)
        given = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        content[: len(message)] = given[: content.numel()]
    with _heard():
        dist.broadcast(first, 0)
        n_bytes = int(length)
        if n_bytes > content.numel():
            content = given if message else torch.empty(n_bytes, dtype=torch.uint8)
            dist.broadcast(content, 0)
    return content[:n_bytes].numpy().tobytes()


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLostError(f"another rank does not answer ({type(error).__name__})") from error
