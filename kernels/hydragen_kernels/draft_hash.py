"""Where a table of drafts keeps what has followed which tokens: for the host and for devices alike.

A context is the last three tokens in one number, 21 bits each, the last one lowest; zeros before
the first. Each of the sources below has an entry of its own for what has followed: a tag of 31 bits
that tells contexts apart, and the token.

    key    context, cut to the source's tokens, + problem (or -1: any) x A + source x B
    hash   (key ^ key >> 31) x C, in 64 bits that wrap; the shift keeps the sign
    place  the hash's upper 20 bits;   tag  31 of the next
    entry  tag << 32 | token;   -1: none
"""

CONTEXT_TOKENS = 3
TOKEN_BITS = 21
CONTEXT_MASK = (1 << CONTEXT_TOKENS * TOKEN_BITS) - 1
ENTRY_BITS = 20
TAG_SHIFT, TAG_MASK = 64 - ENTRY_BITS - 32, (1 << 31) - 1
ANY_PROBLEM = -1

# The surest first: tokens of context, and whether of this problem only.
SOURCES = ((3, True), (2, True), (3, False), (1, True))
MASKS = tuple((1 << TOKEN_BITS * tokens) - 1 for tokens, _ in SOURCES)
IS_OWN = tuple(is_own for _, is_own in SOURCES)

# Odd numbers of 64 bits, as signed ones.
PROBLEM_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)
SOURCE_FACTOR = 0xC2B2AE3D27D4EB4F - (1 << 64)
HASH_FACTOR = 0xD6E8FEB86659FD93 - (1 << 64)
