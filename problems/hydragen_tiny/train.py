"""Trains the model that ships: PYTHONPATH=problems python -m hydragen_tiny.train --out DIR

One command, seeded: draws the corpus, trains the tokenizer and the weights, and writes a model
directory a checkpoint, with a log of figures beside them, and what ships: the last one with
flatter distributions. It runs on any device torch offers.
"""

import argparse
import copy
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AttentionInterface,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from hydragen_tiny.corpus.families import FAMILIES, HELD_OUT_FAMILIES
from hydragen_tiny.drawing import Chunk, Reading, batches, draw_corpus
from hydragen_tiny.model import FENCE, llama_config

PROSE_WEIGHT = 0.1
REPORT_STEPS = 50
PRINT_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn and how it is trained on.

    Args:
        seed: of corpus, order and first weights.
        chunks: of CHUNK documents each.
        group: chunks whose rows are shuffled together.
        steps: optimizer steps, if time allows.
        batch: rows a step.
        context: tokens a row.
        peak: the learning rate between warm-up and cooling.
        warm: how many steps, the first ones, rise to the peak.
        cool: the share of the training, its end, that falls to zero.
        checkpoints: shares of the training after which the model is written.
        flat: what the logits of the last checkpoint are multiplied by in the model that ships.
    """

    seed: int
    chunks: int
    group: int
    steps: int
    batch: int
    context: int
    peak: float
    warm: int
    cool: float
    checkpoints: tuple[float, ...]
    flat: float


PLAN = Plan(
    seed=1,
    chunks=4000,
    group=60,
    steps=12_260,
    batch=64,
    context=1280,
    peak=3e-3,
    warm=200,
    cool=0.25,
    checkpoints=(0.06, 0.12, 0.25, 0.5, 1.0),
    flat=0.5,
)


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


def learning_rate(step: int, done: float, plan: Plan) -> float:
    """Rises linearly, stays, falls linearly.

    Args:
        step: the number of the step, from 0.
        done: the share of the training that lies behind.
        plan: peak, warm-up and cooling.
    """
    return plan.peak * min(1.0, (step + 1) / plan.warm, (1.0 - done) / plan.cool)


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """torch's attention without a mask.

    When compiled, transformers' own builds masks of [rows, tokens, tokens], and flash attention,
    which takes none, is not used.
    """
    out = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None


AttentionInterface.register("tiny-causal", causal_attention)


class Fit:
    """Trains a model in place, and keeps an average of its weights over the last steps.

    The average (with a horizon of a twentieth of the steps so far) does what a falling learning
    rate would, so that every checkpoint is as good as the end of a run of its length.
    """

    def __init__(self, model: LlamaForCausalLM, fence: int, plan: Plan, compiled: bool) -> None:
        self.model, self.plan, self.fence = model, plan, fence
        self.averaged = copy.deepcopy(model)
        model.set_attn_implementation("tiny-causal")
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.95),
            fused=model.device.type == "cuda",
        )
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def _loss(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted mean of the cross entropies of int64 `[rows, tokens]`."""
        logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
        each = functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        return (each * weights.flatten()).sum() / weights.sum()

    def step(self, number: int, done: float, batch: NDArray[np.int64]) -> torch.Tensor:
        """One optimizer step, the number counted from 0, at this share of the training; returns
        the loss."""
        device = self.model.device
        tokens = torch.from_numpy(batch).to(device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, done, self.plan)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss: torch.Tensor = self.loss(tokens, token_weights(tokens, self.fence)[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(1 / max(1, (number + 1) // 20))
        return loss.detach()

    @torch.no_grad()
    def _average(self, share: float) -> None:
        means, weights = list(self.averaged.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(means, weights, share)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model as bf16, with its tokenizer."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    ends = model.config.eos_token_id
    half.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def flatten(trained: Path, share: float, out: Path) -> None:
    """Writes a model whose logits are those of another times `share`: a trained model is nearly
    certain of most tokens, and one worth drawing many samples from is less so.

    Args:
        trained: a model directory.
        share: what the logits are multiplied by, through the weights of the last norm.
        out: the directory written.
    """
    shutil.copytree(trained, out, dirs_exist_ok=True)
    weights = load_file(trained / "model.safetensors")
    last = weights["model.norm.weight"]
    weights["model.norm.weight"] = (last.float() * share).to(last.dtype)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


class Log:
    """The losses along the way, and what is written of them.

    Args:
        out: the directory of `training.json`.
        figures: what is known before training.
    """

    def __init__(self, out: Path, figures: dict[str, Any]) -> None:
        self.path, self.figures = out / "training.json", figures
        self.losses: list[dict[str, float]] = []
        self.begun = self.printed = time.monotonic()
        self.pending: list[torch.Tensor] = []

    def add(self, done: int, loss: torch.Tensor) -> None:
        """Notes the loss of step `done`, counted from 1; reads it from the device now and then."""
        self.pending.append(loss)
        if done % REPORT_STEPS:
            return
        now = time.monotonic()
        mean = torch.stack(self.pending).mean().item()
        self.pending.clear()
        entry = {"step": done, "loss": round(mean, 4), "seconds": round(now - self.begun, 1)}
        self.losses.append(entry)
        if now - self.printed > PRINT_S:
            self.printed = now
            print(json.dumps(entry), flush=True)

    def write(self, tokens: int, corpus: dict[str, Any]) -> None:
        """Writes the figures so far: `tokens` were trained on, and what the corpus held."""
        seconds = round(time.monotonic() - self.begun, 1)
        figures = {**self.figures, **corpus, "trained_tokens": tokens, "trained_s": seconds}
        self.path.write_text(json.dumps({**figures, "losses": self.losses}, indent=1) + "\n")


class Corpus:
    """Counts what is read of the corpus on its way to the model."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self.chunks = chunks
        self.documents = self.tokens = self.characters = 0
        self.compositions: set[str] = set()

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            self.documents += len(chunk.starts)
            self.tokens += len(chunk.tokens)
            self.characters += chunk.characters
            self.compositions |= chunk.compositions
            yield chunk

    def figures(self) -> dict[str, Any]:
        """How much was read so far, of what."""
        return {
            "families": len(FAMILIES) - len(HELD_OUT_FAMILIES),
            "families_held_out": len(HELD_OUT_FAMILIES),
            "documents": self.documents,
            "compositions": len(self.compositions),
            "corpus_tokens": self.tokens,
            "corpus_characters": self.characters,
        }


def run(plan: Plan, options: argparse.Namespace, pool: Executor) -> None:
    """Draws, trains, and writes a directory `at-SHARE` a checkpoint, the log `training.json`, and
    `shipped`, the last checkpoint with flatter distributions."""
    torch.manual_seed(plan.seed)
    begun = time.monotonic()
    chunks, tokenizer = draw_corpus(pool, plan.seed, plan.chunks)
    corpus = Corpus(chunks)
    model = LlamaForCausalLM(llama_config(tokenizer.eos_token_id)).to(options.device)
    on_gpu = model.device.type == "cuda"
    figures = {
        "plan": asdict(plan),
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": torch.cuda.get_device_name() if on_gpu else model.device.type,
    }
    fit = Fit(model, tokenizer.convert_tokens_to_ids(FENCE), plan, options.compile)
    log = Log(options.out, figures)
    reading = Reading(plan.seed, plan.batch, plan.context + 1, plan.group)
    left, done = list(plan.checkpoints), 0.0
    for number, batch in enumerate(batches(corpus, reading), 1):
        log.add(number, fit.step(number - 1, done, batch))
        done = max(number / plan.steps, (time.monotonic() - begun) / options.seconds)
        if done >= left[0]:
            save(fit.averaged, tokenizer, options.out / f"at-{left.pop(0)}")
            log.write(number * plan.batch * plan.context, corpus.figures())
        if not left:
            break
    flatten(options.out / f"at-{plan.checkpoints[-1]}", plan.flat, options.out / "shipped")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the model that ships.")
    parser.add_argument("--out", type=Path, required=True, help="directory for models and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="train no longer, with fewer steps"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, plan: Plan = PLAN) -> None:
    """Trains by the plan."""
    torch.set_float32_matmul_precision("high")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are parallel enough
    options = parse(arguments)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        try:
            run(plan, options, pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()
