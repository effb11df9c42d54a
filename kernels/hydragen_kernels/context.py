"""Contexts of rows inside kernels, as `draft_hash.py` has them for the host."""

import triton
import triton.language as tl

from hydragen_kernels import draft_hash

SOURCES = tl.constexpr(len(draft_hash.SOURCES))
_TOKEN_BITS = tl.constexpr(draft_hash.TOKEN_BITS)
_OLDER_BITS = tl.constexpr(draft_hash.OLDER_BITS)
_OLDER_MASK = tl.constexpr(draft_hash.OLDER_MASK)
_CONTEXT_MASK = tl.constexpr(draft_hash.CONTEXT_MASK)
_ENTRY_SHIFT = tl.constexpr(64 - draft_hash.ENTRY_BITS)
_ENTRY_MASK = tl.constexpr((1 << draft_hash.ENTRY_BITS) - 1)
_TAG_SHIFT = tl.constexpr(draft_hash.TAG_SHIFT)
_SHORT_MASK = tl.constexpr(draft_hash.SHORT_MASK)
_HASH_FACTOR = tl.constexpr(draft_hash.HASH_FACTOR)


@triton.jit
def after(context, token):
    """The contexts that int64 tokens make of contexts."""
    older = ((context >> _TOKEN_BITS) << _OLDER_BITS) | (context & _OLDER_MASK)
    return ((older << _TOKEN_BITS) | token) & _CONTEXT_MASK


@triton.jit
def find(sources, problem, context):
    """`[rows, sources]` places of entries, and the tags they must have."""
    source = tl.arange(0, SOURCES)
    mask = tl.load(sources + source)
    factor = tl.load(sources + SOURCES + source)
    term = tl.load(sources + 2 * SOURCES + source)
    key = (context[:, None] & mask[None, :]) + problem[:, None] * factor[None, :] + term[None, :]
    key = (key ^ (key >> 31)) * _HASH_FACTOR
    return (key >> _ENTRY_SHIFT) & _ENTRY_MASK, (key >> _TAG_SHIFT) & _SHORT_MASK
