"""Logits to tokens: filters in transformers' order, one random number per sample and position.

Several samples may share a row of logits: the row's distribution is computed once, then every
sample inverts its cumulative sum at its own random number. The number depends only on the
sample's stream key and the token's position, whatever shares its batch.
"""

import hashlib
import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels import ordered_layers
from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.random import uniforms
from hydragen_tree.errors import ModelError, Setting
from hydragen_tree.settings import SamplingSettings

_CHUNK = 1 << 22  # probabilities held in float64 at a time


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


def filtered(logits: Tensor, settings: SamplingSettings, *, ordered: bool = False) -> Tensor:
    """The distribution tokens are drawn from: temperature, top-k, top-p, min-p, in this order.

    Args:
        logits: `[rows, vocabulary]`, any float dtype.
        settings: `temperature` must be positive.
        ordered: sums along a row have one order, whatever the number of rows and threads.

    Returns:
        `[rows, vocabulary]` probabilities, float32; 0 where a token was filtered out.

    Source: the logits processors of transformers, whose order and ties these are.
    """
    softmax = _ordered_softmax if ordered else _softmax
    scores = _scores(logits.float(), settings.temperature)
    if 0 < settings.top_k < scores.shape[-1]:
        kth = torch.topk(scores, settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if settings.top_p < 1.0:
        rising, order = torch.sort(scores, stable=ordered)  # the tail to cut comes first
        cut = softmax(rising).cumsum(-1) <= 1.0 - settings.top_p
        cut[:, -1] = False
        scores = scores.masked_fill(cut.scatter(1, order, cut), -torch.inf)
    probabilities = softmax(scores)
    if settings.min_p > 0.0:
        top = probabilities.amax(-1, keepdim=True)
        scores = scores.masked_fill(probabilities < settings.min_p * top, -torch.inf)
        probabilities = softmax(scores)
    return probabilities


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def _ordered_softmax(scores: Tensor) -> Tensor:
    return ordered_layers.probabilities(scores)[0]


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
    *,
    ordered: bool = False,
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
        ordered: on a CPU, sums along a row have one order, whatever the number of rows and threads;
            a GPU's kernel sums so in any case.

    Raises:
        ModelError: a row that is drawn from holds NaN or +inf, or nothing but -inf.
    """
    if logits.is_cuda and find_spec("triton"):
        return _draw_fused(logits, rows, keys, positions, settings)
    at = uniforms(keys, positions)
    step = max(1, _CHUNK // logits.shape[1])
    parts = []
    for first in range(0, logits.shape[0], step):
        begin, end = np.searchsorted(rows, [first, first + step])
        own = torch.from_numpy(rows[begin:end].astype(np.int64) - first).to(logits.device)
        if end > begin:
            inside = torch.from_numpy(at[begin:end]).to(logits.device)
            chunk = logits[first : first + step]
            parts.append(_draw_chunk(chunk, own, inside, settings, ordered=ordered))
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


def _draw_chunk(
    logits: Tensor, rows: Tensor, at: Tensor, settings: SamplingSettings, *, ordered: bool
) -> Drawn[NDArray[Any]]:
    raw = logits.float()
    raw_lse = ordered_layers.log_sums(raw) if ordered else raw.logsumexp(-1)
    own_lse = raw_lse[rows].double().cpu()
    check_logprobs((own_lse - own_lse).numpy())  # NaN where it is not finite
    if settings.temperature == 0.0:
        tokens = raw.argmax(-1)[rows]
        sampled = torch.zeros_like(raw_lse[rows])
    else:
        probabilities = filtered(raw, settings, ordered=ordered)
        cumulative = probabilities.double().cumsum(-1)
        targets = at * cumulative[:, -1][rows]
        tokens = _search(cumulative, rows, targets)
        sampled = _logs(probabilities[rows, tokens], ordered=ordered)
    logprobs = raw[rows, tokens] - raw_lse[rows]
    return Drawn(*(x.cpu().double().numpy() for x in (tokens, logprobs, sampled)))._replace(
        tokens=tokens.cpu().numpy()
    )


def _logs(chosen: Tensor, *, ordered: bool) -> Tensor:
    """Logarithms; in one order number by number, as a vector's last ones may round otherwise."""
    return torch.tensor([math.log(p) for p in chosen.tolist()]) if ordered else chosen.log()


def _search(cumulative: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The first token of each sample's row whose cumulative probability exceeds its target.

    The targets of a row stand side by side, some thousands at a time, so that the row is read where
    it is: a copy of it for each of its samples could take gigabytes.

    Args:
        cumulative: `[rows, vocabulary]` float64.
        rows: `[samples]` int64, ascending.
        targets: `[samples]` float64.

    Returns:
        `[samples]` int64.
    """
    counts = torch.bincount(rows, minlength=cumulative.shape[0])
    rank = torch.arange(rows.shape[0], device=rows.device) - (counts.cumsum(0) - counts)[rows]
    most, step = int(counts.max()), max(1, _CHUNK // cumulative.shape[0])
    tokens = torch.empty_like(rows)
    for first in range(0, most, step):
        inside = (rank >= first) & (rank < first + step)
        place = rows[inside], rank[inside] - first
        side_by_side = cumulative.new_zeros(cumulative.shape[0], min(step, most - first))
        side_by_side[place] = targets[inside]
        tokens[inside] = torch.searchsorted(cumulative, side_by_side, right=True)[place]
    return tokens
