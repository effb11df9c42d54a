"""Triton's interpreter, without work that it repeats for each operation, or whose result it drops.

Kernels on small arrays spend most of their time in it. What they compute stays as it is.

- It puts its own functions into Triton's language at each launch, and again wherever a kernel
  calls a function, `tl.sum` included: here once for each module of kernels, for good.
- It computes sums and products of integers again in 64 bits, and compares, for an assertion that it
  makes only in a debug mode: here not outside of that mode.
- It makes each type of a block and each tensor's shape anew: here once for each shape.
"""

import dataclasses
import math
from functools import cache
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter

_init_block, _find_np_dtype = tl.block_type.__init__, interpreter._get_np_dtype


def patch_once() -> None:
    """Has it changed; to be called before the first launch."""
    if not hasattr(interpreter, "_LangPatchScope"):
        return  # another Triton, which does this in its own way
    _patch_language_once_a_module()
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    tl.block_type.__init__ = _init_block_type
    tl.tensor.__init__ = _init_tensor
    interpreter._get_np_dtype = _np_dtype


def _patch_language_once_a_module() -> None:
    patch, patched = interpreter._patch_lang, set[str]()

    def patch_unless_done(fn: triton.KernelInterface) -> interpreter._LangPatchScope:
        module = fn.__globals__["__name__"]
        if module not in patched:
            patched.add(module)
            patch(fn)
        return interpreter._LangPatchScope()  # with nothing to restore

    interpreter._patch_lang = patch_unless_done


@cache
def _block_fields(shape: tuple[int, ...]) -> tuple[Any, int]:
    """`shape` and `numel` of a block's type."""
    block = object.__new__(tl.block_type)
    _init_block(block, tl.int32, list(shape))
    return block.shape, block.numel


@cache
def _tensor_fields(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """`shape` and `numel` of a tensor."""
    return tl.tuple([tl.constexpr(size) for size in shape]), tl.constexpr(math.prod(shape))


def _init_block_type(self: tl.block_type, element_ty: tl.dtype, shape: Any) -> None:
    sizes = tuple(size.value if isinstance(size, tl.constexpr) else size for size in shape)
    self.element_ty = element_ty
    self.shape, self.numel = _block_fields(sizes)
    self.name = f"<{sizes}, {element_ty}>"


def _init_tensor(self: tl.tensor, handle: interpreter.TensorHandle, type: tl.dtype) -> None:
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.shape, self.numel = _tensor_fields(tuple(type.shape) if type.is_block() else ())


@cache
def _scalar_np_dtype(dtype: tl.dtype) -> Any:
    return _find_np_dtype(dtype)


def _np_dtype(dtype: tl.dtype) -> Any:
    scalar = dtype.scalar
    return np.dtype(np.uint64) if scalar.is_ptr() else _scalar_np_dtype(scalar)
