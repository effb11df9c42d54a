"""How long a worker takes for a step, by measured constants, or by an earlier run.

A step reads all weights once, or multiplies by them for as long as its rows need, whichever is
more; of experts those that rows choose, one as often as another. Likewise the keys and values of
its prompts; it reads those of its tails; tokens are drawn from all logits; and every layer has a
share that does not depend on anything. Captured steps are for some numbers of rows only, and a
sample that has ended keeps its row until the host has been told. What the constants leave out, an
earlier run of the same model shows: its time over the time that they give for it, one factor. Both
follow a worker through its samples, step by step: so an earlier run is estimated as it was.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hydragen_tree.branch.budget import padded_rows
from hydragen_tree.branch.chunk import CHUNK_S, CHUNK_STEPS
from hydragen_tree.errors import InputError
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.expert_layers import expert_weights
from hydragen_tree.model.explain import weight_bytes
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.sample.lines import SampleLine, read_samples
from hydragen_tree.sample.manifest import Manifest, manifest_path


@dataclass(frozen=True, slots=True)
class DeviceConstants:
    """What was measured on a device.

    Attributes:
        where: on which, and where the figures are.
        bandwidth: bytes a second.
        flops: of matrix products, a second, as they are held.
        reached: share of both that whole steps reach.
        layer_s: seconds that a layer takes besides.
        logit_s: seconds of a logit in drawing, with top-p.
        chunk: steps that are launched at a time at the most, captured ones; 0: the host takes each
            by itself.
        chunk_s: seconds from which on they are fewer.
        sum_s: seconds of one sum over the ranks of a model, but for its bytes.
        sum_bandwidth: bytes of sums a second.
        start_s: seconds from the command to the first token, but for reading weights.
        load: bytes of weights a second, from a disk's cache to the device.
    """

    where: str
    bandwidth: float
    flops: float
    reached: float
    layer_s: float
    logit_s: float
    chunk: int
    chunk_s: float
    sum_s: float
    sum_bandwidth: float
    start_s: float
    load: float


# 14 steps of Llama-3.1-8B and CodeLlama-13b on one card, of the latter and half a Llama of 70B on
# two, 32 to 1,024 rows behind 1,024 to 16,384 tokens, are within 12 % of these. Sums are of two,
# joined with what follows them.
CUDA = DeviceConstants(
    where="an H200 (NOTES.md)",
    bandwidth=4.27e12,
    flops=664e12,
    reached=0.92,
    layer_s=50e-6,
    logit_s=7e-12,
    chunk=CHUNK_STEPS,
    chunk_s=CHUNK_S,
    sum_s=5e-6,
    sum_bandwidth=300e9,
    start_s=14.0,
    load=1e9,
)
# Of a thread, with the shipped model (`model/small_runs.py`), whose weights are in the cache.
CPU = DeviceConstants(
    where="a thread of an AMD EPYC (NOTES.md)",
    bandwidth=10e9,
    flops=20e9,
    reached=1.0,
    layer_s=1.2e-3,
    logit_s=0.0,  # hidden in the layers' share
    chunk=0,
    chunk_s=0.0,
    sum_s=0.3e-3,
    sum_bandwidth=4e9,
    start_s=8.0,
    load=1e9,
)


_FOLLOWED = 100_000  # samples of a worker at the most; those before them are drawn at full speed
_FORK_MARGIN = 1.2  # rows of a graph for one that there is, while samples may part


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker draws of a run.

    Attributes:
        samples: how many.
        max_tokens: of each.
        max_rows: of its batch.
        held: distinct tokens of the prompts that a batch is below.
        prompt: tokens of a sample's prompt, in the mean.
        prefill: prompt tokens that it computes.
    """

    samples: int
    max_tokens: int
    max_rows: int
    held: float
    prompt: float
    prefill: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """How long that takes.

    Attributes:
        seconds: in all.
        busy_s: the same, had all steps been at full speed.
        running_out_s: of `seconds`, that in which the batch is not full any more.
        mean_tokens: of a sample.
    """

    seconds: float
    busy_s: float
    running_out_s: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one worker draws from a model.

    Attributes:
        weights: bytes that a step reads, if rows choose all experts.
        expert_bytes: of these, experts'.
        expert_share: of them that a row chooses.
        parameters: numbers that a row is multiplied by.
        layers: of the model.
        ranks: devices that a worker has.
        row_bytes: of a row between layers.
        vocabulary: logits of a row.
        token_bytes: of keys and values of a token.
        tail_token_bytes: of what a tail holds of one.
        token_flops: of a row's attention to a token.
        device: its constants, of all its threads.
        factor: by which an earlier run took longer than the constants say.
        start_s: until weights are there.
        lengths: `[samples]` tokens of samples that were drawn; None: of none.
        rows_a_token: rows computed for a token drawn.
        origin: where all this is from.
    """

    weights: int
    expert_bytes: int
    expert_share: float
    parameters: int
    layers: int
    ranks: int
    row_bytes: int
    vocabulary: int
    token_bytes: int
    tail_token_bytes: int
    token_flops: int
    device: DeviceConstants
    factor: float
    start_s: float
    lengths: NDArray[np.int64] | None
    rows_a_token: float
    origin: str

    @classmethod
    def of(cls, source: ModelSource) -> "Pace":
        """By constants alone.

        Args:
            source: the model; of its weights there is no need.
        """
        model = without_weights(source.config, source.dtype)
        sizes = weight_bytes(source, model)
        weights = sum(sizes.values())
        parameters = sum(n_bytes // kind.itemsize for kind, n_bytes in sizes.items())
        if not getattr(source.config, "tie_word_embeddings", False):  # one row of it is read
            embedding = int(source.config.vocab_size) * int(source.config.hidden_size)
            parameters -= embedding
            weights -= embedding * source.dtype.itemsize
        experts, share = expert_weights(model)
        parameters -= round(experts * (1.0 - share))
        device = CUDA
        if source.device.type != "cuda":
            device = replace(CPU, flops=CPU.flops * torch.get_num_threads())
        return cls(
            weights=weights,
            expert_bytes=experts * source.dtype.itemsize,
            expert_share=share,
            parameters=parameters,
            layers=source.shape.layers,
            ranks=source.ranks,
            row_bytes=int(source.config.hidden_size) * source.dtype.itemsize,
            vocabulary=int(source.config.vocab_size),
            token_bytes=source.shape.token_bytes,
            tail_token_bytes=source.shape.tail_token_bytes,
            token_flops=4 * source.shape.layers * source.shape.q_heads * source.shape.head_dim,
            device=device,
            factor=1.0,
            start_s=device.start_s + weights / device.load,
            lengths=None,
            rows_a_token=1.0,
            origin=f"constants of {device.where}",
        )

    def step_s(
        self, rows: NDArray[np.float64], held: float, prompt: float, tail: float
    ) -> NDArray[np.float64]:
        """Seconds of steps, by their rows.

        Args:
            rows: of each step, those that carry nothing any more included.
            held: distinct tokens of the prompts that the batch is below.
            prompt: tokens of a row's prompt, in the mean.
            tail: tokens that a row has of its own, in the mean.
        """
        own = self.device
        left_out = self.expert_bytes * (1.0 - self.expert_share) ** rows  # that no row chooses
        read_s = (self.weights - left_out) / own.bandwidth
        products = np.maximum(read_s, 2 * self.parameters * rows / own.flops)
        attention = np.maximum(
            held * self.token_bytes / own.bandwidth, rows * prompt * self.token_flops / own.flops
        )
        attention += rows * tail * self.tail_token_bytes / own.bandwidth
        sums = own.sum_s + rows * self.row_bytes / own.sum_bandwidth
        layer = own.layer_s + (2 * sums if self.ranks > 1 else 0.0)
        drawing = rows * self.vocabulary * own.logit_s
        linear = (products + attention) / own.reached
        seconds: NDArray[np.float64] = linear + drawing + self.layers * layer
        return self.factor * seconds

    def prefill_s(self, tokens: float) -> float:
        """Seconds of prompt tokens."""
        own = self.device
        return self.factor * 2 * self.parameters * tokens / own.flops / own.reached

    def draw(self, share: Share) -> Drawn:
        """Follows a worker: its rows are full until nothing waits, then end one after the other."""
        lengths = _lengths(share.samples, share.max_tokens, self.lengths)
        mean = float(lengths.mean())
        own = share.held, share.prompt, mean / 2
        full_s = float(self.step_s(self._rows(np.array([share.max_rows])), *own)[0])
        full_rate = share.max_rows / full_s
        # In the mean a sample ends in the middle of a chunk, and one more is on its way.
        chunk = min(float(self.device.chunk), self.device.chunk_s / full_s)
        held = lengths + math.ceil(chunk) * 3 // 2
        samples = _samples_by_step(held[-_FOLLOWED:], share.max_rows)
        seconds = self.step_s(self._rows(samples), *own)
        before_s = float(held[:-_FOLLOWED].sum()) / full_rate + self.prefill_s(share.prefill)
        is_full = samples == share.max_rows
        last_full = int(np.flatnonzero(is_full)[-1]) if is_full.any() else -1
        drawn_s = before_s + float(seconds.sum())
        return Drawn(
            seconds=drawn_s,
            busy_s=min(before_s + float(samples.sum()) / full_rate, drawn_s),
            running_out_s=float(seconds[last_full + 1 :].sum()),
            mean_tokens=mean,
        )

    def _rows(self, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows that steps have for so many samples: of the graphs, where they are captured."""
        rows = (samples * self.rows_a_token).astype(np.float64)
        if not self.device.chunk:
            return rows
        room = np.minimum(samples, np.ceil(_FORK_MARGIN * rows)).astype(np.int64)
        sizes, places = np.unique(room, return_inverse=True)
        padded = np.array([padded_rows(max(1, size)) for size in sizes.tolist()], np.float64)
        return np.asarray(padded[places], np.float64)

    def like(self, samples: Path, fingerprint: Mapping[str, str]) -> "Pace":
        """The pace of an earlier run's workers, and its samples' lengths.

        Args:
            samples: its file; the manifest lies beside it.
            fingerprint: of the model.

        Raises:
            InputError: it is of another model, or has not come to an end.
        """
        manifest = Manifest.read(manifest_path(samples))
        for name in ("sha256", "dtype", "device"):
            if manifest.model.get(name) != fingerprint[name]:
                raise InputError(
                    f"its model's {name} is {manifest.model.get(name)}, not {fingerprint[name]}",
                    setting="like",
                    value=samples,
                )
        ended = [session for session in manifest.sessions if session.get("figures")]
        if not ended:
            raise InputError("has not come to an end", setting="like", value=samples)
        figures = ended[-1]["figures"]
        with samples.open(encoding="utf-8") as lines:
            read = [each for each in read_samples(lines) if isinstance(each, SampleLine)]
        # Sorted, since in which order they were written says nothing.
        lengths = np.sort(np.array([each.record.get("n_tokens", 0) for each in read], np.int64))
        if not lengths.sum():
            raise InputError("says of no sample how long it is", setting="like", value=samples)
        workers = len(figures.get("workers", {})) or 1
        rows_a_token = figures["rows_computed"] / figures["tokens_sampled"]
        measured = replace(self, lengths=lengths, rows_a_token=rows_a_token)
        share = _share(figures, workers, len({each.task_id for each in read}), int(lengths.max()))
        # Its session begins when all is imported; processes of its own import within it.
        before_s = 0.0 if "workers" in figures else self.device.start_s
        return replace(
            measured,
            factor=figures["elapsed_s"] / measured.draw(share).seconds,
            start_s=before_s + max(0.0, _took_s(ended[-1]) - figures["elapsed_s"]),
            origin=f"{samples.name}, {workers} at a time: its time over that by the constants of "
            f"{self.device.where}",
        )


