"""FlashInfer beside us on the same inputs: its multi-level cascade, and its drawing of tokens.

Where it is not installed, or fails, its column stays empty and a line says why. Its results are
checked before anything is timed: attention against float64, draws by what they cannot be (a token
outside the filters) and by their mean log-probability, since its random numbers are its own.
"""

import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels import reference_choice
from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import item_columns

PAGE_TOKENS = 16
TOLERANCE = 1e-2  # relative error of attention: partials of every level are rounded to 16 bits
_INSTALL = "pip install 'flashinfer-python>=0.6'"
_WORKSPACE_BYTES = 512 << 20
_CHECKED_ROWS, _CHECKED_DRAWS = 8, 512  # draws a row
_MOST_DEVIATIONS = 5.0
# Beyond some such width blocks of its top-k kernel wait for each other: with 128,256 words, on an
# H200, they waited for good; with 32,000 they did not.
_TOP_K_WORDS = 1 << 15
_SLACK = 1e-3  # of top-p: a sum in float32 may cut a token sooner or later

T = TypeVar("T")


def find_flashinfer() -> str | None:
    """The version installed, if any; prints what there is."""
    if importlib.util.find_spec("flashinfer") is None:
        print(f"flashinfer is not installed: {_INSTALL}")
        return None
    version = importlib.metadata.version("flashinfer-python")
    print(f"flashinfer {version}")
    return version


def attempt(what: str, work: Callable[[], T]) -> T | None:
    """The result of some work with FlashInfer; None, and a line that says why, if it fails.

    It compiles its kernels when they are first used, so anything can go wrong there. Our own
    figures must not be lost for that.
    """
    try:
        return work()
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        print(f"flashinfer left out of {what}: {type(error).__name__}: {reason[0]}")
        return None


class Level(NamedTuple):
    """One level of a cascade, as FlashInfer's page tables; int32.

    Attributes:
        rows: `[nodes + 1]` where each node's rows begin; the last is the number of rows.
        page_starts: `[nodes + 1]` where each node's pages begin in `pages`.
        pages: of all nodes.
        last_page_tokens: `[nodes]` tokens of each node's last page.
    """

    rows: Int32
    page_starts: Int32
    pages: Int32
    last_page_tokens: Int32


