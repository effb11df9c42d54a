"""Measures our own runs, in a process of their own: `python -m hydragen_bench.run_child JOB OUT`.

JOB is a JSON object:

    model     directory of the weights, or another name of a model
    weights   of linear layers, as `find_model` takes it
    devices   those that draw, a process on each; null: this process draws
    tensor_parallel  devices that have the model together
    batch_invariant  in this mode
    started   time.time() when this process was called
    runs      [{"prompts": [{"task_id", "text", "token_ids"}, ...], "n", "temperature", "top_p",
              "max_tokens", "stop", "seed"}, ...]
    repeats   how often each is run; the first time compiles and captures what it needs

OUT gets a line of JSON for the start-up, {"imported_s", "loaded_s", "device", "device_name",
"workers", "dtype", "attention", "rows", "threads"} (processes of devices load in the first run
only), then one for each run and repeat, see `measure`.
"""

import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from hydragen_kernels.inputs import dtype_name
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.run import run
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.records import RunStats
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.spread.devices import device_crew, find_devices, usual_devices
from hydragen_tree.spread.estimate import estimate
from hydragen_tree.spread.pace import Pace
from hydragen_tree.spread.spread_sampler import SpreadSampler
from hydragen_tree.trie.costs import device_name

_INTERVAL_S = 0.01


class FirstToken:
    """Looks at the figures of a run from beside it, until there is a token.

    Attributes:
        at: `time.perf_counter()` of the first token seen; None before.
    """

    def __init__(self, sampler: Sampler) -> None:
        sampler.stats = RunStats()  # those of an earlier run have tokens
        self.at: float | None = None
        self._sampler, self._is_over = sampler, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "FirstToken":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.at is None and not self._is_over.wait(_INTERVAL_S):
            if self._sampler.stats.tokens_sampled:
                self.at = time.perf_counter()


def measure(sampler: Sampler, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run, from the texts of its prompts to its last line in a file.

    Args:
        sampler: its weights are loaded.
        asked: an entry of the job's `runs`.
        folder: for the samples.

    Returns:
        `began` (`time.time()`), `seconds`, `planned_s` (that `hydragen plan` gives such a run by
        its constants, once it knows the samples' lengths and the rows of a token), `cpu_s` (of all
        threads, user and system; None where other processes draw), `first_token_s` and
        `first_sample_s` from its beginning on, `ends` (samples by what ended them), `distinct`
        (completions, each problem by itself),
        `logprob_bits` (mean bits of a drawn token under the model's own distribution), and the
        run's statistics.
    """
    settings = SamplingSettings(
        asked["temperature"],
        top_p=asked["top_p"],
        max_tokens=asked["max_tokens"],
        stop=asked["stop"],
        seed=asked["seed"],
    )
    ends: Counter[str] = Counter()
    lengths: list[int] = []
    first_sample_s, nats = 0.0, 0.0

    def keep(sample: Sample) -> None:
        nonlocal first_sample_s, nats
        writer.write(sample)
        first_sample_s = first_sample_s or time.perf_counter() - start
        ends[sample.finish_reason] += 1
        lengths.append(sample.n_tokens)
        nats -= sample.logprob

    path = folder / "samples.jsonl"
    with FirstToken(sampler) as first, SampleWriter(path, force=True) as writer:
        began, start, start_cpu = time.time(), time.perf_counter(), time.process_time()
        sources = [
            (each["task_id"], each["text"] or each["token_ids"]) for each in asked["prompts"]
        ]
        prompts = prompts_from_sources(sources, sampler.tokenizer)
        writer.begin(
            Manifest.describe(
                prompts,
                n=asked["n"],
                settings=settings,
                model=sampler.fingerprint,
                problems={},
                ends=sampler.ends(prompts, settings).record(),
            )
        )
        run(prompts, asked["n"], sampler=sampler, settings=settings, keep=keep)
        writer.finish({})
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    stats = sampler.stats
    return {
        "began": began,
        "seconds": seconds,
        "planned_s": _planned_s(sampler, prompts, asked["n"], lengths),
        "cpu_s": None if isinstance(sampler, SpreadSampler) else cpu_s,
        "first_token_s": seconds if first.at is None else first.at - start,
        "first_sample_s": first_sample_s,
        "ends": dict(ends),
        "distinct": writer.tally.distinct_programs,
        "logprob_bits": nats / math.log(2) / stats.tokens_sampled,
        **asdict(stats),
    }


def _planned_s(
    sampler: Sampler, prompts: Sequence[Prompt], n: int, lengths: Sequence[int]
) -> float:
    stats = sampler.stats
    pace = replace(
        Pace.of(sampler.source),
        lengths=np.sort(np.array(lengths, np.int64)),
        rows_a_token=stats.rows_computed / stats.tokens_sampled,
    )
    return estimate(
        sampler.outline(prompts, n),
        workers=len(sampler.workers) if isinstance(sampler, SpreadSampler) else 1,
        max_tokens=max(lengths),
        max_rows=sampler.max_rows,
        pace=pace,
    ).draw_s


def main(job_path: str, out_path: str) -> None:
    """Runs a job; every line of the answer is there as soon as it is known."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    imported_s = time.time() - job["started"]
    with ExitStack() as stack:
        out = stack.enter_context(Path(out_path).open("w", encoding="utf-8"))
        place = stack.enter_context(TemporaryDirectory())

        def answer(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        ranks = job["tensor_parallel"]
        sampler = Sampler.from_pretrained(
            job["model"],
            weights=job["weights"],
            tensor_parallel=ranks,
            batch_invariant=job["batch_invariant"],
        )
        workers: list[str] = []
        if job["devices"] or ranks > 1:
            sampler = stack.enter_context(_spread(sampler, job["devices"]))
            workers = [worker.name for worker in sampler.workers]
        else:
            _ = sampler.model  # loads the weights
        answer(
            imported_s=imported_s,
            loaded_s=time.time() - job["started"],
            device=str(sampler.source.device),
            device_name=device_name(sampler.source.device),
            workers=workers,
            dtype=dtype_name(sampler.source.dtype),
            attention=sampler.backend,
            rows=sampler.max_rows,
            threads=torch.get_num_threads(),
        )
        for asked in job["runs"]:
            for _ in range(job["repeats"]):
                answer(**measure(sampler, asked, Path(place)))


def _spread(sampler: Sampler, devices: str | None) -> SpreadSampler:
    source = sampler.source
    named = find_devices(devices) if devices else usual_devices(source.device, source.ranks)
    return SpreadSampler(sampler, device_crew(sampler, named), partial(print, file=sys.stderr))


if __name__ == "__main__":
    main(*sys.argv[1:])
