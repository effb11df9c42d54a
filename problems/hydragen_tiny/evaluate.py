"""Measures pass@k of the tiny model.

    PYTHONPATH=problems python -m hydragen_tiny.evaluate --out FIGURES.json

Samples programs, two-shot, for exercises of each split of the corpus, runs them on generated tests
and writes a table for each model and split. The sampling loop is transformers' own, so that the
figures do not depend on the code they are used to show off; --loop tree takes this project's, which
is many times as fast on a CPU.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hydragen_tiny.corpus.documents import HIDDEN_COUNTS, SAMPLE_COUNT, draw_exercise
from hydragen_tiny.corpus.tasks import Split
from hydragen_tiny.model import FENCE
from hydragen_tiny.running import Test, solve_all
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.passk.summary import pass_at_k
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

KS = (1, 10, 100)
STOP = f"\n{FENCE}"
SHOTS = 2
MAX_TOKENS = 300


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the tests of what it asks for."""

    name: str
    prompt: str
    tests: tuple[Test, ...]


def draw_items(split: Split, count: int, seed: int) -> list[Item]:
    """Exercises of the split, each after two solved ones from the training compositions."""
    items = []
    for i in range(count):
        rng = Random(f"evaluate {split.value} {seed} {i}")
        shots = [draw_exercise(rng, Split.TRAIN).block() for _ in range(SHOTS)]
        exercise = draw_exercise(rng, split, counts=(SAMPLE_COUNT, SAMPLE_COUNT, *HIDDEN_COUNTS))
        prompt = "\n\n".join([*shots, exercise.block(solved=False)])
        items.append(Item(exercise.task.composition, prompt, exercise.tests))
    return items


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    n: int,
    *,
    temperature: float,
    rows: int,
) -> list[list[str]]:
    """n completions of every prompt, cut at the template's stop string.

    Args:
        model: a causal model.
        tokenizer: its tokenizer, padding on the left.
        prompts: texts.
        n: completions a prompt.
        temperature: divides the logits.
        rows: sequences sampled at a time.
    """
    fence = tokenizer.convert_tokens_to_ids(FENCE)
    completions: dict[str, list[str]] = {}
    by_length = sorted(dict.fromkeys(prompts), key=len)  # neighbours need little padding
    together = max(1, rows // n)
    for start in range(0, len(by_length), together):
        group = by_length[start : start + together]
        encoded = tokenizer(group, return_tensors="pt", padding=True, return_token_type_ids=False)
        drawn = model.generate(
            **encoded.to(model.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=n,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=[tokenizer.eos_token_id, fence],
        )
        new = drawn[:, encoded["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for i, prompt in enumerate(group):
            completions[prompt] = [text.partition(STOP)[0] for text in texts[i * n : (i + 1) * n]]
    return [completions[prompt] for prompt in prompts]


def sample_tree(
    sampler: Sampler, prompts: Sequence[str], n: int, settings: SamplingSettings
) -> list[list[str]]:
    """The same by this project's sampler, a prompt at a time."""
    return [[drawn.completion for drawn in sampler.sample([p], n, settings)] for p in prompts]


def complete(path: Path, options: argparse.Namespace) -> Callable[[Sequence[str]], list[list[str]]]:
    """Loads a model; returns what draws `options.samples` completions of every prompt."""
    n, temperature = options.samples, options.temperature
    if options.loop == "tree":
        sampler = Sampler.from_pretrained(str(path), device=options.device)
        settings = SamplingSettings(
            temperature=temperature, max_tokens=MAX_TOKENS, stop=(STOP,), seed=options.seed
        )
        return lambda prompts: sample_tree(sampler, prompts, n, settings)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).to(options.device).eval()
    return lambda prompts: sample(
        model, tokenizer, prompts, n, temperature=temperature, rows=options.rows
    )


def table(
    items: Sequence[Item], completions: Sequence[Sequence[str]], workers: int
) -> dict[str, Any]:
    """pass@k over the items and each item's count, by running every distinct program once."""
    distinct = [list(dict.fromkeys(texts)) for texts in completions]
    pairs = [(t, item.tests) for item, texts in zip(items, distinct, strict=True) for t in texts]
    verdicts = iter(solve_all(pairs, workers))
    right = [{text: next(verdicts) for text in texts} for texts in distinct]
    counts = [
        sum(known[text] for text in texts) for known, texts in zip(right, completions, strict=True)
    ]
    n = len(completions[0])
    return {
        "tasks": len(items),
        "samples_each": n,
        "pass@k": {
            str(k): round(sum(pass_at_k(n, c, k) for c in counts) / len(counts), 4)
            for k in KS
            if k <= n
        },
        "items": [
            {"name": item.name, "right": c, "distinct": len(texts)}
            for item, c, texts in zip(items, counts, distinct, strict=True)
        ],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure pass@k of the tiny model.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", type=Path, nargs="+", default=[MODEL_DIR])
    parser.add_argument("--splits", nargs="+", default=[split.name for split in Split])
    parser.add_argument("--tasks", type=int, default=100, help="exercises a split")
    parser.add_argument("-n", "--samples", type=int, default=200, help="samples an exercise")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=("transformers", "tree"), default="transformers")
    parser.add_argument("--rows", type=int, default=3000, help="sequences a time (transformers)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Samples, runs, and writes the tables, after every split those so far."""
    options = parse(arguments)
    torch.manual_seed(options.seed)
    splits = [Split[name] for name in options.splits]
    items = {split: draw_items(split, options.tasks, options.seed) for split in splits}
    figures: dict[str, Any] = {
        "temperature": options.temperature,
        "shots": SHOTS,
        "loop": options.loop,
        "models": {path.name: {} for path in options.model},
    }
    for path in options.model:
        draw = complete(path, options)
        for split in splits:
            completions = draw([item.prompt for item in items[split]])
            result = table(items[split], completions, options.workers)
            figures["models"][path.name][split.name.lower()] = result
            print(path.name, split.value, json.dumps(result["pass@k"]), flush=True)
            options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
