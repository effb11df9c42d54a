"""Linear layers of one order of summation, by torch's own products where those have that order.

A library's kernel that does not split its sums takes them in by the same instructions as ours, in
ascending order: then it gives the same bits, and it is faster with many rows. Whether the kernel it
chooses does so is not documented, and it chooses by the number of rows. So it is tried, once for
each weight's shape and number of rows, on random inputs: on an H200 another order rounded 1 to 7 of
a thousand sums otherwise (NOTES.md), so that of `_COMPARED` not all are the same. Where all bits
are, and torch is faster, its product is taken from then on.

Numbers of rows are rounded up, with zeros, so that few are tried; a row's result does not depend on
the others.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from hydragen_kernels import ordered_matmul as ordered

_LEAST_ROWS = 64  # with fewer, torch splits sums, or is no faster
_LEAST_COLUMNS = 64  # as of a router
_COMPARED = 1 << 17  # sums that have to be the same, at least
_RUNS = 3  # of each product, when they are timed

_Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times weight transposed, plus bias; each row as if it were alone.

    Args:
        x: `[..., k]` fp16, bf16 or fp32.
        weight: `[columns, k]`, the same dtype, rows dense and aligned to 16 bytes.
        bias: `[columns]`, or None.

    Returns:
        `[..., columns]` in x's dtype, bit for bit as of `ordered_matmul`.

    Raises:
        ValueError: shapes, dtypes or strides do not fit.
    """
    ordered.check_product(x, weight, bias)
    rows = x.flatten(0, -2)
    n = rows.shape[0]
    most = padded(n)
    is_large = n >= _LEAST_ROWS and weight.shape[0] >= _LEAST_COLUMNS
    product = _found(most, weight, bias) if x.is_cuda and is_large else None
    if product is None:
        return ordered.ordered_matmul(x, weight, bias)
    given = functional.pad(rows, (0, 0, 0, most - n)) if most > n else rows
    return product(given, weight, bias)[:n].view(*x.shape[:-1], weight.shape[0])


def padded(rows: int) -> int:
    """The number of rows that a product is tried for: in steps of 64, or of less than a quarter."""
    step = 1 << max(6, (rows - 1).bit_length() - 3)
    return -(-rows // step) * step


def _found(rows: int, weight: Tensor, bias: Tensor | None) -> _Product | None:
    """Torch's product of so many rows if it is the same and faster; tried at its first use."""
    if weight.dtype == torch.float32:
        return None
    key = rows, *weight.shape, weight.stride(0), weight.dtype, weight.device, bias is not None
    known = _known()
    if key not in known:
        if torch.cuda.is_current_stream_capturing():
            return None  # nothing can be tried now, and ours gives the same
        known[key] = _try(rows, weight, bias)
    return known[key]


@cache
def _known() -> dict[tuple[object, ...], _Product | None]:
    """What has been tried, for all models of a process."""
    return {}


@torch.inference_mode()
def _try(rows: int, weight: Tensor, bias: Tensor | None) -> _Product | None:
    """Tries torch's product beside ours, on random rows of a fixed seed."""
    if weight.shape[1] <= ordered.CHUNK:
        theirs: _Product = torch.ops.aten.linear.default  # not to be taken by a function of ours
    elif bias is None:
        theirs = _chunked
    else:
        return None
    generator = torch.Generator(weight.device).manual_seed(rows)
    size = rows, weight.shape[1]
    for _ in range(-(-_COMPARED // (rows * weight.shape[0]))):
        x = torch.randn(size, generator=generator, device=weight.device).to(weight.dtype)
        if not torch.equal(theirs(x, weight, bias), ordered.ordered_matmul(x, weight, bias)):
            return None
    is_faster = _ms(theirs, x, weight, bias) < _ms(ordered.ordered_matmul, x, weight, bias)
    return theirs if is_faster else None


def _chunked(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Torch's products of chunks, each added to those before in fp32 as it is written."""
    size = ordered.CHUNK
    total = torch.mm(x[:, :size], weight[:, :size].T, out_dtype=torch.float32)
    for at in range(size, x.shape[1], size):
        own = x[:, at : at + size], weight[:, at : at + size].T
        total = torch.addmm(total, *own, out_dtype=torch.float32)
    return total.to(x.dtype)


def _ms(product: _Product, x: Tensor, weight: Tensor, bias: Tensor | None) -> float:
    """Milliseconds of a product, the best of some runs."""
    times: list[float] = []
    for _ in range(_RUNS):
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        product(x, weight, bias)
        done.record()
        done.synchronize()
        times.append(begun.elapsed_time(done))
    return min(times)
