"""Checkpoints whose linear layers are stored in 8 bits: run as they are, without their libraries.

Two ways of writing them are read. compressed-tensors has `weight_scale` beside a weight, for each
output channel, for all of the weight or for each block, and `input_scale` where inputs have a fixed
scale; DeepSeek and Qwen (`quant_method: fp8`) have `weight_scale_inv`, which is multiplied by just
the same, for each block of 128 x 128 or for all, and `activation_scale`. Which checkpoints are of
these two kinds, `quantised_files` says.

What a layer is stored as decides, not what the configuration lists. What has no layer of its own in
the model, such as the experts that transformers keeps in one tensor, is widened when it is loaded.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydragen_kernels.inputs import FP8
from hydragen_tree.errors import ModelError, first_of
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.fp8_linear import BLOCK, STEP, Fp8Linear, widen
from hydragen_tree.model.weights import plain_config, safetensors_files, with_tensors

_WEIGHT_SCALES = ("weight_scale", "weight_scale_inv")
_INPUT_SCALES = ("input_scale", "activation_scale")
_log = logging.getLogger("hydragen_tree")


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A linear layer's weights in 8 bits.

    Attributes:
        weight: `[out, in]` float8_e4m3fn.
        scale: `[out]` float32, or one for each block.
        input_scale: `[]` float32; None: inputs have one for each row.
    """

    weight: Tensor
    scale: Tensor
    input_scale: Tensor | None

    @property
    def fits(self) -> bool:
        """Whether the layer can stay as it is stored, by its sizes."""
        step = STEP if self.scale.ndim == 1 else BLOCK
        return all(size % step == 0 for size in self.weight.shape)


def load_stored(
    name: str, path: str, revision: str | None, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads a checkpoint in 8 bits; its quantised layers are on the device, all else is not yet.

    Args:
        name: as the user gave it.
        path: a directory, or the hub's id.
        revision: of the hub's repository.
        dtype: of all that is not stored in 8 bits.
        device: where the model will be.

    Returns:
        The model, and what transformers found in the files.

    Raises:
        ModelError: there are no safetensors, scales are missing, or something else than the weights
            of layers is in 8 bits.
    """
    folder = path
    if not Path(path).is_dir():
        kinds = ["*.safetensors", "*.json"]
        folder = snapshot_download(path, revision=revision, allow_patterns=kinds)
    config = plain_config(folder)
    tensors = dict(_tensors(name, Path(folder)))
    layers = _take_layers(name, tensors)
    skeleton = without_weights(config)
    modules = dict(skeleton.named_modules())
    kept = {}
    for layer, stored in layers.items():
        weight = f"{layer}.weight"
        if type(modules.get(layer)) is nn.Linear and stored.fits:
            kept[layer] = stored
            tensors[weight] = torch.zeros((), dtype=dtype).expand(stored.weight.shape)  # no memory
        else:
            tensors[weight] = widen(stored.weight, stored.scale, dtype)
    if widened := sorted(layers.keys() - kept.keys()):
        named = first_of(widened)
        _log.warning("%s: %d layers are widened from 8 bits: %s", name, len(widened), named)
    model, found = with_tensors(type(skeleton), config, tensors, dtype)
    for layer, stored in kept.items():
        bias = model.get_submodule(layer).bias
        model.set_submodule(layer, _on_device(stored, bias, dtype, device))
    return model, found


def _on_device(
    stored: StoredLayer, bias: Any, dtype: torch.dtype, device: torch.device
) -> Fp8Linear:
    weight, scale = stored.weight.to(device), stored.scale.to(device)
    given = bias, stored.input_scale
    others = (None if x is None else x.detach().to(device) for x in given)
    return Fp8Linear(weight, scale, *others, dtype=dtype)


def _tensors(name: str, folder: Path) -> Iterator[tuple[str, Tensor]]:
    files = safetensors_files(folder)
    if not files:
        raise ModelError(
            "is stored in 8 bits, which is read from safetensors only", setting="model", value=name
        )
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                yield key, tensors.get_tensor(key)


def _take_layers(name: str, tensors: dict[str, Tensor]) -> dict[str, StoredLayer]:
    """Takes weights of 8 bits out of the tensors of a checkpoint, with their scales."""
    layers = {}
    for key in [k for k, x in tensors.items() if x.dtype == FP8 and k.endswith(".weight")]:
        layer = key.removesuffix(".weight")
        weight = tensors.pop(key)
        scale = _take(tensors, layer, _WEIGHT_SCALES)
        if scale is None:
            raise ModelError(
                f"its files lack {layer}.weight_scale; get them anew or choose another",
                setting="model",
                value=name,
            )
        fixed = _take(tensors, layer, _INPUT_SCALES)
        layers[layer] = StoredLayer(
            weight, _by_channel(weight, scale), None if fixed is None else fixed.reshape(())
        )
    if others := sorted(key for key, x in tensors.items() if x.dtype == FP8):
        raise ModelError(
            f"has tensors in 8 bits that are no layer's weights, which are not run: "
            f"{first_of(others)}; choose another checkpoint",
            setting="model",
            value=name,
        )
    return layers


def _take(tensors: dict[str, Tensor], layer: str, names: tuple[str, ...]) -> Tensor | None:
    found = [tensors.pop(f"{layer}.{name}") for name in names if f"{layer}.{name}" in tensors]
    return found[0].float() if found else None


def _by_channel(weight: Tensor, scale: Tensor) -> Tensor:
    """Scales as layers have them: one for all becomes one for each channel."""
    if scale.numel() == 1 and weight.numel() > 1:
        return scale.reshape(1).expand(weight.shape[0]).contiguous()
    outputs = weight.shape[0]
    return scale.reshape(-1) if scale.shape in ((outputs,), (outputs, 1)) else scale
