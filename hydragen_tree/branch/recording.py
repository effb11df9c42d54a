"""Work of a device recorded as CUDA graphs, which share their memory."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

_SCARCE = 16  # of all memory, one part of so many that is free


class Recorder:
    """Records work as graphs.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.begin_anew()

    def begin_anew(self) -> None:
        """Other memory for what follows: a pool that no graph uses any more is of no use again."""
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records work, without doing it.

        Args:
            work: launches kernels that are compiled, and waits for nothing.

        Returns:
            What does it, in the current stream.
        """
        graph, stream = torch.cuda.CUDAGraph(), _stream(self._device)
        free, total = torch.cuda.mem_get_info()
        if free * _SCARCE < total:
            torch.cuda.empty_cache()  # waits for all that runs, so not as a matter of course
        stream.wait_stream(torch.cuda.current_stream())
        with _nothing_let_go(), torch.cuda.stream(stream):
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph.replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """A device's stream for captures; torch's own is of the device a process first captured on."""
    return torch.cuda.Stream(device)


@contextmanager
def _nothing_let_go() -> Iterator[None]:
    """No garbage is collected: a graph of an earlier run that is freed meanwhile ends a capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
