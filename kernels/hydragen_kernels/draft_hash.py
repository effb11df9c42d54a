"""Where a table of drafts keeps what has followed which tokens: for the host and for devices alike.

A context is the last seven tokens in one number: the last one in the lowest 21 bits, and above it
7 bits of each one before, so that some that differ count as the same; zeros before the first. Each
of the sources below has an entry of its own for what has followed: a tag that tells contexts apart,
and the token.

    key    context, cut to the source's tokens, + problem (or -1: any) x A + source x B
    hash   (key ^ key >> 31) x C, in 64 bits that wrap; the shift keeps the sign
    place  the hash's upper 20 bits;   tag  31 of the next
    entry  of the host    tag << 32 | token
           of a device    step << 42 | lower 21 bits of the tag << 21 | token
           -1: none

A device's entry begins with the number of its step: many write at a time, and the greatest stays.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CONTEXT_TOKENS = 7
TOKEN_BITS, OLDER_BITS = 21, 7
OLDER_MASK = (1 << OLDER_BITS) - 1
CONTEXT_MASK = (1 << TOKEN_BITS + (CONTEXT_TOKENS - 1) * OLDER_BITS) - 1
ENTRY_BITS = 20
TAG_SHIFT, TAG_MASK = 64 - ENTRY_BITS - 32, (1 << 31) - 1
SHORT_MASK = (1 << TOKEN_BITS) - 1  # of a device's tag, and of a token
STEP_SHIFT = 2 * TOKEN_BITS
MOST_STEPS = 1 << (63 - STEP_SHIFT)  # that a device's entries can tell apart
ANY_PROBLEM = -1

# The surest first: tokens of context, and whether of this problem only.
SOURCES = (
    *((7, True), (5, True), (4, True), (3, True)),
    *((5, False), (2, True), (3, False), (1, True)),
)
MASKS = tuple((1 << TOKEN_BITS + (tokens - 1) * OLDER_BITS) - 1 for tokens, _ in SOURCES)
IS_OWN = tuple(is_own for _, is_own in SOURCES)

# Odd numbers of 64 bits, as signed ones.
PROBLEM_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)
SOURCE_FACTOR = 0xC2B2AE3D27D4EB4F - (1 << 64)
HASH_FACTOR = 0xD6E8FEB86659FD93 - (1 << 64)

Number = TypeVar("Number", int, NDArray[np.int64], Tensor)

_OF_SOURCES = np.arange(len(SOURCES)) * np.array([SOURCE_FACTOR])


def after(context: Number, token: Number) -> Number:
    """The context that a token makes of one: numbers, or int64 arrays or tensors of them."""
    older = context >> TOKEN_BITS << OLDER_BITS | context & OLDER_MASK
    return (older << TOKEN_BITS | token) & CONTEXT_MASK


def find(
    problems: NDArray[np.integer], contexts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`[n, sources]` places of entries, and the tags they must have."""
    owners = np.where(IS_OWN, problems.astype(np.int64)[:, None], ANY_PROBLEM)
    keys: NDArray[np.int64] = (contexts[:, None] & np.array(MASKS)) + owners * PROBLEM_FACTOR
    keys += _OF_SOURCES
    keys = (keys ^ (keys >> 31)) * HASH_FACTOR
    return (keys >> (64 - ENTRY_BITS)) & ((1 << ENTRY_BITS) - 1), (keys >> TAG_SHIFT) & TAG_MASK
