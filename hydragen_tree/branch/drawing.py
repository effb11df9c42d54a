"""Logits to tokens: filters in transformers' order, one random number per sample and position.

Several samples may share a row of logits: the row's distribution is computed once, then every
sample inverts its cumulative sum at its own random number. The number depends only on the
sample's stream key and the token's position, whatever shares its batch. A kernel does it on a GPU,
C on a CPU, and where neither is there, torch.
"""

import hashlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels import native_choose
from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.random import uniforms
from hydragen_tree.errors import ModelError, Setting
from hydragen_tree.settings import SamplingSettings

_CHUNK = 1 << 22  # probabilities held at a time
_SORTED = 64, 1024  # probabilities of a row that are sorted for top-p, before all are
_BLOCK = 512  # probabilities whose sum is found first


def stream_key(seed: int, task_id: str, variant: int, sample_index: int) -> int:
    """The 64-bit key of a sample's random numbers."""
    name = f"{seed}\0{task_id}\0{variant}\0{sample_index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def stream_keys(
    seed: int, task_id: str, variant: int, indices: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """`stream_key` of many samples of one prompt.

    Args:
        seed: of the run.
        task_id: of the prompt.
        variant: of the prompt.
        indices: `[samples]` sample indices.

    Returns:
        `[samples]` uint64.
    """
    common = hashlib.blake2b(f"{seed}\0{task_id}\0{variant}\0".encode(), digest_size=8)
    keys = np.empty(indices.size, np.uint64)
    for place, index in enumerate(indices.tolist()):
        key = common.copy()
        key.update(b"%d" % index)
        keys[place] = int.from_bytes(key.digest(), "little")
    return keys


