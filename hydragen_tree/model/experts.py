"""Mixture of experts as grouped products, on a GPU.

transformers lets the layer that holds a model's experts be computed by somebody else, as it does
attention. Its own forms ask the device how many tokens each expert has, or take five launches more
for every one of ours, and in other dtypes than bf16 cannot be captured. Routers stay the model's.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from hydragen_kernels.experts import combine, expert_product, sort_by_expert
from hydragen_kernels.inputs import FLOATS
from hydragen_kernels.layers import Activation, gated
from hydragen_tree.model.alike import is_near, is_same, numbers

IMPLEMENTATION = "hydragen_tree"

_ACTIVATION = "_tree_activation"  # of a layer of experts, where the kernel has it


@torch.inference_mode()
def group_experts(model: PreTrainedModel) -> int:
    """Has a model's experts computed by grouped products, where transformers lets them be.

    Args:
        model: where Triton's kernels run.

    Returns:
        How many layers have experts that are.
    """
    layers = [one for one in model.modules() if hasattr(one, "_apply_gate")]
    if not layers or not all(map(_is_known, layers)):
        return 0
    for layer in layers:
        setattr(layer, _ACTIVATION, _activation_like(layer))
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts)
    model.set_experts_implementation(IMPLEMENTATION)
    return len(layers)


def _is_known(layer: Any) -> bool:
    """Whether a layer's weights are plain tensors of a dtype that the kernel multiplies.

    Those of gpt-oss and Aria, with inputs before outputs, are left to transformers' grouped
    products: in that form the kernel has not been measured.
    """
    if layer.is_transposed or getattr(layer, "has_bias", False):
        return False
    weights = _up(layer), getattr(layer, "down_proj", None)
    return all(
        isinstance(weight, Tensor) and weight.ndim == 3 and weight.dtype in FLOATS
        for weight in weights
    )


def _up(layer: Any) -> Any:
    return getattr(layer, "gate_up_proj" if _has_gate(layer) else "up_proj", None)


def _has_gate(layer: Any) -> bool:
    return bool(getattr(layer, "has_gate", True))


def _activation_like(layer: Any) -> Activation | None:
    """The activation of the one-launch kernel that gives what the layer's own code does."""
    if not _has_gate(layer):
        return None
    own, x = layer._apply_gate, numbers(layer.down_proj, 4, 64)
    large = 4 * x  # some beyond what is clamped
    alike = (kind for kind in Activation if is_same(gated(x, kind), own(x)))
    return next((kind for kind in alike if is_near(gated(large, kind), own(large))), None)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _experts(layer: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """transformers' signature of experts: `[tokens, width]`, chosen and shares `[tokens, k]`.

    Everything between the products is done for every pair of a token and an expert, as the model
    does it; what a token's experts give is added up in fp32.
    """
    up, down = _up(layer), layer.down_proj
    experts = up.shape[0]
    routing = sort_by_expert(chosen, experts)
    inner = expert_product(x, up, routing, by_token=True)
    y = expert_product(_activated(layer, inner), down, routing, by_token=False)
    if getattr(layer, "has_post_expert_norm", False):
        y = layer.post_expert_norm(y)
    return combine(y, shares, chosen, experts)


def _activated(layer: Any, x: Tensor) -> Tensor:
    kind: Activation | None = getattr(layer, _ACTIVATION)
    if kind is not None:
        return gated(x, kind)
    out: Tensor = layer._apply_gate(x) if _has_gate(layer) else layer.act_fn(x)
    return out
