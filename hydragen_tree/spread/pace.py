"""How long a worker takes for a step, by measured constants, or by an earlier run.

A step reads all weights once, or multiplies by them for as long as its rows need, whichever is
more; likewise the keys and values of its prompts; it reads those of its tails; and every layer has
a share that does not depend on anything. What the constants leave out, an earlier run of the same
model shows: its time over the time that they give for it, one factor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hydragen_tree.errors import InputError
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
    sum_s: float
    sum_bandwidth: float
    start_s: float
    load: float


# 15 steps of Llama-3.1-8B and CodeLlama-13b on one card, of the latter and a Llama of 70B on two,
# 32 to 1,024 rows behind 1,024 to 16,384 tokens, are within 11 % of these. Sums are of two,
# between NCCL's and those of symmetric memory.
CUDA = DeviceConstants(
    where="an H200 (NOTES.md)",
    bandwidth=4.27e12,
    flops=664e12,
    reached=0.92,
    layer_s=50e-6,
    sum_s=15e-6,
    sum_bandwidth=230e9,
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
    sum_s=0.3e-3,
    sum_bandwidth=4e9,
    start_s=8.0,
    load=1e9,
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one worker draws from a model.

    Attributes:
        weights: bytes that a step reads.
        parameters: numbers that a row is multiplied by.
        layers: of the model.
        ranks: devices that a worker has.
        row_bytes: of a row between layers.
        token_bytes: of keys and values of a token.
        token_flops: of a row's attention to a token.
        device: its constants, of all its threads.
        factor: by which an earlier run took longer than the constants say.
        start_s: until weights are there.
        lengths: `[samples]` tokens of samples that were drawn; None: of none.
        rows_a_token: rows computed for a token drawn.
        origin: where all this is from.
    """

    weights: int
    parameters: int
    layers: int
    ranks: int
    row_bytes: int
    token_bytes: int
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
        sizes = weight_bytes(source)
        weights = sum(sizes.values())
        parameters = sum(n_bytes // kind.itemsize for kind, n_bytes in sizes.items())
        if not getattr(source.config, "tie_word_embeddings", False):  # one row of it is read
            embedding = int(source.config.vocab_size) * int(source.config.hidden_size)
            parameters -= embedding
            weights -= embedding * source.dtype.itemsize
        device = CUDA
        if source.device.type != "cuda":
            device = replace(CPU, flops=CPU.flops * torch.get_num_threads())
        return cls(
            weights=weights,
            parameters=parameters,
            layers=source.shape.layers,
            ranks=source.ranks,
            row_bytes=int(source.config.hidden_size) * source.dtype.itemsize,
            token_bytes=source.shape.token_bytes,
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
            rows: of each step, as computed.
            held: distinct tokens of the prompts that the batch is below.
            prompt: tokens of a row's prompt, in the mean.
            tail: tokens that a row has of its own, in the mean.
        """
        own = self.device
        products = np.maximum(self.weights / own.bandwidth, 2 * self.parameters * rows / own.flops)
        attention = np.maximum(
            held * self.token_bytes / own.bandwidth, rows * prompt * self.token_flops / own.flops
        )
        attention += rows * tail * self.token_bytes / own.bandwidth
        sums = own.sum_s + rows * self.row_bytes / own.sum_bandwidth
        layer = own.layer_s + (2 * sums if self.ranks > 1 else 0.0)
        seconds: NDArray[np.float64] = (products + attention) / own.reached + self.layers * layer
        return self.factor * seconds

    def prefill_s(self, tokens: float) -> float:
        """Seconds of prompt tokens."""
        own = self.device
        return self.factor * 2 * self.parameters * tokens / own.flops / own.reached

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
        measured = replace(self, lengths=lengths)
        # Its session begins when all is imported; processes of its own import within it.
        before_s = 0.0 if "workers" in figures else self.device.start_s
        return replace(
            measured,
            factor=figures["elapsed_s"] / measured._constant_s(figures, workers),
            start_s=before_s + max(0.0, _took_s(ended[-1]) - figures["elapsed_s"]),
            rows_a_token=figures["rows_computed"] / figures["tokens_sampled"],
            origin=f"{samples.name}, {workers} at a time: its time over that by the constants of "
            f"{self.device.where}",
        )

    def _constant_s(self, figures: Mapping[str, Any], workers: int) -> float:
        """Seconds that the constants alone give for a run."""
        assert self.lengths is not None
        steps = figures["steps_host"] + figures["steps_device"]
        rows = np.array([figures["rows_computed"] / steps])
        in_batch = min(1.0, float(rows[0]) * workers / max(1, figures["samples_done"]))
        held = figures["prompt_tokens"] * in_batch
        prompt = figures["prompt_tokens_unshared"] / max(1, figures["samples_done"])
        step_s = self.step_s(rows, held, prompt, float(self.lengths.mean()) / 2)
        total = steps * float(step_s[0]) + self.prefill_s(figures["prefilled_tokens"])
        return float(total / workers)


def _took_s(session: Mapping[str, Any]) -> float:
    """Seconds of a session, from its first line to its last."""
    started, ended = (datetime.fromisoformat(session[key]) for key in ("started", "ended"))
    return (ended - started).total_seconds()