def filtered(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """The distribution tokens are drawn from: temperature, top-k, top-p, min-p, in this order.

    Args:
        logits: `[rows, vocabulary]`, any float dtype.
        settings: `temperature` must be positive.

    Returns:
        `[rows, vocabulary]` probabilities, float32; 0 where a token was filtered out.

    Source: the logits processors of transformers, whose order and ties these are, but for top-p:
    it keeps equal probabilities together.
    """
    scores = _scores(logits.float(), settings.temperature)
    if 0 < settings.top_k < scores.shape[-1]:
        kth = torch.topk(scores, settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if settings.top_p < 1.0:
        shares = scores.softmax(-1)
        cut = shares < _least_kept(shares, settings.top_p)
        scores = scores.masked_fill(cut, -torch.inf)
    probabilities = scores.softmax(-1)
    if settings.min_p > 0.0:
        top = probabilities.amax(-1, keepdim=True)
        scores = scores.masked_fill(probabilities < settings.min_p * top, -torch.inf)
        probabilities = scores.softmax(-1)
    return probabilities


def _least_kept(shares: Tensor, top_p: float) -> Tensor:
    """The least probability that top-p keeps: the greater ones have less than `top_p` in all.

    Mostly some tens of tokens have that much, so few are sorted at first, and more of those rows
    only where they do not do. Equal probabilities are kept together.

    Args:
        shares: `[rows, vocabulary]` probabilities.
        top_p: below 1.

    Returns:
        `[rows, 1]`.
    """
    least = shares.new_empty(shares.shape[0], 1)
    left = torch.arange(shares.shape[0], device=shares.device)
    for most in (*_SORTED, shares.shape[1]):
        count = min(most, shares.shape[1])
        falling = shares[left].topk(count).values
        above = falling.cumsum(-1) - falling
        last = (above < top_p).sum(-1, keepdim=True).clamp(min=1) - 1
        is_found = (last[:, 0] < count - 1) | (count == shares.shape[1])
        least[left[is_found]] = falling.gather(1, last)[is_found]
        left = left[~is_found]
        if not left.numel():
            break
    return least


def _scores(logits: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature; in rows where that overflows, with their peak at 0."""
    scores = logits / temperature
    too_large = scores.amax(-1, keepdim=True) == torch.inf
    if too_large.any():
        from_peak = (logits - logits.amax(-1, keepdim=True)) / temperature
        scores = torch.where(too_large, from_peak, scores)
    return scores


def draw(
    logits: Tensor,
    rows: Int32,
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    settings: SamplingSettings,
) -> Drawn[NDArray[Any]]:
    """Draws one token for every sample from its row's distribution.

    The token is the first, in vocabulary order, whose cumulative probability exceeds the sample's
    random number (times the total, so that rounding never runs past the end).

    Args:
        logits: `[rows, vocabulary]`.
        rows: `[samples]`, the row of each sample, ascending.
        keys: `[samples]` uint64 stream keys.
        positions: `[samples]`, index of the token in its sample, from 0.
        settings: temperature 0 takes the most probable token.

    Raises:
        ModelError: a row that is drawn from holds NaN or +inf, or nothing but -inf.
    """
    if logits.is_cuda and find_spec("triton"):
        return _draw_fused(logits, rows, keys, positions, settings)
    at = uniforms(keys, positions)
    has_c = logits.device.type == "cpu" and native_choose.why_unavailable() is None
    draw_chunk = _draw_native if has_c else _draw_chunk
    step = max(1, _CHUNK // logits.shape[1])
    parts = []
    for first in range(0, logits.shape[0], step):
        begin, end = np.searchsorted(rows, [first, first + step])
        if end > begin:
            chunk, own = logits[first : first + step], rows[begin:end].astype(np.int64) - first
            parts.append(draw_chunk(chunk, own, at[begin:end], settings))
    return Drawn(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def check_logprobs(logprobs: NDArray[np.floating]) -> None:
    """Refuses tokens that were drawn from a row with NaN or +inf in it, or with nothing but -inf.

    The kernel gives those the log-probability NaN, so that nothing on the device need wait for a
    check: whoever brings its results to the host asks here before they become samples.

    Args:
        logprobs: any shape, of drawn tokens under the model's own distribution.

    Raises:
        ModelError: one of them is NaN.
    """
    if np.isnan(logprobs).any():
        raise ModelError(
            "the model's logits hold NaN or +inf, or nothing but -inf: there is no token to draw; "
            "its weights may be broken, or too large for this type: try ",
            Setting("dtype"),
            " float32",
        )


def _draw_fused(
    logits: Tensor,
    rows: Int32,
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    settings: SamplingSettings,
) -> Drawn[NDArray[Any]]:
    """`draw` by the GPU's kernel: the same random numbers, no sorting."""
    from hydragen_kernels.choose import choose

    def move(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(logits.device, non_blocking=True)

    choice = choose(
        logits,
        move(rows.astype(np.int32)),
        move(keys.view(np.int64)),
        move(positions.astype(np.int32)),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )
    probabilities = torch.stack([choice.logprobs, choice.sampled_logprobs]).double().cpu()
    check_logprobs(probabilities[0].numpy())
    return Drawn(choice.tokens.long().cpu().numpy(), *probabilities.numpy())


def _draw_native(
    logits: Tensor, rows: NDArray[np.int64], at: NDArray[np.float64], settings: SamplingSettings
) -> Drawn[NDArray[Any]]:
    """`draw` in C, where no row's result depends on another or on how many threads there are."""
    drawn = native_choose.choose(
        logits,
        rows,
        at,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )
    check_logprobs(drawn.logprobs)
    return drawn


def _draw_chunk(
    logits: Tensor, rows: NDArray[np.int64], at: NDArray[np.float64], settings: SamplingSettings
) -> Drawn[NDArray[Any]]:
    """`draw` by torch."""
    raw, own = logits.float(), torch.from_numpy(rows).to(logits.device)
    raw_lse = raw.logsumexp(-1)
    own_lse = raw_lse[own].double().cpu()
    check_logprobs((own_lse - own_lse).numpy())  # NaN where it is not finite
    if settings.temperature == 0.0:
        tokens = raw.argmax(-1)[own]
        sampled = torch.zeros_like(raw_lse[own])
    else:
        probabilities = filtered(raw, settings)
        found = _search(probabilities.cpu().numpy(), rows, at)
        tokens = torch.from_numpy(found).to(logits.device)
        sampled = probabilities[own, tokens].log()
    logprobs = raw[own, tokens] - raw_lse[own]
    return Drawn(*(x.cpu().double().numpy() for x in (tokens, logprobs, sampled)))._replace(
        tokens=tokens.cpu().numpy()
    )


def _search(
    probabilities: NDArray[np.float32], rows: NDArray[np.int64], at: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The first token of each sample's row whose cumulative probability exceeds its share.

    The block that it lies in is found first, by the sums of all blocks, and then the token in it.

    Args:
        probabilities: `[rows, vocabulary]`.
        rows: `[samples]`, ascending.
        at: `[samples]` shares of a row's whole, below 1.

    Returns:
        `[samples]`.
    """
    if extra := -probabilities.shape[1] % _BLOCK:
        probabilities = np.pad(probabilities, ((0, 0), (0, extra)))
    blocks = probabilities.reshape(len(probabilities), -1, _BLOCK)
    upto = blocks.sum(-1, dtype=np.float64).cumsum(-1)
    tokens, step = np.empty_like(rows), max(1, _CHUNK // _BLOCK)
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        row = rows[some]
        target = at[some] * upto[row, -1]
        block = (upto[row] <= target[:, None]).sum(1)
        before = np.where(block > 0, upto[row, block - 1], 0.0)
        inside = np.column_stack([before, blocks[row, block]]).cumsum(1)[:, 1:]
        # one after the other, numbers may come to less than their sum did: then it is the last
        target = np.minimum(target, np.nextafter(inside[:, -1], 0.0))
        tokens[some] = block * _BLOCK + (inside <= target[:, None]).sum(1)
    return tokens
