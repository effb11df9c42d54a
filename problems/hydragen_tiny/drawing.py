"""Corpus -> tokenizer and rows of tokens, drawn by several processes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from hydragen_tiny.corpus.documents import draw_document
from hydragen_tiny.model import train_tokenizer

CHUNK = 500
TOKENIZER_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """How chunks are read as batches.

    Args:
        seed: of the order.
        size: rows a batch.
        length: tokens a row.
        group: chunks whose rows are shuffled together.
    """

    seed: int
    size: int
    length: int
    group: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some documents of the corpus as tokens.

    Args:
        tokens: uint16, all documents one after the other, each ended by the end token.
        starts: int64, where each document begins.
        characters: their length as text.
        compositions: those that occur.
    """

    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]
    characters: int
    compositions: frozenset[str]


def draw_texts(seed: int) -> tuple[list[str], frozenset[str]]:
    """CHUNK documents, and the compositions in them."""
    rng = Random(seed)
    drawn = [draw_document(rng) for _ in range(CHUNK)]
    return [text for text, _ in drawn], frozenset(name for _, names in drawn for name in names)


def draw_chunk(seed: int, tokenizer: PreTrainedTokenizerFast) -> Chunk:
    """CHUNK documents as tokens."""
    texts, compositions = draw_texts(seed)
    documents = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    lengths = np.array([len(ids) for ids in documents])
    return Chunk(
        np.concatenate([np.array(ids, dtype=np.uint16) for ids in documents]),
        np.cumsum(lengths) - lengths,
        sum(map(len, texts)),
        compositions,
    )


def draw_corpus(
    pool: Executor, seed: int, chunks: int
) -> tuple[Iterator[Chunk], PreTrainedTokenizerFast]:
    """The corpus, drawn while it is read, and the tokenizer trained on TOKENIZER_CHUNKS chunks.

    Args:
        pool: the processes that draw.
        seed: of all of it.
        chunks: of CHUNK documents each.
    """
    seeds = [seed * 1_000_000 + i for i in range(chunks)]
    first = pool.map(draw_texts, seeds[:TOKENIZER_CHUNKS])
    tokenizer = train_tokenizer(text for texts, _ in first for text in texts)
    return iter(pool.map(partial(draw_chunk, tokenizer=tokenizer), seeds)), tokenizer


def pack(chunks: list[Chunk], length: int) -> NDArray[np.uint16]:
    """Rows `[rows, length]` of documents: each begins with a document and is cut at its end."""
    rows = []
    for chunk in chunks:
        start = 0
        while start + length <= len(chunk.tokens):
            rows.append(chunk.tokens[start : start + length])
            following = np.searchsorted(chunk.starts, start + length)
            if following == len(chunk.starts):
                break
            start = int(chunk.starts[following])
    return np.stack(rows)


def batches(chunks: Iterable[Chunk], plan: Reading) -> Iterator[NDArray[np.int64]]:
    """Endless batches `[size, length]`: all documents once, in groups of chunks whose rows are
    shuffled, and then all again, shuffled anew in every epoch."""
    rng = np.random.default_rng(plan.seed)
    arriving, groups = iter(chunks), []
    while group := list(islice(arriving, plan.group)):
        groups.append(pack(group, plan.length))
        yield from _shuffled(groups[-1], plan.size, rng)
    rows = np.concatenate(groups)
    while True:
        yield from _shuffled(rows, plan.size, rng)


def _shuffled(
    rows: NDArray[np.uint16], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    order = rng.permutation(len(rows))
    for start in range(0, len(order) - size + 1, size):
        yield rows[order[start : start + size]].astype(np.int64)
