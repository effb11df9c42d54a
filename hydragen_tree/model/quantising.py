"""A model's linear layers in fewer bits: which of them, and what that does to its logits."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from hydragen_kernels.inputs import FP8
from hydragen_tree.model.fp8_linear import Fp8Linear, fits
from hydragen_tree.model.narrow_linear import NarrowLinear
from hydragen_tree.model.rounded_linear import RoundedLinear

# Routers choose experts: between two that are nearly as good, rounding would decide.
_ROUTERS = re.compile(r"(^|[._])(gate|router)(\.|$)")
COMPARED_TOKENS = 256


@dataclass(frozen=True, slots=True)
class LogitError:
    """How far a quantised model's logits are from its own in its own dtype, after some tokens.

    Attributes:
        bits: of weights and inputs.
        tokens: after which logits were compared.
        relative: norm of the difference over the norm of the logits, each row's mean taken off:
            only differences between logits matter.
        other_best: share of the tokens after which another token is the best.
    """

    bits: int
    tokens: int
    relative: float
    other_best: float

    def __str__(self) -> str:
        return (
            f"rounding to {self.bits} bits moves logits by {self.relative:.1%} (norm), and the "
            f"best token is another one after {self.other_best:.0%} of the first prompt's "
            f"{self.tokens} tokens"
        )


def quantisable(model: PreTrainedModel, kind: torch.dtype = FP8) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that may be quantised, by name: all but routers and, in fp8, the head.

    Left out are also layers that share their weights, but for a head that shares those of the
    embeddings, and those of sizes that cannot be multiplied.

    Args:
        model: as it was loaded.
        kind: what they are taken to.
    """
    head = model.get_output_embeddings()
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for name, layer in model.named_modules():
        if type(layer) is not nn.Linear or _ROUTERS.search(name):
            continue
        if kind == FP8:
            takes, is_own = fits(layer) and layer is not head, False
        else:
            takes, is_own = True, layer is head
        if takes and (is_own or users[id(layer.weight)] == 1):
            yield name, layer


def quantise_layers(model: PreTrainedModel, device: torch.device, kind: torch.dtype = FP8) -> int:
    """Quantises a model's linear layers in place, each as it is moved to the device.

    Args:
        model: anywhere; what is not quantised stays where it is.
        device: where the quantised layers will be.
        kind: what they are taken to: float8_e4m3fn, or on a CPU int8 or bfloat16.

    Returns:
        How many layers there were.
    """
    layers = list(quantisable(model, kind))
    for name, layer in layers:
        rounded = Fp8Linear.of(layer, device) if kind == FP8 else NarrowLinear.of(layer, kind)
        model.set_submodule(name, rounded)
    return len(layers)


def quantised_layers(model: nn.Module) -> list[RoundedLinear]:
    """The layers that have been quantised."""
    return [layer for layer in model.modules() if isinstance(layer, RoundedLinear)]


def forget_originals(model: nn.Module) -> None:
    """Lets go of the weights as they were before."""
    for layer in quantised_layers(model):
        layer.original = None


@torch.inference_mode()
def measure_logit_error(model: PreTrainedModel, tokens: Sequence[int]) -> LogitError:
    """Compares a quantised model with itself, its layers taken back to what they were.

    Weights come to the device one layer at a time, so that no more memory is needed.

    Args:
        model: with its own attention, before `TreeModel` has taken its place.
        tokens: of a prompt; of a long one the first are used.
    """
    ids = torch.tensor([list(tokens[:COMPARED_TOKENS])], device=model.device)
    found, layers = _logits(model, ids), quantised_layers(model)
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(_exact_output))
        exact = _logits(model, ids)
    return LogitError(
        min(layer.bits for layer in layers),
        ids.shape[1],
        float((found - exact).norm() / exact.norm()),
        float((found.argmax(1) != exact.argmax(1)).double().mean()),
    )


def _exact_output(layer: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> Tensor:
    """What a layer would have said had nothing been quantised."""
    assert isinstance(layer, RoundedLinear)
    (x,) = inputs
    return functional.linear(x, layer.exact_weight(x.dtype), layer.bias)


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """`[tokens, vocabulary]` float32, in the mean zero."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits - logits.mean(1, keepdim=True)
