"""Types of numbers: of weights and activations, of keys and values, of linear layers."""

import torch

from hydragen_kernels.inputs import FP8, dtype_name
from hydragen_kernels.narrow_product import why_unavailable
from hydragen_tree.errors import InputError
from hydragen_tree.shape import KVShape

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NARROW = {"int8": torch.int8, "bfloat16": torch.bfloat16}
_FP8_DEVICES = ("cpu", "cuda")
_FP8_STEP = 16  # numbers of a head on a GPU, whose kernels read 16 bytes at a time


def asked_dtype(dtype: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that a user names, of weights and activations.

    Args:
        dtype: a name, or `auto`: float32 on a CPU, else as stored.
        stored: as the weights are.
        device: where they will be.

    Raises:
        InputError: there is no such type.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else stored
    if dtype not in _DTYPES:
        raise InputError(f"expected auto, {', '.join(_DTYPES)}", setting="dtype", value=dtype)
    return _DTYPES[dtype]


def linear_dtype(given: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that a user names, of linear layers.

    Args:
        given: `auto`, `fp8`, or on a CPU `int8` or `bfloat16`.
        dtype: that of the rest.
        device: where they will be.

    Raises:
        InputError: none of them, or one that the device does not multiply.
    """
    if given not in _NARROW:
        return auto_or_fp8("weights", given, dtype, device, *_NARROW)
    kind = _NARROW[given]
    if device.type != "cpu":
        raise InputError(f"not on {device}; expected cpu", setting="weights", value=given)
    if dtype == torch.float32 and (why := why_unavailable(kind)):
        raise InputError(
            f"cannot be multiplied here: {why}; use auto", setting="weights", value=given
        )
    if dtype != torch.float32 and dtype != kind:
        raise InputError(
            f"only with a dtype of float32, not of {dtype_name(dtype)}; leave that out",
            setting="weights",
            value=given,
        )
    return kind


def auto_or_fp8(
    setting: str, given: str, dtype: torch.dtype, device: torch.device, *others: str
) -> torch.dtype:
    """The type that a user names, of what may have 8 bits.

    Args:
        setting: what it is asked for.
        given: `auto` or `fp8`.
        dtype: that of the rest.
        device: where it will be.
        others: names that would have been right too.

    Raises:
        InputError: neither of the two, or 8 bits on a device that has none.
    """
    if given not in ("auto", "fp8"):
        expected = ", ".join(("auto", *others)) + " or fp8"
        raise InputError(f"expected {expected}", setting=setting, value=given)
    if given == "auto":
        return dtype
    if device.type not in _FP8_DEVICES:
        expected = " or ".join(_FP8_DEVICES)
        raise InputError(f"not on {device}; expected {expected}", setting=setting, value=given)
    return FP8


def refuse_fp8_heads(device: torch.device, shape: KVShape) -> None:
    """Refuses keys and values of 8 bits where a device cannot read them.

    Raises:
        InputError: heads of other sizes than it reads.
    """
    if device.type == "cuda" and shape.head_dim % _FP8_STEP:
        raise InputError(
            f"the model has heads of {shape.head_dim} numbers, and a GPU reads multiples of "
            f"{_FP8_STEP}; use auto",
            setting="kv_dtype",
            value="fp8",
        )
