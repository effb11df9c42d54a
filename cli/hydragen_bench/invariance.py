"""`hydragen bench invariance`: is a sample the same, whatever shares its batch?

A set is drawn once as usual. Then it is drawn in other ways that must not matter: other rows, n,
memory, order and company of problems, shards, a resume. Every sample of another way is compared
with the same sample of the usual one, tokens and log-probabilities bit for bit. In the
batch-invariant mode, which promises that none differs, other numbers of threads are ways too, on a
CPU, each in a process of its own.

    samples    compared
    tokens     of them, how many differ in a token
    first      the first token at which any of these differs
    logprobs   how many differ in a log-probability of a token that is the same
    apart      the greatest difference of these, in nats
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hydragen_bench.sets import read_prompts
from hydragen_bench.table import line
from hydragen_kernels.inputs import dtype_name
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Shard
from hydragen_tree.settings import SamplingSettings

STATEMENTS = (
    "# Read two numbers and print their sum.\n",
    "# Read two numbers and print the larger one.\n",
    "# Read n, then n numbers, a line each. Print how many are even.\n",
    "# Read a word and print it backwards.\n",
)
_NAME = 26  # characters of a way's name in the table
_THREADS = (1, 2, 16)
_TIGHT_TAILS = 3  # whole tails that fit into little memory

Drawn = dict[tuple[str, int], Sample]


class Run(NamedTuple):
    """What a way draws, and how.

    Attributes:
        prompts: of one call of the sampler.
        n: samples of each.
        options: further arguments of `Sampler.sample`.
        rows: of the batch at the most; None: as usual.
        memory_bytes: for keys and values; None: as usual.
    """

    prompts: Sequence[Prompt]
    n: int
    options: Mapping[str, Any] = {}
    rows: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one way; see the module.

    Attributes:
        way: its name.
        samples: compared.
        tokens: samples that differ in a token.
        first: the first differing token of any; None: none differs.
        logprobs: samples that differ in a log-probability before.
        apart: the greatest difference of these.
    """

    way: str
    samples: int
    tokens: int
    first: int | None
    logprobs: int
    apart: float


