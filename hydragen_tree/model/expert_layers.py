"""What transformers calls a layer of experts, as both of our forms of them see it."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


def experts_chosen(config: PreTrainedConfig) -> int:
    """Experts that a token goes to in a layer; 0: there are none."""
    return int(getattr(config, "num_experts_per_tok", None) or 0)


def expert_layers(model: nn.Module) -> list[Any]:
    """The layers that hold a model's experts; none if the weights of any are not plain tensors."""
    layers = [one for one in model.modules() if hasattr(one, "_apply_gate")]
    return layers if all(map(_is_plain, layers)) else []


def expert_weights(model: PreTrainedModel) -> tuple[int, float]:
    """Numbers of all experts' matrices, and the share of them that a token is multiplied by."""
    matrices: list[Tensor] = [
        getattr(layer, name)
        for layer in expert_layers(model)
        for name in (name_of_up(layer), "down_proj")
    ]
    if not matrices:
        return 0, 1.0
    chosen = experts_chosen(model.config.get_text_config(decoder=True))
    return sum(one.numel() for one in matrices), chosen / len(matrices[0])


def has_gate(layer: Any) -> bool:
    """Whether a layer's first product gives gates beside what they are multiplied with."""
    return bool(getattr(layer, "has_gate", True))


def name_of_up(layer: Any) -> str:
    """What a layer calls the weights `[experts, ...]` of its first product."""
    return "gate_up_proj" if has_gate(layer) else "up_proj"


def activated(layer: Any, x: Tensor) -> Tensor:
    """What a layer's own code makes of its first product: `[pairs, ...]`."""
    out: Tensor = layer._apply_gate(x) if has_gate(layer) else layer.act_fn(x)
    return out


def _is_plain(layer: Any) -> bool:
    weights = (getattr(layer, name, None) for name in (name_of_up(layer), "down_proj"))
    return all(isinstance(weight, Tensor) and weight.ndim == 3 for weight in weights)
