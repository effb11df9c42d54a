"""Checkpoints whose weights are stored in few bits: who reads them is known before one is loaded.

Two kinds of 8 bits are run as they are, without a library more (`stored_fp8`), and so are stacks of
blocks of one bit a number, which `hydragen stack` writes (`stack_files`). All others are
transformers' to read, and its libraries have to be there. Where it has nothing that multiplies such
weights as they are, it widens them to 16 bits or more without a word that would reach a user; that
is said.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from transformers import PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from hydragen_tree.errors import ModelError, first_line
from hydragen_tree.model.fp8_linear import BLOCK
from hydragen_tree.model.stack_files import METHOD
from hydragen_tree.model.weights import without_reports

_COMPRESSED = "compressed-tensors"
_FINE_GRAINED = "fp8"
_BLOCKS = [BLOCK, BLOCK]


class StoredWeights(NamedTuple):
    """What becomes of weights that are stored in few bits.

    Attributes:
        by_blocks: of weights in 8 bits that are run as they are, whether their scales are by
            blocks; None: they are not of that kind.
        widened_from: what they are stored as, where transformers widens them as they are loaded.
        is_stack: whether linear layers are stacks of blocks, see `stack_files`.
    """

    by_blocks: bool | None = None
    widened_from: str | None = None
    is_stack: bool = False

    @property
    def is_fp8(self) -> bool:
        """Whether linear layers run in the 8 bits that they are stored in."""
        return self.by_blocks is not None


def stored_weights(model: str, config: PreTrainedConfig) -> StoredWeights:
    """Refuses weights in few bits that cannot be read here.

    Args:
        model: as the user gave it.
        config: of all of the model.

    Raises:
        ModelError: a library is missing, the device is not one for them, or nobody knows them.
    """
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return StoredWeights()
    entries: Mapping[str, Any] = stored if isinstance(stored, Mapping) else stored.to_dict()
    method = entries.get("quant_method")
    kind = str(getattr(method, "value", method))
    if kind == METHOD:
        return StoredWeights(is_stack=True)
    if kind in (_COMPRESSED, _FINE_GRAINED):
        other = next(_differences(kind, entries), None)
        if other is None:
            return StoredWeights(by_blocks=_is_by_blocks(entries))
        kind += f" with {other}"
    return StoredWeights(widened_from=kind if _widens(model, kind, stored) else None)


def widening_remark(kind: str, dtype: str) -> str:
    """What is said of weights that are widened.

    Args:
        kind: what they are stored as.
        dtype: what they become.
    """
    return (
        f"weights: stored as {kind}, widened to {dtype} as they are loaded, since transformers "
        "has nothing here that multiplies them as they are; they take that much memory"
    )


def _differences(kind: str, entries: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a checkpoint of one of the two kinds from being run as it is stored."""
    if kind == _FINE_GRAINED:
        block = entries.get("weight_block_size")
        if entries.get("dequantize"):
            yield "dequantize"
        if entries.get("fmt", "e4m3") != "e4m3":
            yield f"numbers of the format {entries['fmt']}"
        if entries.get("scale_fmt") not in (None, "float"):
            yield f"scales of the format {entries['scale_fmt']}"
        if block not in (None, _BLOCKS):
            yield f"weights scaled by blocks of {block}"
        return
    for part in ("sparsity_config", "transform_config"):
        if entries.get(part):
            yield part
    groups = _groups(entries)
    if not groups:
        yield "no groups of layers"
    for group in groups:
        yield from _group_differences(group)


def _group_differences(group: Mapping[str, Any]) -> Iterator[str]:
    """The same of a group of layers of compressed-tensors."""
    weights, inputs = (_entries(group.get(part)) for part in ("weights", "input_activations"))
    for what, numbers in (("weights", weights), ("inputs", inputs)):
        bits, sort = numbers.get("num_bits"), numbers.get("type")
        if not numbers:
            yield f"{what} in the model's dtype"
        elif (sort, bits) != ("float", 8):
            yield f"{what} in {sort}{bits}"
        elif not numbers.get("symmetric", True):
            yield f"{what} that have a zero point"
    strategy, block = weights.get("strategy"), weights.get("block_structure")
    if strategy not in ("tensor", "channel", "block"):
        yield f"weights scaled by {strategy}"
    if strategy == "block" and block != _BLOCKS:
        yield f"weights scaled by blocks of {block}"


def _is_by_blocks(entries: Mapping[str, Any]) -> bool:
    is_fine = entries.get("weight_block_size") is not None
    return is_fine or any(group["weights"]["strategy"] == "block" for group in _groups(entries))


def _groups(entries: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_entries(group) for group in _entries(entries.get("config_groups")).values()]


def _entries(given: Any) -> Mapping[str, Any]:
    """What a part of a configuration holds; of one that is broken, nothing."""
    return given if isinstance(given, Mapping) else {}


def _widens(model: str, kind: str, stored: Any) -> bool:
    """Whether transformers widens weights that nobody has asked it to widen."""
    try:
        with without_reports():
            quantizer = AutoHfQuantizer.from_config(deepcopy(stored), pre_quantized=True)
            is_asked = getattr(quantizer.quantization_config, "dequantize", False)
            quantizer.validate_environment(device_map=None)
    except Exception as error:  # missing packages, wrong devices, broken entries: many types
        raise ModelError(
            f"its weights are stored as {kind}, which cannot be read here: {first_line(error)}",
            setting="model",
            value=model,
        ) from None
    return bool(getattr(quantizer.quantization_config, "dequantize", False) and not is_asked)
