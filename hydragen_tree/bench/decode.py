"""`hydragen bench decode`: whole decode steps of a named architecture, against three yardsticks.

    tree          a shared prefix, `rows` samples of it, 128 tokens each, by the sampler's own loop
    unshared      the same graphs and kernels, every row with a private copy of the prefix, at the
                  greatest number of rows that memory holds
    no attention  the same graphs with attention left out: what sharing can gain at the most
    roofline      linear layers, prefix and tails at the ceilings measured in this run, in series

Weights are random. Tokens a second are those of decoding in the steady state; prefill and the first
steps, in which samples still share rows, are given in seconds.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydragen_tree.bench.configs import random_model
from hydragen_tree.bench.timing import Ceilings, measure_ceilings
from hydragen_tree.cache import KVCache
from hydragen_tree.decoder import CHUNK_STEPS, Decoder
from hydragen_tree.engine import Engine
from hydragen_tree.fold import CUDA, KVShape
from hydragen_tree.fused import Heads
from hydragen_tree.ledger import Ledger, RunStats
from hydragen_tree.model import Attend, TreeModel
from hydragen_tree.prompts import Prompt
from hydragen_tree.run import Run
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.stream import Stream
from hydragen_tree.text import Detokenizer
from hydragen_tree.trie import Trie

NEW_TOKENS = 128
PAGE_TOKENS = 64
POINTS = ((32, 1024), (128, 4096), (512, 4096), (1024, 1024), (1024, 16384), (2048, 16384))
_SETTINGS = SamplingSettings(temperature=1.0, max_tokens=NEW_TOKENS)
_SPARE_BYTES = 6 << 30  # for activations and partials


@dataclass(frozen=True, slots=True)
class Row:
    """One batch; times of a step in milliseconds, speeds in tokens a second."""

    rows: int
    prefix: int
    prefill_s: float
    forking_s: float
    step_ms: float
    tokens_s: float
    roofline_tokens_s: float
    no_attention_tokens_s: float
    unshared_rows: int
    unshared_tokens_s: float


class NoText:
    """Stands in for a tokenizer: random weights say nothing."""

    def decode(self, _: list[int], **__: Any) -> str:
        """No text."""
        return ""


class WithoutAttention(TreeModel):
    """The model with its attention left out; keys and values are still stored."""

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        slots: Tensor,
        keep: Tensor | None,
        cache: KVCache,
        attend: Attend,
    ) -> Tensor:
        """As `TreeModel.forward`; every query is its own answer."""
        return super().forward(
            tokens, positions, slots, keep, cache, lambda queries, *_, **__: queries
        )


class Rig:
    """A model with a cache as large as memory allows.

    Args:
        model: the adapted model.
        shape: sizes of its keys and values.
        vocabulary: tokens it knows.
    """

    def __init__(self, model: TreeModel, shape: KVShape, vocabulary: int) -> None:
        self.model, self.shape, self.vocabulary = model, shape, vocabulary
        self.heads = Heads(
            shape.q_heads, shape.kv_heads, shape.head_dim, torch.bfloat16, model.device
        )

    def cache(self, n_tokens: int) -> KVCache:
        """An arena for so many tokens, whole pages."""
        pages = -(-n_tokens // PAGE_TOKENS)
        return KVCache(self.shape, pages, PAGE_TOKENS, torch.bfloat16, self.model.device, True)

    def tokens_that_fit(self) -> int:
        """Tokens whose keys and values fit beside the weights."""
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] - _SPARE_BYTES
        return free // self.shape.token_bytes

    def run(
        self,
        prompts: list[Prompt],
        n: int,
        settings: SamplingSettings,
        max_rows: int,
        cache: KVCache,
        trie: Trie | None = None,
        decoder: Decoder | None = None,
    ) -> Run:
        """A run of the sampler's own loop, without a tokenizer."""
        trie = trie or Trie.build(prompt.token_ids for prompt in prompts)
        stats = RunStats(started=time.perf_counter())
        text = Detokenizer(NoText(), self.vocabulary, ())
        ledger = Ledger(prompts, n, settings, text, (), {}, stats)
        engine = Engine(self.model, trie, cache, 8192)
        decoder = decoder or self.decoder(cache, settings, max_rows, len(trie.segments))
        return Run(engine, ledger, settings, CUDA, self.shape, max_rows, stats, decoder)

    def decoder(
        self, cache: KVCache, settings: SamplingSettings, max_rows: int, levels: int
    ) -> Decoder:
        """Fixed buffers for a run, or for steps without one."""
        pages = cache.pages_for(settings.max_tokens) + 1
        return Decoder(self.model, cache, self.heads, settings, max_rows, pages, levels)


def seconds(work: Callable[[], object]) -> float:
    """The time that some work takes, the device's included."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def random_prompt(length: int, vocabulary: int, task: str = "bench") -> Prompt:
    """Random token ids."""
    tokens = np.random.default_rng(length).integers(0, vocabulary, length)
    return Prompt(task, 0, tokens.astype(np.int32), ())


def time_tree(rig: Rig, rows: int, prefix: int) -> tuple[float, float, float]:
    """Seconds of prefill, of the steps that fork, and of one steady step."""
    prompt = random_prompt(prefix, rig.vocabulary)
    cache = rig.cache(prefix + (rows + 1) * (NEW_TOKENS + PAGE_TOKENS))
    decoder = None
    for _ in range(2):  # the first compiles and captures
        run = rig.run([prompt], rows, _SETTINGS, rows, cache, decoder=decoder)
        decoder = run.decoder
        assert decoder is not None
        prefill_s = seconds(run.admit)
        forking_s = seconds(partial(_fork, run))
        before = run.stats.rows_computed
        steady_s = seconds(partial(list, Stream(run, decoder).samples()))
        step_s = steady_s * rows / (run.stats.rows_computed - before)
    return prefill_s, forking_s, step_s


def _fork(run: Run) -> None:
    """The host's steps, for as long as rows may fork."""
    while not run.is_steady():
        list(run.step())


