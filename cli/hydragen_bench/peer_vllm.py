"""vLLM beside us: weights drawn alike, the same prompts, as many samples, on the same cards.

Prefix caching is on, and cascade attention where its older runner is asked for; all else is vLLM's
default. It runs in a process of its own, while our model is not there, so that each has the memory
for itself; that process may use another Python, since vLLM wants a torch of its own. Its weights
are drawn where they are, as `configs.random_weights` draws ours: to write tens of gigabytes and to
read them again takes minutes. A run of one token, its prefix cached, is subtracted from one of 129:
tokens a second are those of 128 decode steps, as in the other columns.
"""

import gc
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedConfig

from hydragen_bench.configs import Point, config_of, embedding_scale
from hydragen_bench.peers import Peer, run_peer
from hydragen_bench.rig import random_prompt
from hydragen_bench.timing import bench_dtype
from hydragen_tree.model.creation import without_weights


@dataclass(frozen=True, slots=True)
class Vllm:
    """What vLLM has reached.

    Attributes:
        version: vLLM's.
        cascade: whether it was asked for cascade attention, and has it.
        tokens_s: tokens a second by batch.
        batch_invariant: whether this was its batch-invariant mode.
    """

    version: str
    cascade: bool
    tokens_s: dict[Point, float]
    batch_invariant: bool = False

    def __str__(self) -> str:
        """As printed above the table."""
        cascade = "on" if self.cascade else "off"
        return (
            f"vllm {self.version}{', batch-invariant' if self.batch_invariant else ''}: prefix "
            f"caching on, cascade attention {cascade}; the run of one token is subtracted"
        )

    def step_ms(self, point: Point) -> float:
        """Milliseconds of a step of all of a batch's rows."""
        return 1e3 * point.rows / self.tokens_s[point]


def measure(
    name: str,
    points: Sequence[Point],
    peer: Peer,
    ranks: int = 1,
    batch_invariant: bool = False,
) -> Vllm:
    """Runs all points.

    Args:
        name: of the architecture.
        points: the batches.
        peer: vLLM, by default or with cascade attention.
        ranks: devices that have the model together.
        batch_invariant: in its own such mode.

    Raises:
        HydragenError: vLLM failed; the message ends with its last lines.
    """
    with TemporaryDirectory(prefix="hydragen-vllm-") as place:
        folder = Path(place)
        config = config_of(name)
        _save_config(config, folder / "model")
        vocabulary, std = int(config.vocab_size), float(config.initializer_range)
        asked = [
            {
                "rows": point.rows,
                "tokens": point.new_tokens,
                "prompt": random_prompt(point.prefix, vocabulary).token_ids.tolist(),
            }
            for point in points
        ]
        job = {
            "model": str(folder / "model"),
            "made_up": {"std": std, "embeddings": std * embedding_scale(config)},
            "points": asked,
            "cascade": peer.name == "vllm-cascade",
            "tensor_parallel": ranks,
            "batch_invariant": batch_invariant,
        }
        gc.collect()
        torch.cuda.empty_cache()  # of what was measured before: vLLM takes nearly all there is
        engine, *answers = run_peer(peer, job, folder)
    speeds = {
        point: point.rows * point.new_tokens / (answer["seconds"] - answer["prefill_s"])
        for point, answer in zip(points, answers, strict=True)
    }
    return Vllm(engine["version"], engine["cascade"], speeds, batch_invariant)


def _save_config(config: PreTrainedConfig, place: Path) -> None:
    own = deepcopy(config)
    own.architectures = [type(without_weights(config)).__name__]
    own.dtype = bench_dtype()
    own.save_pretrained(place)
