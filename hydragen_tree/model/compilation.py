"""Whether compiling a model's layers is earned back by a run, and where compiled code is kept.

Compiling takes half a minute the first time and seconds from the cache, for tracing the layers. It
saves launches and traffic of what lies between the products of a step.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path
from transformers import PreTrainedConfig

# What a step saves, of Llama-3.1-8B's steps with 32, 128 and 1,024 rows on an H200 (NOTES.md).
_LAYER_S = 68e-6  # of launches, a layer
_NUMBER_S = 21e-12  # of traffic, a number of the activations and layer
_FIRST_S = 25.0
_AGAIN_S = 6.0
_RUNS = 4  # in which a first compilation is to be earned back: what is kept serves later ones


@dataclass(frozen=True, slots=True)
class Compiling:
    """What compiling would save a run, and cost it.

    Attributes:
        steps: decode steps, if samples end halfway to where their tokens run out.
        saved_s: by all of them.
        spent_s: until the layers are compiled.
        is_kept: they have been compiled before.
    """

    steps: int
    saved_s: float
    spent_s: float
    is_kept: bool

    @property
    def is_worth_it(self) -> bool:
        """Whether this run, or a few like it, win back what it costs."""
        return self.saved_s >= self.spent_s / (1 if self.is_kept else _RUNS)

    def __str__(self) -> str:
        how = "from the cache" if self.is_kept else f"the first time, earned by {_RUNS} such runs"
        return (
            f"{'yes' if self.is_worth_it else 'no'}: saves {self.saved_s:.1f} s in {self.steps:,} "
            f"steps or so, costs {self.spent_s:.0f} s {how}"
        )


def weigh_compiling(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    samples: int,
    rows: int,
    max_tokens: int,
) -> Compiling:
    """Weighs compiling for a run on a GPU.

    Nothing is known yet of when samples end. They are taken to end halfway: 48 of 256 tokens where
    functions are completed up to a stop string, all where nothing stops them.

    Args:
        config: of the text model.
        dtype: of its weights.
        device: where they are.
        samples: of the run.
        rows: of a full batch.
        max_tokens: of a sample.
    """
    steps = -(-samples // rows) * -(-max_tokens // 2)
    step_s = config.num_hidden_layers * (_LAYER_S + _NUMBER_S * rows * config.hidden_size)
    is_kept = _mark(config, dtype, device).exists()
    return Compiling(steps, steps * step_s, _AGAIN_S if is_kept else _FIRST_S, is_kept)


def keep_compiled() -> Path:
    """Has torch keep what it compiles in our cache, unless the user's environment names a place.

    Returns:
        The folder.
    """
    ours = user_cache_path("hydragen") / "inductor"
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ours)))


def note_compiled(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Notes down in that folder that a model's layers have been compiled.

    Args:
        config: of the text model.
        dtype: of its weights.
        device: where they are.
    """
    mark = _mark(config, dtype, device)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        pass  # a cache that cannot be written costs the next run its time, not this one its samples


def _mark(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> Path:
    """The empty file that says so: of this torch and this kind of card, as compiled code is."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    parts = torch.__version__, card, str(dtype), config.to_json_string(use_diff=False)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return keep_compiled() / f"hydragen-{digest[:16]}"