def ways(prompts: Sequence[Prompt], n: int, tight_bytes: int) -> dict[str, list[Run]]:
    """All ways to draw a set or parts of it, by name, as the calls of the sampler they take.

    Args:
        prompts: of the set.
        n: samples of each in the usual way.
        tight_bytes: memory in which samples have to wait for each other.
    """
    half = {prompt.task_id: range(0, n, 2) for prompt in prompts}
    found = {f"{rows} rows": [Run(prompts, n, rows=rows)] for rows in (2, 7, 64)}
    found |= {f"n = {few}": [Run(prompts, few)] for few in sorted({1, max(1, n // 4)})}
    found["problem by problem"] = [Run([prompt], n) for prompt in prompts]
    found["the other way round"] = [Run(prompts[::-1], n)]
    found["little memory"] = [Run(prompts, n, memory_bytes=tight_bytes)]
    found["three shards"] = [Run(prompts, n, {"shard": Shard(i, 3)}) for i in (1, 2, 3)]
    found["resumed, every other one"] = [Run(prompts, n, {"done": half})]
    return found


def draw(sampler: Sampler, runs: Sequence[Run], settings: SamplingSettings) -> Drawn:
    """The samples of some calls, by task id and index."""
    usual = sampler.max_rows, sampler.memory_bytes
    found: Drawn = {}
    for run in runs:
        sampler.max_rows, sampler.memory_bytes = run.rows or usual[0], run.memory_bytes or usual[1]
        try:
            for sample in sampler.sample(run.prompts, run.n, settings, **run.options):
                found[sample.task_id, sample.sample_index] = sample
        finally:
            sampler.max_rows, sampler.memory_bytes = usual
    return found


def compare(way: str, found: Drawn, usual: Drawn) -> Row:
    """Holds each sample against the same one of the usual way."""
    firsts, apart = [], []
    for key, sample in found.items():
        pair = sample.token_ids, usual[key].token_ids
        shorter = min(map(len, pair))
        parted = np.flatnonzero(np.array(pair[0][:shorter]) != np.array(pair[1][:shorter]))
        same = int(parted[0]) if parted.size else shorter
        if pair[0] != pair[1]:
            firsts.append(same)
        ours, theirs = (np.array(one.token_logprobs)[:same] for one in (sample, usual[key]))
        apart.append(float(np.abs(ours - theirs).max(initial=0.0)))
    return Row(
        way,
        len(found),
        len(firsts),
        min(firsts, default=None),
        sum(difference > 0 for difference in apart),
        max(apart, default=0.0),
    )


def measure(
    sampler: Sampler, prompts: Sequence[Prompt], n: int, settings: SamplingSettings
) -> Iterator[Row]:
    """Yields all ways, each as soon as it is drawn."""
    page = sampler.page_tokens
    longest = max(-(-len(prompt.token_ids) // page) for prompt in prompts)
    tail = -(-settings.max_tokens // page) + 1
    pages = longest + 1 + _TIGHT_TAILS * tail
    tight = pages * page * sampler.source.shape.token_bytes
    usual = draw(sampler, [Run(prompts, n)], settings)
    for way, runs in ways(prompts, n, tight).items():
        yield compare(way, draw(sampler, runs, settings), usual)
    if sampler.source.batch_invariant and sampler.source.device.type == "cpu":
        yield from _by_threads(sampler.source, prompts, n, settings, usual)


def _by_threads(
    source: ModelSource, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, usual: Drawn
) -> Iterator[Row]:
    """Yields what several numbers of threads draw, each in a process of its own."""
    for threads in _THREADS:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            drawn = process.submit(_drawn_by, threads, source, prompts, n, settings).result()
        yield compare(f"threads: {threads}", drawn, usual)


def _drawn_by(
    threads: int,
    source: ModelSource,
    prompts: Sequence[Prompt],
    n: int,
    settings: SamplingSettings,
) -> Drawn:
    torch.set_num_threads(threads)
    return draw(Sampler(source), [Run(prompts, n)], settings)


def run(
    model: str = "tiny",
    *,
    prompts: Path | None = None,
    n: int = 32,
    temperature: float = 0.8,
    max_tokens: int = 48,
    dtype: str = "auto",
    batch_invariant: bool = False,
) -> dict[str, Any]:
    """Draws, prints a table and returns its figures.

    Args:
        model: as `Sampler.from_pretrained` takes it.
        prompts: JSON lines; None: a few that are made up.
        n: samples of each prompt.
        temperature: at which they are drawn.
        max_tokens: of a sample at the most.
        dtype: as `Sampler.from_pretrained` takes it.
        batch_invariant: likewise.

    Raises:
        InputError: a bad setting or file.
        ModelError: the model is missing, broken or not supported.
    """
    settings = SamplingSettings(temperature=temperature, max_tokens=max_tokens, logprobs=True)
    sampler = Sampler.from_pretrained(model, dtype=dtype, batch_invariant=batch_invariant)
    if prompts is None:
        built = prompts_from_sources(STATEMENTS, sampler.tokenizer)
    else:
        built = read_prompts(prompts, sampler.tokenizer)
    mode = ", batch-invariant" if batch_invariant else ""
    kind = dtype_name(sampler.source.dtype)
    print(
        f"{model}, {kind} on {sampler.source.device.type}{mode}; {len(built)} prompts x {n} "
        f"samples of up to {max_tokens} tokens, temperature {temperature}",
        flush=True,
    )
    print(f"{'':{_NAME}s}{line(('samples', 'tokens', 'first', 'logprobs', 'apart'))}")
    rows = []
    for row in measure(sampler, built, n, settings):
        rows.append(row)
        first = "-" if row.first is None else str(row.first)
        cells = str(row.samples), str(row.tokens), first, str(row.logprobs), f"{row.apart:.1e}"
        print(f"{row.way:{_NAME}s}{line(cells)}", flush=True)
    return {
        "model": model,
        "dtype": kind,
        "batch_invariant": batch_invariant,
        "n": n,
        "rows": [asdict(row) for row in rows],
    }
