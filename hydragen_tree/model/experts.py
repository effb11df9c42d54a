"""Mixture of experts as grouped products, on a GPU.

transformers lets the layer that holds a model's experts be computed by somebody else, as it does
attention. Its own forms ask the device how many tokens each expert has, or take five launches more
for every one of ours, and in other dtypes than bf16 cannot be captured. Routers stay the model's.
Ours are taken where they give on random numbers what the model's own code gives.

They sum in one order, whatever the number of rows: inputs ascend, whatever the tile, and what a
token's experts give is added up in the order of its choices. For the batch-invariant mode tiles are
compared, bit for bit, before that is relied on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from hydragen_kernels.experts import combine, expert_product, expert_tiles, sort_by_expert
from hydragen_kernels.inputs import FLOATS
from hydragen_kernels.layer_forms import Activation
from hydragen_kernels.layers import gated, gated_clamped
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.alike import is_near, is_same, numbers
from hydragen_tree.model.expert_layers import activated, expert_layers, has_gate, name_of_up

IMPLEMENTATION = "hydragen_tree"

_TRIED = 4  # tokens
_ROUTED, _FEW = 160, 3  # tokens, and experts among which they go, by which tiles are compared
_ACTIVATION = "_tree_activation"  # of a layer of experts, where the kernel has it


@torch.inference_mode()
def group_experts(model: PreTrainedModel, *, in_one_order: bool = False) -> int:
    """Has a model's experts computed by grouped products, where transformers lets them be.

    Args:
        model: where Triton's kernels run.
        in_one_order: only if a product has the same bits by any tile.

    Returns:
        How many layers have experts that are.
    """
    layers = expert_layers(model)
    if not layers or not all(map(_is_multiplied, layers)):
        return 0
    if in_one_order and not _has_one_order(layers[0]):
        return 0
    for layer in layers:
        setattr(layer, _ACTIVATION, _activation_like(layer))
    own = model.config._experts_implementation
    model.set_experts_implementation("eager")
    if not _is_alike(layers[0]):
        model.set_experts_implementation(own)
        return 0
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _experts)
    model.set_experts_implementation(IMPLEMENTATION)
    return len(layers)


def _has_one_order(layer: Any) -> bool:
    """Whether both products of a layer have the same bits by any tile, on random rows."""
    for weight in (_up(layer), layer.down_proj):
        weight = weight.mT if layer.is_transposed else weight
        experts, outputs, inputs = weight.shape
        x, bias = numbers(weight, _ROUTED, inputs), numbers(weight, experts, outputs)
        chosen = torch.arange(_ROUTED, device=x.device)[:, None] % min(experts, _FEW)
        routing = sort_by_expert(chosen, experts)
        found = [
            expert_product(x, weight, bias, routing, by_token=True, tile=tile)
            for tile in expert_tiles(x.dtype)
        ]
        if not all(torch.equal(one, found[0]) for one in found):
            return False
    return True


def _is_alike(layer: Any) -> bool:
    """Whether grouped products give what a layer's own code does, with its weights."""
    up = _up(layer)
    experts, _, inputs = (up.mT if layer.is_transposed else up).shape
    x = numbers(up, _TRIED, inputs)
    scores = numbers(up, _TRIED, experts).float()
    shares, chosen = scores.softmax(-1).topk(min(2, experts))
    given = x, chosen, shares.to(x.dtype)
    return is_near(_experts(layer, *given), layer(*given))


def _is_multiplied(layer: Any) -> bool:
    """Whether the kernel multiplies a layer's weights."""
    return _up(layer).dtype in FLOATS and layer.down_proj.dtype in FLOATS


def _up(layer: Any) -> Any:
    return getattr(layer, name_of_up(layer))


def _activation_like(layer: Any) -> Callable[[Tensor], Tensor] | None:
    """What computes in one launch what the layer's own code does between its products."""
    if not has_gate(layer):
        return None
    own, x = layer._apply_gate, numbers(layer.down_proj, 4, 64)
    large = 4 * x  # some beyond what is clamped
    forms = [partial(gated, activation=kind) for kind in Activation]
    if hasattr(layer, "alpha") and hasattr(layer, "limit"):
        forms.append(partial(gated_clamped, alpha=float(layer.alpha), limit=float(layer.limit)))
    alike = (form for form in forms if is_same(form(x), own(x)))
    return next((form for form in alike if is_near(form(large), own(large))), None)


@hidden_from_compiler
def _experts(layer: Any, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """transformers' signature of experts: `[tokens, width]`, chosen and shares `[tokens, k]`.

    Everything between the products is done for every pair of a token and an expert, as the model
    does it; what a token's experts give is added up in fp32.
    """
    up, down = _up(layer), layer.down_proj
    biases = [None, None]
    if getattr(layer, "has_bias", False):
        biases = [getattr(layer, f"{name_of_up(layer)}_bias"), layer.down_proj_bias]
    if layer.is_transposed:  # inputs before outputs
        up, down = up.mT, down.mT
    experts = up.shape[0]
    routing = sort_by_expert(chosen, experts)
    inner = expert_product(x, up, biases[0], routing, by_token=True)
    y = expert_product(_activated(layer, inner), down, biases[1], routing, by_token=False)
    if getattr(layer, "has_post_expert_norm", False):
        y = layer.post_expert_norm(y)
    return combine(y, shares, chosen, experts)


def _activated(layer: Any, x: Tensor) -> Tensor:
    form: Callable[[Tensor], Tensor] | None = getattr(layer, _ACTIVATION)
    return activated(layer, x) if form is None else form(x)
