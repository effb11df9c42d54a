"""`hydragen bench cpu`: what sharing gains on a CPU, as ratios within one run.

Part one, no forks: 256 samples of one prompt on a 3-million-parameter Llama with random weights,
32 new tokens each, every sample a row of its own from the first token. Compared are

    tree         prefix computed, stored and read once: prefill and decode
    generate     transformers.generate(num_return_sequences=256), same model and prompt
    unshared     our own decode with a private copy of the prefix for each row (decode alone)

Part two, forks: n samples of a shipped problem from the shipped model at temperature 0.8, against
a replay of the same samples with one row each; the median of several runs.

Part three, memory: what the process grows by, see `memory.py`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from hydragen_bench import memory
from hydragen_tree.branch.drawing import draw
from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.loading import ModelSource, find_model, load_weights
from hydragen_tree.problem.reading import load_problem
from hydragen_tree.run import run as run_all
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.trie.trie import Trie

SAMPLES = 256
NEW_TOKENS = 32
PREFIXES = (512, 2048)
TREES = 3  # runs of the tree for one of generate
_PAGE = 16
_WARM = SamplingSettings(temperature=1.0)
_PROBLEM = Path("problems/clock-digits.yaml")


@dataclass(frozen=True, slots=True)
class Row:
    """One prefix length; seconds are medians, decode figures exclude the prefill."""

    prefix: int
    tree_s: float
    generate_s: float
    tree_decode_s: float
    unshared_decode_s: float

    @property
    def against_generate(self) -> float:
        """How many times as fast as generate."""
        return self.generate_s / self.tree_s

    @property
    def against_unshared(self) -> float:
        """How many times as fast, decoding alone, as a copy of the prefix for each row."""
        return self.unshared_decode_s / self.tree_decode_s


def run(console: Console, problem: Path | None = None, repeats: int = 3) -> dict[str, Any]:
    """Runs all parts, prints what they found, and returns the figures."""
    disable_progress_bar()
    rows = prefix_rows(repeats)
    table = Table(title=f"{SAMPLES} samples x {NEW_TOKENS} tokens, no forks, random 3M Llama")
    for heading in (
        "prefix",
        "tree s",
        "generate s",
        "generate / tree",
        "unshared / tree (decode)",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row.prefix),
            f"{row.tree_s:.2f}",
            f"{row.generate_s:.2f}",
            f"{row.against_generate:.1f}",
            f"{row.against_unshared:.1f}",
        )
    console.print(table)
    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    figures["prefix"] = [
        {
            "tokens": row.prefix,
            "tree_s": row.tree_s,
            "generate_s": row.generate_s,
            "against_generate": row.against_generate,
            "against_unshared": row.against_unshared,
        }
        for row in rows
    ]
    problem = problem or _PROBLEM
    if problem.exists():
        figures["forks"] = forks(problem, repeats)
        console.print(_describe_forks(figures["forks"]), highlight=False)
    else:
        console.print(f"forks are not measured: {problem} is not here; name a --problem")
    figures["memory"] = memory.measure()
    console.print(_describe_memory(figures["memory"]), highlight=False)
    return figures


def _describe_forks(figures: dict[str, float]) -> str:
    return (
        "forks: {samples:,} samples, {tokens:,} tokens, {rows_per_token:.2f} rows a token; "
        "{seconds:.1f} s, {seconds_without_forks:.1f} s with a row for each sample: "
        "{gain:.2f} times as fast".format(**figures)
    )


def _describe_memory(figures: dict[str, float]) -> str:
    mib = {name: value / 2**20 for name, value in figures.items() if name.endswith("_bytes")}
    return (
        "memory: {peak_bytes:,.0f} MiB at the peak for {distinct_kv_bytes:,.0f} MiB of distinct "
        "keys and values and {weights_bytes:,.0f} MiB of weights".format(**mib)
        + f": {figures['ratio']:.2f} times"
    )


def _small_llama() -> tuple[ModelSource, Any, TreeModel]:
    """Random weights: where they are, as transformers runs them, and as the tree does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        source = find_model(folder)
        plain = load_weights(source).eval()
        model = TreeModel(load_weights(source))
    return source, plain, model


