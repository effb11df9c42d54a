"""`hydragen bench tree`: a competitive-programming set, shared at one level and as a tree.

Problems with a two-shot root of 2,400 tokens in common, 350 tokens of their own, 128 samples of 512
tokens each, after the experiment in the Hydragen paper (arXiv 2402.05099). Compared are, by the
sampler's own loop on random weights:

    single level  the root is shared by the whole batch; each row holds its problem's own tokens
    tree          samples of a problem share those too; as many rows as above
    tree, larger  as many rows as the saved memory allows

One level is one prefix and many suffixes, as in the paper's first form. Only so does a second level
save what the paper reports, 350 of 862 tokens a row. Single level is spared the work of computing
its copies of the problems: their places in the cache are taken, not filled. All ways take the set
in waves of equal size, as few as memory allows, so that no last wave is nearly empty.

The paper runs 120 problems (`--full`). All problems cost alike, so the default runs 12: 786,432
tokens a way, four minutes on one H200 with weights, compilation and capture, three of them
sampling. An H100 has two thirds of the bandwidth and half the memory: estimated seven. `--full`
takes ten times as long without the set-up, half an hour to an hour.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from hydragen_bench.configs import random_model
from hydragen_bench.rig import PAGE_TOKENS, Rig, pages_for
from hydragen_bench.table import line
from hydragen_bench.timing import synchronize
from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.decoder import Decoder
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.stepper import Waiting
from hydragen_tree.errors import CapacityError, InputError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.loop import Loop
from hydragen_tree.settings import SamplingSettings

PROBLEMS, ALL_PROBLEMS = 12, 120


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to draw.

    Attributes:
        problems: how many.
        samples: of each.
        new_tokens: of each sample.
        root_tokens: that all prompts begin with.
        own_tokens: of each prompt beyond the root.
    """

    problems: int = PROBLEMS
    samples: int = 128
    new_tokens: int = 512
    root_tokens: int = 2400
    own_tokens: int = 350

    @property
    def total(self) -> int:
        """Samples of all problems."""
        return self.problems * self.samples

    def tokens(self, vocabulary: int) -> tuple[Int32, Int32]:
        """The root, and `[problems, own_tokens]` what follows it."""
        rng = np.random.default_rng(0)
        own = rng.integers(0, vocabulary, (self.problems, self.own_tokens))
        own[:, 0] = np.arange(self.problems)  # no two problems begin alike
        return rng.integers(0, vocabulary, self.root_tokens).astype(np.int32), own.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the set.

    Attributes:
        way: its name.
        rows: of the batch.
        seconds: of the whole set, prefill included.
        tokens_s: tokens a second.
        error: of a step's logits against plain torch, relative.
    """

    way: str
    rows: int
    seconds: float
    tokens_s: float
    error: float


class UnfilledTails(Prefill):
    """Takes tails that branches come with as they lie: what they hold changes no time."""

    def tails(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def waves(total: int, fits: int) -> int:
    """Rows of a wave, when as few waves as possible share the samples evenly.

    Raises:
        CapacityError: not even one row fits.
    """
    if fits < 1:
        raise CapacityError("memory does not hold one sample beside the root")
    return -(-total // -(-total // fits))


def rows_that_fit(work: Work, tokens: int) -> tuple[int, int]:
    """Rows of a wave, with one level of sharing and with the tree, in a cache of so many tokens."""
    room = tokens // PAGE_TOKENS - pages_for(work.root_tokens)
    alone = pages_for(work.own_tokens + work.new_tokens) + 1
    # a problem's own pages are shared by its samples; a wave may begin and end inside a problem
    tail, problem = pages_for(work.new_tokens) + 1, pages_for(work.own_tokens)
    together = (room - 2 * problem) * work.samples // (work.samples * tail + problem)
    return waves(work.total, room // alone), waves(work.total, together)


class Way:
    """One way to run the set, and the buffers it needs.

    Args:
        rig: the model.
        work: the set.
        rows: of a wave.
        cache: for all ways.
        is_tree: whether samples of a problem share its own tokens.
    """

    def __init__(self, rig: Rig, work: Work, rows: int, cache: KVCache, is_tree: bool) -> None:
        self.rig, self.work, self.rows, self.cache = rig, work, rows, cache
        self.is_tree = is_tree
        tail = work.new_tokens + (0 if is_tree else work.own_tokens)
        self.settings = SamplingSettings(temperature=1.0, max_tokens=tail)
        self.decoder: Decoder = rig.decoder(cache, self.settings, rows, 2 if is_tree else 1)

    def begin(self) -> Loop:
        """A run of the set."""
        root, own = self.work.tokens(self.rig.vocabulary)
        common = self.settings, self.rows, self.cache, self.decoder
        if self.is_tree:
            prompts = [
                Prompt(f"problem-{i}", 0, np.append(root, tokens), ())
                for i, tokens in enumerate(own)
            ]
            return self.rig.run(prompts, self.work.samples, *common)
        prompt = Prompt("all", 0, root, ())
        # a sample whose first tokens are its problem's, as if it had drawn them
        waiting = [
            Waiting(0, own[sample // self.work.samples], np.array([sample]))
            for sample in reversed(range(self.work.total))
        ]
        return self.rig.run([prompt], self.work.total, *common, waiting, UnfilledTails)

    def measure(self, name: str) -> Row:
        """Warms up, checks, then draws the whole set."""
        error = self.rig.warm_up(self.begin(), self.decoder)
        loop = self.begin()
        synchronize()
        start = time.perf_counter()
        drawn = sum(1 for _ in loop.samples()) * self.work.new_tokens
        synchronize()
        seconds = time.perf_counter() - start
        return Row(name, self.rows, seconds, drawn / seconds, error)


def measure(rig: Rig, work: Work) -> Iterator[Row]:
    """Yields all ways, each as soon as it is done."""
    tokens = rig.tokens_that_fit(0)
    alone, together = rows_that_fit(work, tokens)
    way = partial(Way, rig, work, cache=rig.cache(tokens, together))
    yield way(rows=alone, is_tree=False).measure("single level")
    yield way(rows=alone, is_tree=True).measure("tree")
    yield way(rows=together, is_tree=True).measure("tree, larger")


def run(name: str = "codellama-7b", full: bool = False) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    Args:
        name: of the architecture.
        full: the paper's 120 problems.

    Raises:
        CapacityError: memory does not hold the model and one sample.
        InputError: its layers keep running states.
    """
    work = Work(ALL_PROBLEMS if full else PROBLEMS)
    model, shape = random_model(name)
    if model.state_kinds:
        raise InputError(
            "its layers keep running states, which a tree of prompts shares in another way; "
            "`hydragen bench decode` measures it",
            setting="architecture",
            value=name,
        )
    rig = Rig(model, shape, int(model.model.config.vocab_size))
    print(
        f"{name}, random weights; {work.problems} problems x {work.samples} samples x "
        f"{work.new_tokens} tokens after {work.root_tokens} + {work.own_tokens}"
    )
    print(f"{'':16s}{line(('rows', 'seconds', 'tokens/s', 'time'))}", flush=True)
    result: list[Row] = []
    for row in measure(rig, work):
        result.append(row)
        cells = f"{row.rows}", f"{row.seconds:.1f}", f"{row.tokens_s:.0f}"
        share = f"{row.seconds / result[0].seconds:.0%}"
        print(f"{row.way:16s}{line((*cells, share))}", flush=True)
    return {"architecture": name, **asdict(work), "rows": [asdict(row) for row in result]}