def tasks_below(max_rows: int, n: float, tasks: int) -> float:
    """Tasks that a batch has at a time, depth-first.

    Args:
        max_rows: of the batch.
        n: samples of a task.
        tasks: of the run.
    """
    return min(max(1.0, max_rows / n), tasks)


def _share(figures: Mapping[str, Any], workers: int, tasks: int, max_tokens: int) -> Share:
    """What each worker drew of a run, by its figures."""
    done = max(1, figures["samples_done"])
    steps = figures["steps_host"] + figures["steps_device"]
    # Of runs that did not keep it: what a step had in the mean.
    max_rows = figures.get("max_rows") or max(1, round(figures["tokens_sampled"] / steps))
    return Share(
        samples=-(-done // workers),
        max_tokens=max_tokens,
        max_rows=max_rows,
        held=tasks_below(max_rows, done / tasks, tasks) * figures["prompt_tokens"] / tasks,
        prompt=figures["prompt_tokens_unshared"] / done,
        prefill=figures["prefilled_tokens"] / workers,
    )


def _lengths(samples: int, max_tokens: int, known: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Tokens of so many samples: those of an earlier run, each as often; or of any length alike."""
    rng = np.random.default_rng(0)
    if known is None:
        return rng.integers(1, max_tokens + 1, samples)
    places = (2 * np.arange(samples) + 1) * known.size // (2 * samples)
    drawn: NDArray[np.int64] = np.minimum(rng.permutation(known[places]), max_tokens)
    return drawn


def _samples_by_step(lengths: NDArray[np.int64], max_rows: int) -> NDArray[np.int64]:
    """Samples of every step, where each takes the first place that is free."""
    free = [0] * min(max_rows, lengths.size)
    changes = np.zeros(int(lengths.sum()) // len(free) + int(lengths.max()) + 2, np.int64)
    for length in lengths.tolist():
        start = heapq.heappop(free)
        heapq.heappush(free, start + length)
        changes[start] += 1
        changes[start + length] -= 1
    return changes.cumsum()[: max(free)]


def _took_s(session: Mapping[str, Any]) -> float:
    """Seconds of a session, from its first line to its last."""
    started, ended = (datetime.fromisoformat(session[key]) for key in ("started", "ended"))
    return (ended - started).total_seconds()
