"""How code is timed here: on a GPU CUDA graph replays, L2 flushed before each; the median of many.

Without a GPU the same calls run on the CPU, kernels under Triton's interpreter: so the benchmarks
are tested. Such times say nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hydragen_kernels.inputs import FP8
from hydragen_tree.model.fp8_linear import Fp8Linear, quantise

_FLUSH_BYTES = 1 << 28  # several times any L2
_REPEATS = 15
_PRODUCTS = 600  # about a second of them


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reaches at best.

    Attributes:
        device: its name.
        copy_tb_s: device-to-device copy, bytes read and written, TB/s.
        matmul_tflops: bf16 matrix product of random 8192 x 8192 matrices, TFLOP/s, in a burst.
        sustained_tflops: the same, one after the other without a pause: the power limit counts.
        fp8_ratio: how many times as fast such a product is in fp8; 1 where it was not measured.
    """

    device: str
    copy_tb_s: float
    matmul_tflops: float
    sustained_tflops: float
    fp8_ratio: float = 1.0

    def least_us(self, n_bytes: float, flops: float) -> float:
        """The time in which neither bytes nor products could be done faster, in microseconds."""
        return max(n_bytes / self.copy_tb_s, flops / self.matmul_tflops) / 1e6

    def sustained(self) -> "Ceilings":
        """The ceilings of work that goes on and on."""
        return replace(self, matmul_tflops=self.sustained_tflops)

    def __str__(self) -> str:
        """As the benchmarks print it."""
        return (
            f"{self.device}: copy {self.copy_tb_s:.2f} TB/s, bf16 product "
            f"{self.matmul_tflops:.0f} TFLOP/s, {self.sustained_tflops:.0f} sustained"
            + (f", in fp8 {self.fp8_ratio:.2f} times as fast" if self.fp8_ratio != 1.0 else "")
        )


def bench_device() -> torch.device:
    """The current GPU; without one, the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bench_dtype() -> torch.dtype:
    """bf16; without a GPU float32, since the interpreter cannot multiply bf16."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def synchronize() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """The time that some work takes, the device's included."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def median_us(step: Callable[[], object], repeats: int = _REPEATS) -> float:
    """The median time of one call, in microseconds; on a GPU it is captured in a CUDA graph."""
    if not torch.cuda.is_available():
        times = [seconds(step) for _ in range(2 + repeats)]
        return 1e6 * sorted(times[2:])[repeats // 2]
    return _median_graph_us(step, repeats)


def _median_graph_us(step: Callable[[], object], repeats: int) -> float:
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    times = []
    for _ in range(3 + repeats):
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return sorted(float(start.elapsed_time(end)) * 1e3 for start, end in times[3:])[repeats // 2]


def measure_ceilings(in_fp8: bool = False) -> Ceilings:
    """Measures copy bandwidth and matrix product rate of the current GPU, on request in fp8 too."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    copy_us = median_us(lambda: torch.neg(source, out=target))  # a kernel, not the copy engine
    left, right = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    product_us = median_us(lambda: torch.mm(left, right))
    seconds(lambda: _multiply(left, right))  # the clock falls within the first second
    sustained_s = seconds(lambda: _multiply(left, right)) / _PRODUCTS
    return Ceilings(
        torch.cuda.get_device_name(),
        2 * source.nbytes / copy_us / 1e6,
        2 * 8192**3 / product_us / 1e6,
        2 * 8192**3 / sustained_s / 1e12,
        product_us / _fp8_product_us(left, right) if in_fp8 else 1.0,
    )


def _fp8_product_us(left: Tensor, right: Tensor) -> float:
    layer = Fp8Linear(right.to(FP8), right.new_ones(right.shape[0]), dtype=right.dtype)
    quantised = quantise(left, left.shape[1])
    return median_us(lambda: layer.product(quantised))


def _multiply(left: Tensor, right: Tensor) -> None:
    product = torch.empty_like(left)
    for _ in range(_PRODUCTS):
        torch.mm(left, right, out=product)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, by the Euclidean norm; NaN if anything is not finite."""
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())
