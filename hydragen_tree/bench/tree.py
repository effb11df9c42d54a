"""`hydragen bench tree`: a competitive-programming set, shared at one level and as a tree.

Problems with a two-shot root of 2,400 tokens in common, 350 tokens of their own, 128 samples of 512
tokens each, after the experiment in the Hydragen paper (arXiv 2402.05099, section 4.4). Compared
are, by the sampler's own loop on random weights:

    single level  every problem's prompt is shared by its samples, the root is kept for each problem
    tree          the root is kept once; the same batch
    tree, larger  the batch that the saved memory allows

The paper runs 120 problems; the default here is fewer, since all problems cost alike.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hydragen_tree.bench.configs import random_model
from hydragen_tree.bench.decode import PAGE_TOKENS, Rig
from hydragen_tree.prompts import Prompt
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.stream import stream_samples

ROOT_TOKENS, OWN_TOKENS = 2400, 350
SAMPLES, NEW_TOKENS = 128, 512
_SETTINGS = SamplingSettings(temperature=1.0, max_tokens=NEW_TOKENS)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the set."""

    way: str
    rows: int
    seconds: float
    tokens_s: float


def prompts(problems: int, vocabulary: int, shared: bool) -> list[Prompt]:
    """The set; without sharing, the first token of each prompt keeps their roots apart."""
    rng = np.random.default_rng(0)
    root = rng.integers(problems, vocabulary, ROOT_TOKENS)
    result = []
    for number in range(problems):
        own = rng.integers(problems, vocabulary, OWN_TOKENS)
        tokens = np.concatenate([root, own]).astype(np.int32)
        if not shared:
            tokens[0] = number
        result.append(Prompt(f"problem-{number}", 0, tokens, ()))
    return result


def rows_that_fit(tokens: int, shared: bool) -> int:
    """Rows, whole problems, whose grown tails and prompts fit into a cache of so many tokens."""
    tail = NEW_TOKENS + 2 * PAGE_TOKENS
    prompt = OWN_TOKENS + PAGE_TOKENS + (0 if shared else ROOT_TOKENS)
    room = tokens - (ROOT_TOKENS + PAGE_TOKENS if shared else 0)
    return room // (SAMPLES * tail + prompt) * SAMPLES


def run(
    name: str = "codellama-7b", problems: int = 6, compiled: bool = True
) -> list[dict[str, Any]]:
    """Measures, prints a table and returns its rows."""
    model, shape = random_model(name, compiled)
    rig = Rig(model, shape, int(model.model.config.vocab_size))
    tokens = rig.tokens_that_fit()
    alone, together = rows_that_fit(tokens, shared=False), rows_that_fit(tokens, shared=True)
    print(f"{name}, random weights; {problems} problems x {SAMPLES} samples x {NEW_TOKENS} tokens")
    print(f"{'':16s}{'rows':>8s}{'seconds':>10s}{'tokens/s':>10s}{'time':>8s}")
    cache = rig.cache(tokens)
    result: list[Row] = []
    ways = [("warm-up", False, alone, 1), ("single level", False, alone, problems)]
    ways += [("tree", True, alone, problems), ("tree, larger", True, together, problems)]
    for way, shared, rows, count in ways:
        start = time.perf_counter()
        batch = rig.run(prompts(count, rig.vocabulary, shared), SAMPLES, _SETTINGS, rows, cache)
        assert batch.decoder is not None
        drawn = sum(sample.n_tokens for sample in stream_samples(batch, batch.decoder))
        seconds = time.perf_counter() - start
        if way == "warm-up":  # compiles
            continue
        result.append(Row(way, rows, seconds, drawn / seconds))
        against = seconds / result[0].seconds
        print(f"{way:16s}{rows:8d}{seconds:10.1f}{drawn / seconds:10.0f}{against:8.0%}", flush=True)
    return [asdict(row) for row in result]
