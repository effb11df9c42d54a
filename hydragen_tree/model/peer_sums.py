"""Sums of ranks whose GPUs read each other's memory: for small ones half of NCCL's time.

A layer's sums are of some hundred kilobytes. NCCL takes 17 us for those, most of it for agreeing to
begin; this takes 10. torch's symmetric memory has kernels that read the other ranks' numbers where
they are and add them up in the order of the ranks, so that all have the same to the last bit: in
one go, or, for larger ones, each rank a part, which the others then fetch.

Which way is the fastest, for which sizes, is measured once, when ranks meet; each way has to give
NCCL's sums there, to rounding (two numbers have one sum; more are added up in another order). NCCL
sums where no way does, and what is no bfloat16.

NVLink's multicast, which symmetric memory would set up where it can, must be switched off.
"""

import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributed as dist

NO_MULTICAST = "TORCH_SYMM_MEM_DISABLE_MULTICAST"

# Of the tensors that are tried; one of another size goes as the next larger one.
SIZES = tuple(1 << power for power in range(15, 25))
_REPEATS = 16
_RTOL, _ATOL = 0.02, 0.05  # of normal numbers, a few of them summed in bf16

Way = Callable[[Tensor], Tensor]


class Agreement(Protocol):
    """How ranks come to one answer; see `Ranks`."""

    def agree(self, decide: Callable[[], Any]) -> Any:
        """What rank 0 decides."""

    def least(self, value: int) -> int:
        """The least of all ranks' numbers."""


class PeerSums:
    """The fastest way for each size.

    Args:
        ways: by the size of `SIZES` in bytes; a size that is missing is left to NCCL.
    """

    def __init__(self, ways: Mapping[int, Way]) -> None:
        self._ways = [ways.get(size) for size in SIZES]

    def way(self, x: Tensor) -> Way | None:
        """How to sum up such tensors; None: by NCCL."""
        if x.dtype != torch.bfloat16 or not x.is_contiguous() or x.nbytes % 16 or x.nbytes == 0:
            return None
        place = max(0, (x.nbytes - 1).bit_length() - SIZES[0].bit_length() + 1)
        return self._ways[place] if place < len(SIZES) else None


def find_peer_sums(ranks: Agreement, device: torch.device) -> PeerSums | None:
    """Tries what there is beside NCCL; all ranks at once.

    Args:
        ranks: that have met; NCCL has made its connections.
        device: of this rank.

    Returns:
        None where nothing is faster, or the GPUs do not read each other's memory.
    """
    ways: dict[str, Way] = {}
    if ranks.least(int(may_read_peers(device))):
        try:
            ways = _ways(device)
        except Exception:  # of drivers and of what torch lacks: NCCL is always there
            ways = {}
    if not ranks.least(len(ways)):
        return None
    found = _fastest(ranks, device, ways)
    return PeerSums(found) if found else None


def may_read_peers(device: torch.device) -> bool:
    """Whether a device reads all others' memory, and multicast, which that would set up, is off."""
    others = [number for number in range(torch.cuda.device_count()) if number != device.index]
    return os.environ.get(NO_MULTICAST) == "1" and all(
        torch.cuda.can_device_access_peer(device, number) for number in others
    )


def _ways(device: torch.device) -> dict[str, Way]:
    """What symmetric memory has, over a buffer that all ranks have."""
    from torch.distributed import _symmetric_memory

    group = dist.group.WORLD
    assert group is not None
    buffer = _symmetric_memory.empty(SIZES[-1] // 2, dtype=torch.bfloat16, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how groups were named once
        _symmetric_memory.rendezvous(buffer, group)
    name, ops = group.group_name, torch.ops.symm_mem

    def in_one(x: Tensor) -> Tensor:
        shared = buffer[: x.numel()].view(x.shape)
        total: Tensor = ops.one_shot_all_reduce_copy(shared, x, "sum", name)
        return total

    def in_parts(x: Tensor) -> Tensor:
        shared = buffer[: x.numel()].view(x.shape)
        shared.copy_(x)
        total: Tensor = ops.two_shot_all_reduce_out(shared, "sum", name, torch.empty_like(x))
        return total

    return {"in one": in_one, "in parts": in_parts}


@torch.inference_mode()
def _fastest(ranks: Agreement, device: torch.device, ways: Mapping[str, Way]) -> dict[int, Way]:
    """The fastest way for each size for which one is faster than NCCL."""
    generator = torch.Generator(device).manual_seed(dist.get_rank())
    found = {}
    for size in SIZES:
        x = torch.randn(size // 2, generator=generator, device=device).bfloat16()
        expected = _by_nccl(x.clone())
        times = {"nccl": sum_ms(_by_nccl, x.clone())}
        for name, way in ways.items():
            if _is_right(ranks, way, x, expected):
                times[name] = sum_ms(way, x)
        best = ranks.agree(partial(min, times, key=times.__getitem__))
        if best in ways:
            found[size] = ways[best]
    return found


def _by_nccl(x: Tensor) -> Tensor:
    dist.all_reduce(x)
    return x


def _is_right(ranks: Agreement, way: Way, x: Tensor, expected: Tensor) -> bool:
    """Whether a way's sums are NCCL's to rounding on all ranks, and the same to the last bit."""
    try:
        found = way(x)
        is_near = torch.allclose(found.float(), expected.float(), rtol=_RTOL, atol=_ATOL)
        bits = zlib.crc32(found.view(torch.int16).cpu().numpy().tobytes())
    except RuntimeError:
        is_near, bits = False, 0
    is_same = ranks.agree(lambda: bits) == bits
    return bool(ranks.least(int(is_near and is_same)))


def sum_ms(way: Way, x: Tensor) -> float:
    """Milliseconds of a sum, the mean of some in a captured graph, as steps have them.

    Args:
        way: on all ranks at once, in inference mode.
        x: on a GPU.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(x.device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        way(x)
        graph.capture_begin(capture_error_mode="thread_local")
        for _ in range(_REPEATS):
            way(x)
        graph.capture_end()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.current_stream().wait_stream(stream)
    graph.replay()
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / _REPEATS
