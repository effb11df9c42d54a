"""Whether a run is so small that a CPU is through before a GPU has started.

A GPU's context, kernels and graphs take seconds before its first step; a small model on a CPU takes
milliseconds a step. The estimate leaves out what sharing saves, and errs to the GPU's side.
"""

from pathlib import Path

import torch

from hydragen_tree.model.loading import ModelSource

# Of a thread of an AMD EPYC, with the shipped model in float32 (NOTES.md).
_LAYER_S = 1.2e-3  # a step and layer, whatever the rows
_FLOPS = 20e9  # a second
_ROWS = 256
# An H200 took 14 s for a run whose steps take 1 s. Less than a third: start-up is being cut.
_GPU_START_S = 4.0
_MARGIN = 2.0


def is_faster_on_cpu(
    source: ModelSource, prompt_tokens: int, samples: int, max_tokens: int, threads: int
) -> bool:
    """Whether a CPU would be through, by a wide margin, before a GPU has started.

    Args:
        source: the model on a GPU; only one whose files are in a directory is judged.
        prompt_tokens: of all prompts.
        samples: in all.
        max_tokens: of a sample; it is taken to end halfway.
        threads: of the CPU.
    """
    stored = getattr(source.config, "dtype", None)
    sizes = [file.stat().st_size for file in Path(source.path).glob("*.safetensors")]
    if source.device.type != "cuda" or not sizes or not isinstance(stored, torch.dtype):
        return False
    parameters = sum(sizes) / stored.itemsize
    each = -(-max_tokens // 2)
    steps_s = -(-samples // _ROWS) * each * source.shape.layers * _LAYER_S
    products_s = 2 * parameters * (samples * each + prompt_tokens) / (threads * _FLOPS)
    return (steps_s + products_s) * _MARGIN <= _GPU_START_S
