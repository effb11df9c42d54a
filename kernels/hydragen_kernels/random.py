"""Counter-based random numbers: the same on every device, for any batch and order.

Source: Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
import numpy.typing as npt

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_ROUNDS = 10


def philox4x32(
    keys: npt.NDArray[np.uint64], counter: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Ten rounds of Philox4x32: four random words for each key and counter.

    Args:
        keys: `[n]` uint64; the low half is the first key word.
        counter: `[n, 4]` uint32, low word first.

    Returns:
        `[n, 4]` uint32.
    """
    shift = np.uint64(32)
    low, high = keys & _LOW, keys >> shift
    a, b, c, d = (counter[:, i].astype(np.uint64) for i in range(4))
    for _ in range(_ROUNDS):
        from_a, from_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # 32 x 32 bits: no overflow
        a, b = (from_c >> shift) ^ b ^ low, from_c & _LOW
        c, d = (from_a >> shift) ^ d ^ high, from_a & _LOW
        low, high = (low + _WEYL[0]) & _LOW, (high + _WEYL[1]) & _LOW
    return np.stack([a, b, c, d], axis=1).astype(np.uint32)


def uniforms(
    keys: npt.NDArray[np.uint64], positions: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """One number in (0, 1) for each sample: `(word + 0.5) / 2^32` of its stream at its position.

    Args:
        keys: `[n]` uint64 stream keys.
        positions: `[n]` index of the token in its sample, below 2^32.
    """
    counter = np.zeros((keys.size, 4), np.uint32)
    counter[:, 0] = positions
    return (philox4x32(keys, counter)[:, 0].astype(np.float64) + 0.5) * 2.0**-32
