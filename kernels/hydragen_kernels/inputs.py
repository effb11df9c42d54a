"""Checks the launchers share: a wrong call fails with a message before a kernel reads memory."""

import numpy as np
import torch
from numpy.typing import NDArray

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
FP8 = torch.float8_e4m3fn  # what keys and values may be instead


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16`, `float8_e4m3fn`."""
    return str(dtype).removeprefix("torch.")


def check_attention_inputs(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> int:
    """Check queries against the arena; return the query heads that share a kv head.

    Args:
        queries: `[tokens, q_heads, head_dim]`.
        keys: `[kv_heads, slots, head_dim]`.
        values: `[kv_heads, slots, head_dim]`.
        scale: factor of the scores.
        softcap: bound of the scores, or None.

    Raises:
        ValueError: they do not fit together.
    """
    if queries.ndim != 3 or keys.ndim != 3 or keys.shape != values.shape:
        raise ValueError(
            "expected queries [tokens, q_heads, head_dim] and keys, values [kv_heads, slots, "
            f"head_dim], got {list(queries.shape)}, {list(keys.shape)}, {list(values.shape)}"
        )
    if (
        queries.dtype not in FLOATS
        or keys.dtype not in (queries.dtype, FP8)
        or values.dtype != keys.dtype
    ):
        raise ValueError(
            "expected queries of fp16, bf16 or fp32, keys and values of the same or of fp8, got "
            f"{queries.dtype}, {keys.dtype}, {values.dtype}"
        )
    if keys.shape[2] != queries.shape[2]:
        raise ValueError(f"head_dim: queries have {queries.shape[2]}, keys {keys.shape[2]}")
    if keys.shape[0] < 1 or queries.shape[1] % keys.shape[0]:
        raise ValueError(
            f"q_heads: expected a multiple of kv_heads {keys.shape[0]}, got {queries.shape[1]}"
        )
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        check_last_contiguous(name, tensor)
    if not scale > 0.0:
        raise ValueError(f"scale: expected a positive number, got {scale}")
    if softcap is not None and not softcap > 0.0:
        raise ValueError(f"softcap: expected a positive number or None, got {softcap}")
    return queries.shape[1] // keys.shape[0]


def check_partials(
    partial_out: torch.Tensor, partial_lse: torch.Tensor, tokens: int, q_heads: int, head_dim: int
) -> None:
    """Check partial buffers against the rows they belong to.

    Raises:
        ValueError: a shape, dtype or stride is wrong.
    """
    slots = partial_out.shape[0]
    expected = [slots, tokens, q_heads, head_dim]
    if list(partial_out.shape) != expected or list(partial_lse.shape) != expected[:3]:
        raise ValueError(
            f"expected partials {expected} and {expected[:3]}, got {list(partial_out.shape)} and "
            f"{list(partial_lse.shape)}"
        )
    if partial_out.dtype != torch.float32 or partial_lse.dtype != torch.float32:
        raise ValueError(f"expected fp32 partials, got {partial_out.dtype} and {partial_lse.dtype}")
    check_last_contiguous("partial_out", partial_out)
    check_last_contiguous("partial_lse", partial_lse)


def check_last_contiguous(name: str, tensor: torch.Tensor) -> None:
    """Check that the elements of the last dimension are neighbours.

    Raises:
        ValueError: they are not.
    """
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        raise ValueError(f"{name}: expected a contiguous last dimension, got {tensor.stride()}")


def last_contiguous(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, neighbours in the last dimension: a copy where they were not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def check_int32(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Check an index tensor.

    Raises:
        ValueError: it is not contiguous int32 of that shape.
    """
    check_contiguous(name, tensor, torch.int32, shape)


def check_pages(
    page_table: torch.Tensor, page_tokens: int, rows: int, splits: int, least_tokens: int = 1
) -> None:
    """Check where tails lie, and into how many programs each is split.

    Raises:
        ValueError: it is no int32 table of so many rows, pages are not of a power of two of tokens,
            that many at least, or there is no program.
    """
    check_last_contiguous("page_table", page_table)
    if page_table.dtype != torch.int32 or page_table.shape[0] != rows:
        raise ValueError(f"page_table: expected int32 [{rows}, max_pages], got {page_table.dtype}")
    if page_tokens < least_tokens or page_tokens & (page_tokens - 1):
        least = f", at least {least_tokens}" if least_tokens > 1 else ""
        raise ValueError(f"page_tokens: expected a power of two{least}, got {page_tokens}")
    if splits < 1:
        raise ValueError(f"splits: expected at least 1, got {splits}")


def check_contiguous(
    name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """Check a tensor that a kernel reads or writes without strides.

    Raises:
        ValueError: it is not contiguous, of that dtype and shape.
    """
    if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
        expected = f"{str(dtype).removeprefix('torch.')} {list(shape)}"
        raise ValueError(
            f"{name}: expected contiguous {expected}, got {tensor.dtype} {list(tensor.shape)}"
        )


def movable(x: torch.Tensor) -> torch.Tensor:
    """The same memory in a type that torch can index everywhere: fp8 as bytes."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


def to_device(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """An array on a device; a GPU takes it behind what it has been given, and is not waited for."""
    source = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        source = source.pin_memory()
    return source.to(device, non_blocking=True)
