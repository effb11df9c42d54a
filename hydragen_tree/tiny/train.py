"""Trains the model that ships: python -m hydragen_tree.tiny.train --out DIR

One command, seeded: draws the corpus, trains the tokenizer and the weights in two phases, and
writes a model directory and a log of figures. It runs on any device torch offers; a phase whose
result lies in DIR already is not repeated, so phases may run on different machines.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
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
REPORT_STEPS = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training on a corpus of its own.

    Args:
        seed: of corpus, order and first weights.
        chunks: of CHUNK documents each.
        steps: optimizer steps.
        batch: rows a step.
        context: tokens a row.
        peak: highest learning rate.
        cool: how many of the steps, the last ones, also fall linearly to zero.
        average: steps after which the weights are taken; their mean is the result. None: the last.
    """

    seed: int
    chunks: int
    steps: int
    batch: int
    context: int
    peak: float
    cool: int = 0
    average: tuple[int, ...] = ()


PHASES = (
    Phase(seed=1, chunks=256, steps=550, batch=64, context=2048, peak=2e-3, average=(500, 550)),
    Phase(seed=2, chunks=8, steps=280, batch=4, context=2048, peak=6e-4, cool=200),
)


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
    phase: Phase, workers: int, tokenizer: PreTrainedTokenizerFast | None
) -> tuple[list[Chunk], PreTrainedTokenizerFast]:
    """The corpus, drawn by several processes, and its tokenizer: trained on it if none is given."""
    seeds = [phase.seed * 1_000_000 + i for i in range(phase.chunks)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        if tokenizer is None:
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


def learning_rate(step: int, phase: Phase) -> float:
    """Linear warm-up, then falling with the square root of the steps, at last linearly to zero."""
    done = step + 1
    rate = phase.peak * min(done / WARM_STEPS, math.sqrt(WARM_STEPS / done))
    return rate * min(1.0, (phase.steps - step) / (phase.cool + 1))


def fit(
    model: LlamaForCausalLM,
    rows: NDArray[np.uint16],
    fence: int,
    phase: Phase,
    compiled: bool,
) -> list[dict[str, float]]:
    """Trains the model in place; returns the losses along the way."""
    device = model.device
    on_gpu = device.type == "cuda"
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=on_gpu,
    )
    forward = torch.compile(model) if compiled else model
    losses, running, start = [], torch.zeros((), device=device), time.monotonic()
    taken: list[dict[str, torch.Tensor]] = []
    for step, batch in zip(
        range(phase.steps), batches(rows, phase.batch, phase.seed), strict=False
    ):
        tokens = torch.from_numpy(batch).to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, phase)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            logits = forward(input_ids=tokens[:, :-1], use_cache=False).logits
        weights = token_weights(tokens, fence)[:, 1:]
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = (each * weights.flatten()).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running += loss.detach()
        done = step + 1
        if done % REPORT_STEPS == 0:
            seconds = round(time.monotonic() - start, 1)
            mean = round(running.item() / REPORT_STEPS, 4)
            losses.append({"step": done, "loss": mean, "seconds": seconds})
            running.zero_()
            print(json.dumps(losses[-1]), flush=True)
        if done in phase.average:
            taken.append({name: value.clone() for name, value in model.state_dict().items()})
    if taken:
        model.load_state_dict(
            {name: torch.stack([w[name] for w in taken]).mean(0) for name in taken[0]}
        )
    return losses


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model as bf16, with its tokenizer."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    ends = model.config.eos_token_id
    half.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def run_phase(phase: Phase, start: Path | None, out: Path, options: argparse.Namespace) -> None:
    """Trains one phase, from the model in `start` or from nothing, and writes model and log."""
    begun = time.monotonic()
    torch.manual_seed(phase.seed)
    known = PreTrainedTokenizerFast.from_pretrained(start) if start else None
    chunks, tokenizer = draw_corpus(phase, options.workers, known)
    rows = pack(chunks, phase.context + 1)
    drawn = time.monotonic()
    if start:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    else:
        model = LlamaForCausalLM(llama_config(tokenizer.eos_token_id))
    model.to(options.device)
    fence = tokenizer.convert_tokens_to_ids(FENCE)
    losses = fit(model, rows, fence, phase, options.compile)
    save(model, tokenizer, out)
    figures: dict[str, Any] = {
        "phase": asdict(phase),
        "families": len(FAMILIES) - len(HELD_OUT_FAMILIES),
        "families_held_out": len(HELD_OUT_FAMILIES),
        "documents": sum(len(chunk.starts) for chunk in chunks),
        "compositions": len(frozenset().union(*(chunk.compositions for chunk in chunks))),
        "corpus_tokens": sum(len(chunk.tokens) for chunk in chunks),
        "corpus_characters": sum(chunk.characters for chunk in chunks),
        "corpus_s": round(drawn - begun, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_tokens": phase.steps * phase.batch * phase.context,
        "trained_s": round(time.monotonic() - drawn, 1),
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu",
        "losses": losses,
    }
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the model that ships.")
    parser.add_argument("--out", type=Path, required=True, help="directory for models and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, phases: tuple[Phase, ...] = PHASES) -> None:
    """Runs the phases that have not been run; the last one's directory is the model."""
    options = parse(arguments)
    torch.set_float32_matmul_precision("high")
    start = None
    for number, phase in enumerate(phases, 1):
        out = options.out / f"phase-{number}"
        if not (out / "training.json").exists():
            run_phase(phase, start, out, options)
        start = out


if __name__ == "__main__":
    main()
