"""vLLM beside us: the same random weights and prompts, as many samples, on the same card.

Prefix caching and cascade attention are on, all else is vLLM's default. It runs in a process of its
own, before our model is there, so that each has the memory for itself; that process may use
another Python, since vLLM wants a torch of its own. A run of one token, its prefix cached, is
subtracted from one of 129: tokens a second are those of 128 decode steps, as in the other columns.
"""

import gc
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hydragen_bench import vllm_child
from hydragen_bench.child import run_child
from hydragen_bench.configs import CONFIGS, Point, random_weights
from hydragen_bench.rig import random_prompt
from hydragen_tree.errors import InputError

_FIND = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"


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


def find_vllm(python: str | None) -> str:
    """The Python that has vLLM.

    Args:
        python: its path; None: the one that runs us.

    Raises:
        InputError: it is not there, or vLLM is not in it.
    """
    python = python or sys.executable
    try:
        found = subprocess.run([python, "-c", _FIND], capture_output=True, check=False)
    except OSError as error:
        raise InputError(
            error.strerror or str(error), setting="peer_python", value=python
        ) from None
    if found.returncode:
        raise InputError(
            f"{python} has no vllm; pip install vllm, best in an environment of its own whose "
            "Python is then named by --peer-python",
            setting="against",
            value="vllm",
        )
    return python


def measure(name: str, points: Sequence[Point], python: str) -> Vllm:
    """Runs all points.

    Args:
        name: of the architecture.
        points: the batches.
        python: as `find_vllm` gives it.

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
        engine, *answers = run_vllm(job, folder, python)
    speeds = {
        point: point.rows * point.new_tokens / (answer["seconds"] - answer["prefill_s"])
        for point, answer in zip(points, answers, strict=True)
    }
    return Vllm(engine["version"], engine["cascade"], speeds)


def run_vllm(
    job: Mapping[str, Any], folder: Path, python: str, older_runner: bool = False
) -> list[dict[str, Any]]:
    """The lines of `vllm_child.py`'s answer.

    Args:
        job: see there.
        folder: for its files.
        python: as `find_vllm` gives it.
        older_runner: the one that has cascade attention, in versions that have two.

    Raises:
        HydragenError: vLLM failed; the message ends with its last lines.
    """
    alone = folder / "script"  # Python looks for modules beside a script: there are none here
    alone.mkdir()
    script = shutil.copy(vllm_child.__file__, alone)
    environment = {"VLLM_USE_V2_MODEL_RUNNER": "0"} if older_runner else {}
    return run_child("vllm", [python, str(script)], job, folder, environment)
