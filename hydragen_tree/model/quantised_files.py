"""Checkpoints whose weights are stored in few bits: what reads them is there, before one is loaded.

The libraries are those that transformers uses. Where it has nothing that multiplies such weights as
they are, it widens them to 16 bits or more without a word that would reach a user; that is said.
"""

from copy import deepcopy

from transformers import PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from hydragen_tree.errors import ModelError, first_line
from hydragen_tree.model.weights import without_reports


def widening_remark(method: str, dtype: str) -> str:
    """What is said of weights that are widened.

    Args:
        method: what they are stored as.
        dtype: what they become.
    """
    return (
        f"weights: stored as {method}, widened to {dtype} as they are loaded, since transformers "
        "has nothing here that multiplies them as they are; they take that much memory"
    )


def check_quantised(model: str, config: PreTrainedConfig) -> str | None:
    """Refuses weights in few bits that transformers cannot read here.

    Args:
        model: as the user gave it.
        config: of all of the model.

    Returns:
        What the weights are stored as, where they will be widened as they are loaded; else None.

    Raises:
        ModelError: a library is missing, the device is not one for them, or nobody knows them.
    """
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return None
    method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
    method = str(getattr(method, "value", method))
    try:
        with without_reports():
            quantizer = AutoHfQuantizer.from_config(deepcopy(stored), pre_quantized=True)
            is_asked = getattr(quantizer.quantization_config, "dequantize", False)
            quantizer.validate_environment(device_map=None)
    except Exception as error:  # missing packages, wrong devices, broken entries: many types
        raise ModelError(
            f"its weights are stored as {method}, which cannot be read here: {first_line(error)}",
            setting="model",
            value=model,
        ) from None
    is_widened = getattr(quantizer.quantization_config, "dequantize", False)
    return method if is_widened and not is_asked else None
