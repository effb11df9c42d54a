"""Memory that is reserved at once and used bit by bit."""

import math
import mmap

import torch
from torch import Tensor


def zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU they take memory only where something is written.

    torch's own are written at once, and numpy asks for huge pages, of which little would be used.
    """
    n_bytes = math.prod(size) * dtype.itemsize
    if device.type != "cpu" or not n_bytes:
        return torch.zeros(size, dtype=dtype, device=device)
    reserved = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(reserved, dtype=torch.uint8, count=n_bytes).view(dtype).view(size)
