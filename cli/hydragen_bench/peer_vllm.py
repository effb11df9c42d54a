"""vLLM beside us: the same random weights and prompts, as many samples, on the same card.

Prefix caching and cascade attention are on, all else is vLLM's default. It runs in a process of its
own, before our model is there, so that each has the memory for itself; that process may use
another Python, since vLLM wants a torch of its own. A run of one token, its prefix cached, is
subtracted from one of 129: tokens a second are those of 128 decode steps, as in the other columns.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hydragen_bench.configs import CONFIGS, Point, random_weights
from hydragen_bench.peers import Peer, run_peer
from hydragen_bench.rig import random_prompt


@dataclass(frozen=True, slots=True)
class Vllm:
    """What vLLM has reached.

    Attributes:
        version: vLLM's.
        cascade: whether it has cascade attention.
        tokens_s: tokens a second by batch.
    """

    version: str
    cascade: bool
    tokens_s: dict[Point, float]

    def __str__(self) -> str:
        """As printed above the table."""
        cascade = "on" if self.cascade else "not in this version"
        return (
            f"vllm {self.version}: prefix caching on, cascade attention {cascade}; the run of one "
            "token is subtracted"
        )


def measure(name: str, points: Sequence[Point], python: str) -> Vllm:
    """Runs all points.

    Args:
        name: of the architecture.
        points: the batches.
        python: that has vLLM.

    Raises:
        HydragenError: vLLM failed; the message ends with its last lines.
    """
    with TemporaryDirectory(prefix="hydragen-vllm-") as place:
        folder = Path(place)
        model = random_weights(name)
        model.save_pretrained(folder / "model")
        del model
        gc.collect()
        torch.cuda.empty_cache()
        vocabulary = int(CONFIGS[name].vocab_size)
        asked = [
            {
                "rows": point.rows,
                "tokens": point.new_tokens,
                "prompt": random_prompt(point.prefix, vocabulary).token_ids.tolist(),
            }
            for point in points
        ]
        job = {"model": str(folder / "model"), "points": asked}
        engine, *answers = run_peer(Peer("vllm", python), job, folder)
    speeds = {
        point: point.rows * point.new_tokens / (answer["seconds"] - answer["prefill_s"])
        for point, answer in zip(points, answers, strict=True)
    }
    return Vllm(engine["version"], engine["cascade"], speeds)
