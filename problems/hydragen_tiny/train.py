"""Trains the model that ships: PYTHONPATH=problems python -m hydragen_tiny.train --out DIR

One command, seeded: draws the corpus, trains the tokenizer and the weights, and writes a model
directory a checkpoint, with a log of figures beside them, and the mean of two checkpoints, which
is what ships. It runs on any device torch offers.
"""

import argparse
import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass
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
from hydragen_tiny.drawing import Chunk, batches, draw_corpus, pack
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
        steps: optimizer steps.
        batch: rows a step.
        context: tokens a row.
        peak: the learning rate between warm-up and cooling.
        warm: how many steps, the first ones, rise to the peak.
        cool: how many steps, the last ones, fall to zero.
        checkpoints: numbers of steps after which the model is written.
        blended: two of the checkpoints, and the share of the second in the mean that ships.
    """

    seed: int
    chunks: int
    steps: int
    batch: int
    context: int
    peak: float
    warm: int
    cool: int
    checkpoints: tuple[int, ...]
    blended: tuple[int, int, float]


PLAN = Plan(
    seed=1,
    chunks=400,
    steps=1000,
    batch=64,
    context=2048,
    peak=3e-3,
    warm=100,
    cool=200,
    checkpoints=(60, 100, 150, 250, 400, 650, 1000),
    blended=(400, 650, 0.65),
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


def learning_rate(step: int, plan: Plan) -> float:
    """Rises linearly, stays, falls linearly."""
    return plan.peak * min(1.0, (step + 1) / plan.warm, (plan.steps - step) / (plan.cool + 1))


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

    def step(self, number: int, batch: NDArray[np.int64]) -> torch.Tensor:
        """One optimizer step, the number counted from 0; returns the loss."""
        device = self.model.device
        tokens = torch.from_numpy(batch).to(device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.plan)
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
        pairs = zip(self.averaged.parameters(), self.model.parameters(), strict=True)
        for mean, weights in pairs:
            mean.lerp_(weights, share)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the model as bf16, with its tokenizer."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    ends = model.config.eos_token_id
    half.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends)
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)


def blend(first: Path, second: Path, share: float, out: Path) -> None:
    """Writes the mean of two models' weights, taken in float32: a model between them.

    Args:
        first: a model directory.
        second: another, of the same run.
        share: how far the mean lies from the first to the second, 0 to 1.
        out: the directory written, but for the weights a copy of the second.
    """
    shutil.copytree(second, out, dirs_exist_ok=True)
    begin, end = (load_file(path / "model.safetensors") for path in (first, second))
    mean = {name: begin[name].float().lerp(end[name].float(), share) for name in begin}
    half = {name: weights.to(torch.bfloat16) for name, weights in mean.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})


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

    def write(self, tokens: int) -> None:
        """Writes the figures so far, of which `tokens` were trained on."""
        seconds = round(time.monotonic() - self.begun, 1)
        figures = {**self.figures, "trained_tokens": tokens, "trained_s": seconds}
        self.path.write_text(json.dumps({**figures, "losses": self.losses}, indent=1) + "\n")


def corpus_figures(chunks: list[Chunk]) -> dict[str, Any]:
    """How much was drawn, of what."""
    return {
        "families": len(FAMILIES) - len(HELD_OUT_FAMILIES),
        "families_held_out": len(HELD_OUT_FAMILIES),
        "documents": sum(len(chunk.starts) for chunk in chunks),
        "compositions": len(frozenset().union(*(chunk.compositions for chunk in chunks))),
        "corpus_tokens": sum(len(chunk.tokens) for chunk in chunks),
        "corpus_characters": sum(chunk.characters for chunk in chunks),
    }


def run(plan: Plan, options: argparse.Namespace) -> None:
    """Draws, trains, and writes a directory `step-N` a checkpoint, the log `training.json`, and
    `blended`, the mean of two checkpoints."""
    torch.manual_seed(plan.seed)
    begun = time.monotonic()
    chunks, tokenizer = draw_corpus(plan.seed, plan.chunks, options.workers)
    figures = {
        "plan": asdict(plan),
        **corpus_figures(chunks),
        "corpus_s": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(figures), flush=True)
    model = LlamaForCausalLM(llama_config(tokenizer.eos_token_id)).to(options.device)
    figures["parameters"] = sum(p.numel() for p in model.parameters())
    on_gpu = model.device.type == "cuda"
    figures["device"] = torch.cuda.get_device_name() if on_gpu else model.device.type
    fit = Fit(model, tokenizer.convert_tokens_to_ids(FENCE), plan, options.compile)
    log = Log(options.out, figures)
    drawn = batches(pack(chunks, plan.context + 1), plan.batch, plan.seed)
    for done, batch in zip(range(1, plan.steps + 1), drawn, strict=False):
        log.add(done, fit.step(done - 1, batch))
        if done in plan.checkpoints:
            save(fit.averaged, tokenizer, options.out / f"step-{done}")
            log.write(done * plan.batch * plan.context)
    first, second, share = plan.blended
    out = options.out
    blend(out / f"step-{first}", out / f"step-{second}", share, out / "blended")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the model that ships.")
    parser.add_argument("--out", type=Path, required=True, help="directory for models and logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, plan: Plan = PLAN) -> None:
    """Trains by the plan."""
    torch.set_float32_matmul_precision("high")
    run(plan, parse(arguments))


if __name__ == "__main__":
    main()
