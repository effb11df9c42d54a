"""Trains the model that ships: python -m hydragen_tree.tiny.train --out DIR

One command, seeded: draws the corpus, trains the tokenizer and the weights, and writes a model
directory and a log of figures. It runs on any device torch offers; the figures of the shipped model
are in MODEL_CARD.md.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hydragen_tree.tiny.corpus.documents import draw_document
from hydragen_tree.tiny.corpus.families import FAMILIES, HELD_OUT_FAMILIES
from hydragen_tree.tiny.model import FENCE, llama_config, train_tokenizer

CHUNK = 500
TOKENIZER_CHUNKS = 16
PROSE_WEIGHT = 0.1
WARM_STEPS = 100


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


def draw_corpus(seed: int, count: int, workers: int) -> tuple[list[Chunk], PreTrainedTokenizerFast]:
    """The corpus, drawn by several processes, and a tokenizer trained on its beginning."""
    seeds = [seed * 1_000_000 + i for i in range(count)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        first = pool.map(draw_texts, seeds[:TOKENIZER_CHUNKS])
        tokenizer = train_tokenizer(text for texts, _ in first for text in texts)
        chunks = list(pool.map(partial(draw_chunk, tokenizer=tokenizer), seeds))
    return chunks, tokenizer


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


def token_weights(tokens: torch.Tensor, fence: int) -> torch.Tensor:
    """1 for each token of a program and the fence that closes it, PROSE_WEIGHT for all others.

    Args:
        tokens: int64 `[rows, tokens]`; fences come in pairs.
        fence: the token id of a fence.

    Returns:
        float32 `[rows, tokens]`
    """
    fences = tokens == fence
    opened = (fences.cumsum(1) - fences.long()) % 2 == 1
    return torch.where(opened, 1.0, PROSE_WEIGHT)


def learning_rate(step: int, peak: float) -> float:
    """Linear warm-up, then falling with the square root of the steps, whatever their number."""
    return peak * min((step + 1) / WARM_STEPS, math.sqrt(WARM_STEPS / (step + 1)))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model as bf16, with its tokenizer."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    ends = model.config.eos_token_id
    half.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def fit(
    model: LlamaForCausalLM,
    rows: NDArray[np.uint16],
    tokenizer: PreTrainedTokenizerFast,
    options: argparse.Namespace,
) -> list[dict[str, float]]:
    """Trains the model in place; returns the losses along the way."""
    device = torch.device(options.device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=options.peak,
        betas=(0.9, 0.95),
        fused=device.type == "cuda",
    )
    fence = tokenizer.convert_tokens_to_ids(FENCE)
    forward = torch.compile(model) if options.compile else model
    losses, running, start = [], torch.zeros((), device=device), time.monotonic()
    drawn = batches(rows, options.batch, options.seed)  # more of them than steps
    for step, batch in zip(range(options.steps), drawn, strict=False):
        tokens = torch.from_numpy(batch).to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.peak)
        with torch.autocast(device.type, torch.bfloat16):
            logits = forward(input_ids=tokens[:, :-1], use_cache=False).logits
        weights = token_weights(tokens, fence)[:, 1:]
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = (each * weights.flatten()).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running += loss.detach()
        if (step + 1) % options.report == 0:
            point = {"step": step + 1, "loss": round(running.item() / options.report, 4)}
            losses.append(point | {"seconds": round(time.monotonic() - start, 1)})
            running.zero_()
            print(json.dumps(losses[-1]), flush=True)
        if step + 1 in options.keep:
            save(model, tokenizer, options.out / f"step-{step + 1}")
    return losses


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; the defaults are those of the shipped model."""
    parser = argparse.ArgumentParser(description="Train the model that ships.")
    parser.add_argument("--out", type=Path, required=True, help="directory for model and log")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunks", type=int, default=256, help=f"of {CHUNK} documents each")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=64, help="rows a step")
    parser.add_argument("--context", type=int, default=2048, help="tokens a row")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--report", type=int, default=50, help="steps between two losses")
    parser.add_argument("--keep", type=int, nargs="*", default=[], help="steps to save after, too")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Draws the corpus, trains, writes model and log."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    chunks, tokenizer = draw_corpus(options.seed, options.chunks, options.workers)
    rows = pack(chunks, options.context + 1)
    packed = time.monotonic()
    figures: dict[str, Any] = {
        "seed": options.seed,
        "families": len(FAMILIES) - len(HELD_OUT_FAMILIES),
        "families_held_out": len(HELD_OUT_FAMILIES),
        "documents": sum(len(chunk.starts) for chunk in chunks),
        "compositions": len(frozenset().union(*(chunk.compositions for chunk in chunks))),
        "corpus_tokens": sum(len(chunk.tokens) for chunk in chunks),
        "corpus_characters": sum(chunk.characters for chunk in chunks),
        "corpus_s": round(packed - begun, 1),
    }
    print(json.dumps(figures), flush=True)
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    model = LlamaForCausalLM(llama_config(tokenizer.eos_token_id)).to(options.device)
    losses = fit(model, rows, tokenizer, options)
    save(model, tokenizer, options.out)
    figures |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_tokens": options.steps * options.batch * options.context,
        "training_s": round(time.monotonic() - packed, 1),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "batch_tokens": options.batch * options.context,
        "peak_learning_rate": options.peak,
        "losses": losses,
    }
    (options.out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
