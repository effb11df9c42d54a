"""Rotary frequencies that depend on how long a sequence is.

A tree computes a segment's keys once, for sequences of any length below it, so that its frequencies
have to be the same whatever comes. Longrope has two sets, for sequences up to a length and beyond:
transformers takes one for a whole pass by its last position. A run takes one for all of its passes,
by the longest sequence that it may come to: what transformers would take for that sequence whole.
Dynamic NTK has others for every length; beyond the length where it begins there is no such choice.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_LONGROPE = "longrope"


def fixed_tokens(config: PreTrainedConfig) -> int | None:
    """The length beyond which frequencies, or their scale, are others for every sequence.

    Returns:
        None if there is no such length.
    """
    limits = [
        _original_tokens(config, rope)
        for rope in _ropes(config).values()
        # Phi-3.5-MoE scales by the last position of a pass, wherever its frequencies come from
        if rope.get("rope_type") == "dynamic" or "long_mscale" in rope
    ]
    return min(limits, default=None)


def longrope_tokens(config: PreTrainedConfig) -> int | None:
    """The length beyond which a run takes the second of longrope's two sets of frequencies.

    Returns:
        None for a model that has one set.
    """
    ropes = [rope for rope in _ropes(config).values() if rope.get("rope_type") == _LONGROPE]
    return min((_original_tokens(config, rope) for rope in ropes), default=None)


def longrope_remark(config: PreTrainedConfig, longest: int) -> str | None:
    """Which of two sets of frequencies a run takes; None for a model that has one.

    Args:
        config: of the text model.
        longest: tokens of the longest sequence that the run may come to.
    """
    limit = longrope_tokens(config)
    if limit is None:
        return None
    if longest > limit:
        return (
            f"rotary frequencies (longrope): those for more than {limit:,} tokens, for all "
            f"sequences, as one may have {longest:,}"
        )
    return f"rotary frequencies (longrope): those for up to {limit:,} tokens"


def fix_frequencies(model: PreTrainedModel, longest: int) -> None:
    """Holds a model to the frequencies for sequences of one length, whatever it is given.

    Args:
        model: whose longrope embeddings choose in every pass between two sets; both become one.
        longest: tokens of the longest sequence that it will be given.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layers, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if kind == _LONGROPE:
                _fix(module, layers, longest)


def _fix(module: nn.Module, layers: str | None, longest: int) -> None:
    prefix = f"{layers}_" if layers else ""
    used = getattr(module, f"{prefix}inv_freq")
    fixed, _ = ROPE_INIT_FUNCTIONS[_LONGROPE](
        module.config, used.device, seq_len=longest, layer_type=layers
    )
    for name in ("inv_freq", "original_inv_freq", "long_inv_freq"):
        setattr(module, f"{prefix}{name}", fixed.clone())


def _ropes(config: PreTrainedConfig) -> dict[str, dict[str, Any]]:
    """Parameters by the kind of layers that they are for, `""` where all have the same."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = {kind: own for kind, own in rope.items() if isinstance(own, dict)}
    return nested or {"": rope}


def _original_tokens(config: PreTrainedConfig, rope: dict[str, Any]) -> int:
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