def cascade_levels(
    items: Int32, page_table: Int32, lengths: Int32, page_tokens: int
) -> list[Level]:
    """The levels of a tree of decode rows: its segments from the root, then the tails.

    Args:
        items: of the segments, as `schedule_segments` takes them; each level has all rows.
        page_table: `[rows, max_pages]` pages of the tails.
        lengths: `[rows]` tokens of the tails.
        page_tokens: slots a page of `page_table`, a multiple of `PAGE_TOKENS`.

    Raises:
        ValueError: a segment does not start with a page.
    """
    result = []
    levels = item_columns(items).level
    for level in np.unique(levels):
        own = item_columns(items[levels == level])
        if (own.slot_start % PAGE_TOKENS).any():
            raise ValueError(f"a segment of level {level} starts inside a page")
        ends = np.append(own.query_start, own.query_stop[-1])
        pages = list(map(_pages, own.slot_start.tolist(), own.slot_count.tolist()))
        result.append(_level(ends, pages, own.slot_count))
    smaller = page_tokens // PAGE_TOKENS
    slots = page_table[:, :, None] * smaller + np.arange(smaller)
    counts = -(-lengths // PAGE_TOKENS)
    tails = [
        row[:count] for row, count in zip(slots.reshape(len(lengths), -1), counts, strict=True)
    ]
    return [*result, _level(np.arange(len(lengths) + 1), tails, lengths)]


def _pages(slot: int, count: int) -> NDArray[np.int64]:
    return slot // PAGE_TOKENS + np.arange(-(-count // PAGE_TOKENS))


def _level(rows: NDArray[Any], pages: list[NDArray[Any]], tokens: Int32) -> Level:
    starts = np.cumsum([0, *map(len, pages)])
    parts = rows, starts, np.concatenate(pages), (tokens - 1) % PAGE_TOKENS + 1
    return Level(*(part.astype(np.int32) for part in parts))


def paged(arena: Tensor) -> Tensor:
    """Keys or values `[kv_heads, slots, head_dim]`, copied into FlashInfer's own layout, NHD."""
    heads, slots, head_dim = arena.shape
    whole = slots // PAGE_TOKENS
    tokens_first = arena[:, : whole * PAGE_TOKENS].transpose(0, 1)
    return tokens_first.reshape(whole, PAGE_TOKENS, heads, head_dim).contiguous()


class Cascade:
    """FlashInfer's cascade, planned for one tree.

    Args:
        levels: of the tree.
        queries: `[rows, q_heads, head_dim]`.
        keys: `[kv_heads, slots, head_dim]`.
        values: like `keys`.
        scale: of the scores.
    """

    def __init__(
        self, levels: list[Level], queries: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> None:
        flashinfer = importlib.import_module("flashinfer")
        device = queries.device
        self._queries, self._cache = queries, (paged(keys), paged(values))
        workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(len(levels), workspace, "NHD")
        tables = [[torch.from_numpy(part).to(device) for part in level] for level in levels]
        self._wrapper.plan(
            *(list(column) for column in zip(*tables, strict=True)),
            queries.shape[1],
            keys.shape[0],
            queries.shape[2],
            PAGE_TOKENS,
            sm_scale=scale,
            q_data_type=queries.dtype,
            kv_data_type=keys.dtype,
        )

    def __call__(self) -> Tensor:
        """Attention `[rows, q_heads, head_dim]`."""
        out: Tensor = self._wrapper.run(self._queries, self._cache)
        return out


def drawer(
    logits: Tensor, own: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> Callable[[], Tensor] | None:
    """What draws a token for every sample with FlashInfer's kernels; None for greedy settings.

    Args:
        logits: `[rows, vocabulary]`.
        own: `[samples]` int32, the row of each; as many samples as rows: theirs in order.
        temperature: 0 takes the most probable token.
        top_k: 0 keeps all.
        top_p: 1 keeps all.

    Raises:
        NotImplementedError: its top-k of so many words is left out, since it may hang.
    """
    if temperature == 0.0:
        return None
    if top_k and logits.shape[1] > _TOP_K_WORDS:
        raise NotImplementedError(
            f"its top-k is known to hang with 128,256 words; left out beyond {_TOP_K_WORDS}"
        )
    sampling: Any = importlib.import_module("flashinfer.sampling")
    # the generator's own state cannot be read while a graph is captured
    common: dict[str, Any] = {"seed": 0, "offset": 0}
    if len(own) != len(logits):
        common["indices"] = own

    def draw() -> Tensor:
        tokens: Tensor
        if top_k:
            scores = logits.float() / temperature
            tokens = sampling.top_k_top_p_sampling_from_logits(scores, top_k, top_p, **common)
        elif top_p < 1.0:
            weights = sampling.softmax(logits, temperature=temperature)
            tokens = sampling.top_p_sampling_from_probs(weights, top_p, **common)
        else:
            tokens = sampling.sampling_from_logits(logits.float() / temperature, **common)
        return tokens

    return draw


def check_draws(logits: Tensor, settings: dict[str, Any]) -> None:
    """Draws often from a few rows with FlashInfer, and holds that against the reference's weights.

    Args:
        logits: `[rows, vocabulary]`.
        settings: temperature above 0, top_k, top_p.

    Raises:
        AssertionError: tokens outside the filters, or their mean log-probability is another.
    """
    few = logits[:_CHECKED_ROWS]
    own = torch.arange(len(few), dtype=torch.int32, device=few.device)
    draw = drawer(few, own.repeat_interleave(_CHECKED_DRAWS), **settings)
    assert draw is not None
    tokens = draw().long().cpu().view(len(few), _CHECKED_DRAWS)
    deviations = deviation(few.float().cpu(), tokens, **settings)
    if not abs(deviations) < _MOST_DEVIATIONS:
        raise AssertionError(f"its draws are {deviations:.1f} standard errors off the reference")


def deviation(
    logits: Tensor, tokens: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> float:
    """How far the mean log-probability of draws is from its expectation, in standard errors.

    Args:
        logits: `[rows, vocabulary]` fp32.
        tokens: `[rows, draws]`.
        temperature: above 0.
        top_k: 0 keeps all.
        top_p: 1 keeps all.

    Returns:
        Infinity where a token was drawn that the filters take away.
    """
    difference, variance = 0.0, 0.0
    for row, drawn in zip(logits, tokens, strict=True):
        (_, allowed), (weights, is_kept) = (
            reference_choice.kept(row, temperature=temperature, top_k=top_k, top_p=p, min_p=0.0)
            for p in (min(1.0, top_p + _SLACK), top_p)
        )
        if not bool(allowed[drawn].all()):
            return float("inf")
        share = torch.where(is_kept, weights, 0.0) / weights[is_kept].sum()
        logprobs = torch.log(weights / weights[is_kept].sum())
        expected = float((share * torch.where(is_kept, logprobs, 0.0)).sum())
        square = float((share * torch.where(is_kept, logprobs - expected, 0.0) ** 2).sum())
        difference += float(logprobs[drawn].sum()) - len(drawn) * expected
        variance += len(drawn) * square
    return difference / math.sqrt(max(variance, 1e-12))
