"""Corpus -> tokenizer and rows of tokens, drawn by several processes."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from random import Random

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from hydragen_tiny.corpus.documents import draw_document
from hydragen_tiny.model import train_tokenizer

CHUNK = 500
TOKENIZER_CHUNKS = 16


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
    seed: int, chunks: int, workers: int
) -> tuple[list[Chunk], PreTrainedTokenizerFast]:
    """The corpus, and the tokenizer trained on its first TOKENIZER_CHUNKS chunks.

    Args:
        seed: of all of it.
        chunks: of CHUNK documents each.
        workers: processes.
    """
    seeds = [seed * 1_000_000 + i for i in range(chunks)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        first = pool.map(draw_texts, seeds[:TOKENIZER_CHUNKS])
        tokenizer = train_tokenizer(text for texts, _ in first for text in texts)
        return list(pool.map(partial(draw_chunk, tokenizer=tokenizer), seeds)), tokenizer


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


def batches(rows: NDArray[np.uint16], size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless batches `[size, context + 1]`, shuffled anew in every epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(order) - size + 1, size):
            yield rows[order[start : start + size]].astype(np.int64)