def time_private(rig: Rig, rows: int, length: int) -> float:
    """Seconds of a step of rows whose tails hold `length` tokens when it starts."""
    cache = rig.cache(rows * (length + NEW_TOKENS + 2 * PAGE_TOKENS))
    settings = SamplingSettings(temperature=1.0, max_tokens=length + NEW_TOKENS)
    decoder = rig.decoder(cache, settings, rows, 1)
    width = cache.pages_for(settings.max_tokens) + 1
    pages = cache.take(rows * width).reshape(rows, width)
    lengths = np.full(rows, length, np.int32)
    keys = np.arange(rows, dtype=np.int64)
    nothing = np.empty((0, 6), np.int32)
    decoder.load(
        lengths % 100, lengths, lengths, lengths + NEW_TOKENS, lengths * 0, keys, pages, nothing
    )

    def chunks(count: int) -> None:
        flying = decoder.launch(CHUNK_STEPS)
        for _ in range(count - 1):
            following = decoder.launch(CHUNK_STEPS)
            flying()
            flying = following
        flying()

    chunks(1)  # captures
    count = NEW_TOKENS // CHUNK_STEPS - 1
    return seconds(partial(chunks, count)) / count / CHUNK_STEPS


def roofline_s(rig: Rig, ceilings: Ceilings, rows: int, prefix: int) -> float:
    """The least time of a step: linear layers, prefix and half-grown tails, one after the other."""
    shape = rig.shape
    parameters = sum(p.numel() for p in rig.model.model.parameters())
    parameters -= rig.model.model.get_input_embeddings().weight.numel()
    flops = 4 * shape.layers * shape.q_heads * shape.head_dim * rows
    tail = NEW_TOKENS // 2
    return 1e-6 * (
        ceilings.least_us(2 * parameters, 2 * parameters * rows)
        + ceilings.least_us(prefix * shape.token_bytes, prefix * flops)
        + ceilings.least_us(rows * tail * shape.token_bytes, tail * flops)
    )


def measure(name: str, points: tuple[tuple[int, int], ...], compiled: bool) -> list[Row]:
    """All batches of one architecture; prints each as it is done."""
    ceilings = measure_ceilings()
    print(
        f"{ceilings.device}: copy {ceilings.copy_tb_s:.2f} TB/s, bf16 product "
        f"{ceilings.matmul_tflops:.0f} TFLOP/s; {name}, random weights, "
        f"{'compiled' if compiled else 'not compiled'}; tokens/s"
    )
    heading = "rows prefix prefill_s forking_s step_ms tree roofline reached no_attn of_it unshared"
    print("".join(f"{title:>10s}" for title in f"{heading} at_rows ratio".split()))
    model, shape = random_model(name, compiled)
    rig = Rig(model, shape, int(model.model.config.vocab_size))
    bare = Rig(WithoutAttention(model.model), shape, rig.vocabulary)
    result = []
    for rows, prefix in points:
        if prefix + (rows + 1) * (NEW_TOKENS + PAGE_TOKENS) > rig.tokens_that_fit():
            print(f"{rows:10d}{prefix:10d} does not fit")
            continue
        prefill_s, forking_s, step_s = time_tree(rig, rows, prefix)
        bare_s = time_private(bare, rows, 1)
        fits = rig.tokens_that_fit() // (prefix + NEW_TOKENS + 2 * PAGE_TOKENS)
        alone = min(rows, fits)
        alone_s = time_private(rig, alone, prefix)
        least_s = roofline_s(rig, ceilings, rows, prefix)
        row = Row(
            rows,
            prefix,
            prefill_s,
            forking_s,
            1e3 * step_s,
            rows / step_s,
            rows / least_s,
            rows / bare_s,
            alone,
            alone / alone_s,
        )
        result.append(row)
        _print(row)
    return result


def _print(row: Row) -> None:
    speeds = (row.tokens_s, row.roofline_tokens_s)
    print(
        f"{row.rows:10d}{row.prefix:10d}{row.prefill_s:10.2f}{row.forking_s:10.2f}"
        f"{row.step_ms:10.2f}"
        + "".join(f"{speed:10.0f}" for speed in speeds)
        + f"{row.tokens_s / row.roofline_tokens_s:10.0%}{row.no_attention_tokens_s:10.0f}"
        f"{row.tokens_s / row.no_attention_tokens_s:10.0%}{row.unshared_tokens_s:10.0f}"
        f"{row.unshared_rows:10d}{row.tokens_s / row.unshared_tokens_s:10.1f}",
        flush=True,
    )


def run(
    name: str = "llama-3.1-8b",
    points: tuple[tuple[int, int], ...] = POINTS,
    compiled: bool = True,
) -> list[dict[str, Any]]:
    """Measures, prints a table and returns its rows."""
    return [asdict(row) for row in measure(name, points, compiled)]
