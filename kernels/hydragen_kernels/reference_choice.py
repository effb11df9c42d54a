"""Choice in numpy and torch: random words, filters and draw that `choose.py` is tested against.

The definition is in the docstring of `choose.py`; here each filter is written out by sorting.

Source: Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_ROUNDS = 10


class Drawn(NamedTuple):
    """A token for each sample, with its log-probabilities before and after the filters."""

    tokens: Tensor
    raw_logprobs: Tensor
    sampled_logprobs: Tensor


def philox4x32(
    key: npt.NDArray[np.uint32], counter: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Ten rounds of Philox4x32: four random words for each key and counter.

    Args:
        key: `[..., 2]` uint32, low word first.
        counter: `[..., 4]` uint32, low word first.

    Returns:
        `[..., 4]` uint32.
    """
    low, high = (key[..., i].astype(np.uint64) for i in range(2))
    a, b, c, d = (counter[..., i].astype(np.uint64) for i in range(4))
    shift = np.uint64(32)
    for _ in range(_ROUNDS):
        from_a, from_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # 32 x 32 bits: no overflow
        a, b = (from_c >> shift) ^ b ^ low, from_c & _LOW
        c, d = (from_a >> shift) ^ d ^ high, from_a & _LOW
        low = (low + np.uint64(_WEYL[0])) & _LOW
        high = (high + np.uint64(_WEYL[1])) & _LOW
    return np.stack(np.broadcast_arrays(a, b, c, d), axis=-1).astype(np.uint32)


def uniforms(
    stream_keys: npt.NDArray[np.int64], positions: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """One number in (0, 1) for each sample: `(word + 0.5) / 2^32` of its stream at its position."""
    bits = np.asarray(stream_keys).astype(np.int64).view(np.uint64)
    key = np.stack([bits & _LOW, bits >> np.uint64(32)], axis=-1).astype(np.uint32)
    counter = np.zeros((len(key), 4), dtype=np.uint32)
    counter[:, 0] = np.asarray(positions).astype(np.uint32)
    return (philox4x32(key, counter)[:, 0].astype(np.float64) + 0.5) * 2.0**-32


def kept(
    logits: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Tensor, Tensor]:
    """Weights of one row's tokens and which of them the filters keep.

    Args:
        logits: `[vocab]` fp32.
        temperature: positive.
        top_k: 0 keeps all.
        top_p: in (0, 1].
        min_p: in [0, 1].

    Returns:
        `(weights, is_kept)`: `[vocab]` fp64 and bool.
    """
    peak = logits.max()
    weights = torch.exp(((logits - peak) / temperature).double())
    is_kept = weights > 0.0
    ordered, _ = logits.sort(descending=True)
    if 0 < top_k < len(logits):
        is_kept &= logits >= ordered[top_k - 1]
    if top_p < 1.0:
        mass = torch.where(is_kept, weights, 0.0)
        by_logit = mass[logits.argsort(descending=True)].cumsum(0)
        greater = torch.searchsorted(-ordered, -logits, right=False)  # how many are greater
        mass_greater = torch.cat([by_logit.new_zeros(1), by_logit])[greater]
        is_kept &= mass_greater < top_p * mass.sum()
    if min_p > 0.0:
        is_kept &= logits >= peak + temperature * float(np.log(min_p))
    return weights, is_kept


def choose(
    logits: Tensor,
    sample_rows: Tensor,
    stream_keys: Tensor,
    positions: Tensor,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Drawn:
    """Draw one token for each sample, arguments as `hydragen_kernels.choose.choose` takes them."""
    logits = logits.float()
    numbers = uniforms(stream_keys.numpy(), positions.numpy())
    raw = torch.log_softmax(logits.double(), dim=-1)
    tokens = torch.empty(len(sample_rows), dtype=torch.int32)
    sampled = torch.zeros(len(sample_rows))
    for sample, row in enumerate(sample_rows.tolist()):
        if temperature == 0.0:
            tokens[sample] = int(logits[row].argmax())
            continue
        weights, is_kept = kept(
            logits[row], temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
        )
        upto = torch.where(is_kept, weights, 0.0).cumsum(0)
        token = int((upto > numbers[sample] * upto[-1]).int().argmax())
        tokens[sample] = token
        sampled[sample] = torch.log(weights[token] / upto[-1])
    raw_logprobs = raw[sample_rows.long(), tokens.long()].float()
    return Drawn(tokens, raw_logprobs, sampled)