def prefix_rows(repeats: int) -> list[Row]:
    """Part one: through the tree, by `generate`, and through the tree without sharing."""
    source, plain, model = _small_llama()
    rng = np.random.default_rng(0)
    result = []
    for prefix in PREFIXES:
        prompt = rng.integers(0, 1024, prefix).astype(np.int32)
        tails = (SAMPLES + 1) * (NEW_TOKENS // _PAGE + 1)
        shared = KVCache(source.shape, prefix // _PAGE + tails, _PAGE, source.dtype, source.device)

        def shared_prompt(prompt: Any = prompt, cache: KVCache = shared) -> float:
            trie = Trie.build([prompt])
            tree = Residency(trie, cache)
            tree.place([0])
            logits = Prefill(model, trie, tree.table, cache, 2048).segments([0])[0]
            logits = logits.repeat(SAMPLES, 1)
            spent = _decode(model, cache, tree, logits, np.zeros(SAMPLES, np.int32), prompt.size)
            tree.evict(0)
            return spent

        def generate(prompt: Any = prompt) -> None:
            ids = torch.from_numpy(prompt.astype(np.int64))[None]
            with torch.inference_mode():
                out = plain.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    top_k=0,
                    num_return_sequences=SAMPLES,
                    max_new_tokens=NEW_TOKENS,
                )
            assert out.shape == (SAMPLES, prompt.size + NEW_TOKENS)

        copies = KVCache(
            source.shape, SAMPLES * (prefix // _PAGE) + tails, _PAGE, source.dtype, source.device
        )

        def unshared(prefix: int = prefix, cache: KVCache = copies) -> float:
            rows = [
                np.append(np.int32(row), np.zeros(prefix - 1, np.int32)) for row in range(SAMPLES)
            ]
            tree = Residency(Trie.build(rows), cache)
            tree.place(list(range(SAMPLES)))
            cache.keys.normal_()
            logits = torch.randn(SAMPLES, 1024)
            each = np.arange(SAMPLES, dtype=np.int32)
            spent = _decode(model, cache, tree, logits, each, prefix)
            tree.evict_unused(np.empty(0, np.int32))
            return spent

        # In turns, and the short one more often: a shared machine changes its speed by the minute.
        trees, generates = [], []
        for _ in range(repeats):
            trees += [_timed(shared_prompt) for _ in range(TREES)]
            generates.append(_timed(generate))
        unshareds = [_timed(unshared) for _ in range(repeats)]  # last: its copies stay in memory
        (tree_s, tree_decode_s), (generate_s, _), (_, unshared_decode_s) = map(
            _medians, (trees, generates, unshareds)
        )
        result.append(Row(prefix, tree_s, generate_s, tree_decode_s, unshared_decode_s))
    return result


def _decode(
    model: TreeModel,
    cache: KVCache,
    tree: Residency,
    logits: torch.Tensor,
    segments: Any,
    position: int,
) -> float:
    """Draws and decodes NEW_TOKENS tokens of SAMPLES rows; returns the seconds of the decoding."""
    rows = np.arange(SAMPLES, dtype=np.int32)
    each = NEW_TOKENS // _PAGE + 1
    pages = cache.take(SAMPLES * each).reshape(each, SAMPLES).T  # one for all rows, as a run does
    keys = rows.astype(np.uint64)
    start = time.perf_counter()
    for step in range(NEW_TOKENS):
        tokens = draw(logits, rows, keys, np.full(SAMPLES, step), _WARM).tokens.astype(np.int32)
        if step < NEW_TOKENS - 1:
            tails = np.full(SAMPLES, step, np.int32)
            positions = np.full(SAMPLES, position + step, np.int32)
            logits = decode_tokens(
                model, cache, tree.table, tokens, positions, segments, pages, tails
            )
    spent = time.perf_counter() - start
    cache.release(pages.flatten())
    return spent


def _timed(work: Callable[[], float | None]) -> tuple[float, float]:
    """Seconds of the whole, and of the part that `work` returns, where it does."""
    start = time.perf_counter()
    part = work() or 0.0
    return time.perf_counter() - start, part


def _medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Median of the wholes, and median of the parts."""
    whole, part = (statistics.median(column) for column in zip(*runs, strict=True))
    return whole, part


def forks(path: Path, repeats: int, n: int = 1000) -> dict[str, float]:
    """Part two: the shipped model with forks, and the same samples with a row each."""
    sampler = Sampler.from_pretrained()
    problem = load_problem(path)
    settings = SamplingSettings(temperature=0.8)
    samples = list(sampler.sample([problem], n, settings))

    def draw_all() -> None:
        run_all([problem], n, sampler=sampler, settings=settings)

    forked_s, _ = _medians([_timed(draw_all) for _ in range(repeats)])
    replayed_s, _ = _medians(
        [_timed(lambda: replay(sampler, samples, problem)) for _ in range(repeats)]
    )
    stats = sampler.stats
    return {
        "samples": n,
        "distinct_programs": len({sample.solution for sample in samples}),
        "tokens": stats.tokens_sampled,
        "rows_per_token": stats.rows_computed / stats.tokens_sampled,
        "seconds": forked_s,
        "seconds_without_forks": replayed_s,
        "gain": replayed_s / forked_s,
    }


def replay(sampler: Sampler, samples: list[Sample], problem: Any) -> None:
    """Runs samples through the model again, a row each, prompts shared, in batches of rows."""
    from hydragen_tree.prompt.prompts import build_prompts

    prompts = build_prompts([problem], sampler.tokenizer)
    trie = Trie.build(prompt.token_ids for prompt in prompts)
    longest = max(sample.n_tokens for sample in samples)
    each = longest // _PAGE + 1
    pages = sum(-(-s.tokens.size // _PAGE) for s in trie) + SAMPLES * each
    source = sampler.source
    cache = KVCache(source.shape, pages, _PAGE, source.dtype, source.device)
    model, tree = sampler.model, Residency(trie, cache)
    tree.place([segment.index for segment in trie])
    Prefill(model, trie, tree.table, cache, 2048).segments([segment.index for segment in trie])
    for first in range(0, len(samples), SAMPLES):
        batch = samples[first : first + SAMPLES]
        leaves = trie.prompt_leaves[[sample.prompt_variant for sample in batch]]
        order = np.argsort(leaves, kind="stable")
        batch, segments = [batch[i] for i in order], trie.leaf_segments[leaves[order]]
        table = cache.take(len(batch) * each).reshape(each, len(batch)).T
        lengths = np.array([sample.n_tokens for sample in batch])
        starts = np.array([trie.end(int(segment)) for segment in segments])
        for step in range(int(lengths.max()) - 1):
            live = np.flatnonzero(lengths > step + 1)
            tokens = np.array([batch[row].token_ids[step] for row in live], np.int32)
            tails = np.full(live.size, step, np.int32)
            logits = decode_tokens(
                model,
                cache,
                tree.table,
                tokens,
                starts[live] + step,
                segments[live],
                table[live],
                tails,
            )
            keys = live.astype(np.uint64)
            draw(logits, np.arange(live.size, dtype=np.int32), keys, tails.astype(np.int64), _WARM)
        cache.release(table.flatten())
