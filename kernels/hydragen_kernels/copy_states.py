"""Copy running states from places to places, as many as the device says.

    buffer[target[i]] = buffer[source[i]]    for i < count

A row that forks off takes a copy of all that its layers keep of a sequence, megabytes. How many do,
only the device knows, so programs share out the blocks of as many as there are. Memory-bound: reads
and writes each byte once.
"""

import torch
import triton
import triton.language as tl

from hydragen_kernels.inputs import check_contiguous

_BLOCK = 4096  # words that a program copies at a time
_PROGRAMS = 1024  # that share out blocks


@triton.jit
def _states_kernel(buffer, source, target, count, words, BLOCK: tl.constexpr):
    blocks = tl.cdiv(words, BLOCK)
    for work in range(tl.program_id(0), (tl.load(count) * blocks).to(tl.int32), tl.num_programs(0)):
        state = work // blocks
        word = (work % blocks) * BLOCK + tl.arange(0, BLOCK)
        here = buffer + tl.load(source + state) * words + word
        there = buffer + tl.load(target + state) * words + word
        tl.store(there, tl.load(here, mask=word < words), mask=word < words)


def copy_states(
    buffer: torch.Tensor, source: torch.Tensor, target: torch.Tensor, count: torch.Tensor
) -> None:
    """Copy states within their buffer.

    Args:
        buffer: `[places, words]` int32, written.
        source: `[most]` int64, the place each is copied from.
        target: `[most]` int64, the place each is copied to; no two alike, none of them a source.
        count: `[1]` int64, how many.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    check_contiguous("buffer", buffer, torch.int32, tuple(buffer.shape))
    if buffer.ndim != 2:
        raise ValueError(f"buffer: expected [places, words], got {list(buffer.shape)}")
    check_contiguous("source", source, torch.int64, (source.numel(),))
    check_contiguous("target", target, torch.int64, (source.numel(),))
    check_contiguous("count", count, torch.int64, (1,))
    words = buffer.shape[1]
    blocks = max(1, source.numel() * triton.cdiv(words, _BLOCK))
    _states_kernel[(min(_PROGRAMS, blocks),)](
        buffer, source, target, count, words, BLOCK=_BLOCK, num_warps=4
    )
