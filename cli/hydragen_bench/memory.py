"""Memory of a run on a CPU: what the process grows by, against what must be held at the least.

n samples of one prompt, all in the batch at once. At the least are held the weights and one key
and value, in every layer, for each distinct history: the prompt's tokens and the rows computed.
The run has a process of its own, so that nothing freed earlier hides what it takes.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

PROMPT_TOKENS = 1000
NEW_TOKENS = 64


def measure(n: int = 1000) -> dict[str, float]:
    """Runs n samples of a 1,000-token prompt through the shipped model, in a new process.

    Returns:
        `weights_bytes`, `distinct_kv_bytes`, `peak_bytes` (weights and what the process grew by),
        and `ratio`, the peak over the sum of the other two.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, n).result()


def _measure(n: int) -> dict[str, float]:
    sampler = Sampler.from_pretrained(max_rows=n)
    prompt = np.random.default_rng(0).integers(300, 500, PROMPT_TOKENS).tolist()
    settings = SamplingSettings(temperature=1.5, max_tokens=NEW_TOKENS)
    list(sampler.sample([prompt], 2, settings))  # libraries, weights, buffers
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    for _ in sampler.sample([prompt], n, settings):
        pass
    grown = resident_bytes("VmHWM") - before
    weights = sum(parameter.nbytes for parameter in sampler.model.model.parameters())
    stats = sampler.stats
    distinct = (stats.prompt_tokens + stats.rows_computed) * sampler.source.shape.token_bytes
    return {
        "samples": n,
        "weights_bytes": weights,
        "distinct_kv_bytes": distinct,
        "peak_bytes": weights + grown,
        "ratio": (weights + grown) / (weights + distinct),
    }


def resident_bytes(name: str) -> int:
    """A line of the process's status that counts memory: `VmRSS` now, `VmHWM` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")
