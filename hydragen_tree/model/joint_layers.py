"""Layers on a GPU that add and norm in one launch; those of a rank sum up in it, too.

A layer adds twice to what it was given, and norms that for its next product, or for the next layer:
`add_norm` has one launch for both. Ranks sum up what they add: `JointSums` has one for the three.
Only layers of this form are taken: each is tried, with attention left out, against the model's own
code on random numbers.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from hydragen_kernels.layers import add_norm
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.alike import is_near, numbers
from hydragen_tree.model.fused_layers import FusedNorm
from hydragen_tree.model.ranks import Ranks
from hydragen_tree.model.tensor_parallel import SummedLinear

_WITHOUT_ATTENTION = "hydragen_tree_none"
_PROBES = 4  # rows
_OF_ATTENTION, _OF_THE_REST = range(2)  # turns of a layer's sums


class _PartLinear(nn.Module):
    """A linear layer that leaves its part for its layer to sum up; or sums up, if that is large."""

    def __init__(self, summed: SummedLinear) -> None:
        super().__init__()
        self.summed = summed

    @hidden_from_compiler
    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs of this rank]` to `[..., outputs]`."""
        part: Tensor = self.summed.linear(x)
        return part if _joins(self.summed.ranks, part) else self.summed.ranks.sum_up(part)


def _joins(ranks: Ranks, part: Tensor) -> bool:
    """Whether the layer sums up; it and its linear layers ask alike."""
    rows, width = part.numel() // part.shape[-1], part.shape[-1]
    return ranks.joint is not None and ranks.joint.takes(rows, width, part.dtype)


class _KnownNorm(nn.Module):
    """A norm that may be known already, of what the layer before gave."""

    def __init__(self, norm: FusedNorm) -> None:
        super().__init__()
        self.norm = norm
        self.known: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same."""
        known, self.known = self.known, None
        if known is not None and known[0] is x:
            return known[1]
        normed: Tensor = self.norm(x)
        return normed


class _Forward:
    """What a layer does in place of its own code.

    Args:
        layer: of the model.
        following: the norm behind it.
        ranks: those that have the model.
    """

    def __init__(self, layer: nn.Module, following: _KnownNorm, ranks: Ranks) -> None:
        self._layer, self._following, self._ranks = layer, following, ranks
        _, *self._names = inspect.signature(layer.forward).parameters

    def __call__(self, hidden_states: Tensor, *others: Any, **named: Any) -> Tensor:
        """`[1, rows, width]` to the same."""
        layer: Any = self._layer
        named |= dict(zip(self._names, others, strict=False))
        given = layer.input_layernorm(hidden_states)
        attended, *_ = layer.self_attn(hidden_states=given, **named)
        norm = layer.post_attention_layernorm
        x, normed = self._add(_OF_ATTENTION, hidden_states, attended, norm)
        rest = layer.mlp(normed)
        more = rest[0] if isinstance(rest, tuple) else rest  # experts say where tokens went
        out, normed = self._add(_OF_THE_REST, x, more, self._following.norm)
        self._following.known = out, normed
        return out

    @hidden_from_compiler
    def _add(self, turn: int, x: Tensor, more: Tensor, norm: FusedNorm) -> tuple[Tensor, Tensor]:
        if _joins(self._ranks, more):
            assert self._ranks.joint is not None
            return self._ranks.joint.add(turn, more, x, norm.weight, norm.eps, norm.form)
        return add_norm(x, more.contiguous(), norm.weight, norm.eps, norm.form)


@torch.inference_mode()
def join_layers(model: PreTrainedModel, ranks: Ranks) -> int:
    """Has layers add and norm in one launch, if all are of the form; all ranks at once.

    Args:
        model: on a GPU, or a part of it; its norms and gates fused. Changed in place.
        ranks: those that have the model; where they have memory for joint sums, sums go along.

    Returns:
        How many layers do so.
    """
    owner, layers = _layers_of(model)
    sums = [_sums_of(layer) if ranks.joint is not None else () for layer in layers]
    norms: list[Any] = [getattr(layer, "input_layernorm", None) for layer in layers]
    norms += [getattr(owner, "norm", None)]
    others = [getattr(layer, "post_attention_layernorm", None) for layer in layers]
    of_the_form = (
        all(isinstance(norm, FusedNorm) for norm in (*norms, *others))
        and all(hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers)
        and (ranks.joint is None or all(sums))
    )
    own = _tried(model, layers) if of_the_form and layers else None
    if not ranks.least(int(own is not None)):
        return 0
    assert own is not None
    known = [_KnownNorm(norm) for norm in norms]
    for layer, places in zip(layers, sums, strict=True):
        for name in places:
            layer.set_submodule(name, _PartLinear(layer.get_submodule(name)))
    for layer, norm, following in zip(layers, known, known[1:], strict=False):
        layer.input_layernorm, layer.forward = norm, _Forward(layer, following, ranks)
    owner.norm = known[-1]
    with _without_attention(model):
        alike = [*map(_is_like, own, _outputs(model, layers), known[1:])]
    if ranks.least(int(all(alike))):
        return len(layers)
    part_layers(model)
    return 0


def part_layers(model: PreTrainedModel) -> None:
    """Gives layers their own code back."""
    owner, layers = _layers_of(model)
    for layer in layers:
        if not isinstance(vars(layer).get("forward"), _Forward):
            continue
        del layer.forward
        layer.input_layernorm = layer.input_layernorm.norm
        for name, module in [*layer.named_modules()]:
            if isinstance(module, _PartLinear):
                layer.set_submodule(name, module.summed)
    if isinstance(getattr(owner, "norm", None), _KnownNorm):
        owner.norm = owner.norm.norm


def _layers_of(model: PreTrainedModel) -> tuple[Any, list[Any]]:
    """What holds a model's layers, and these."""
    owner: Any = model.get_decoder()
    return owner, [*getattr(owner, "layers", ())]


def joined_sums(model: PreTrainedModel) -> int:
    """How many sums of a model go with what follows them, where there is room for their parts."""
    return sum(isinstance(module, _PartLinear) for module in model.modules())


def _sums_of(layer: nn.Module) -> tuple[str, ...]:
    """Names of the two linear layers that a layer sums up behind, in turn; else none."""
    names = [
        next(_plain_sums(layer, part), "") if hasattr(layer, part) else ""
        for part in ("self_attn", "mlp")
    ]
    return tuple(names) if all(names) else ()


def _plain_sums(layer: nn.Module, part: str) -> Any:
    sums = [
        (f"{part}.{name}", module.linear)
        for name, module in layer.get_submodule(part).named_modules()
        if isinstance(module, SummedLinear)
    ]
    if len(sums) == 1 and type(sums[0][1]) is nn.Linear and sums[0][1].bias is None:
        yield sums[0][0]


def _tried(model: PreTrainedModel, layers: Sequence[nn.Module]) -> list[Any] | None:
    """What each layer's own code gives; None: it is called in another way."""
    try:
        with _without_attention(model):
            return [*_outputs(model, layers)]
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return None


def _outputs(model: PreTrainedModel, layers: Sequence[nn.Module]) -> Iterator[Any]:
    """What each layer gives for the same random numbers."""
    owner, _ = _layers_of(model)
    like: Tensor = model.get_input_embeddings().weight
    x = numbers(like, 1, _PROBES, like.shape[1])
    places = torch.arange(_PROBES, device=like.device)[None]
    angles = owner.rotary_emb(x, position_ids=places)
    for layer in layers:
        yield layer(
            x,
            attention_mask=None,
            position_ids=places,
            position_embeddings=angles,
            use_cache=False,
        )


@contextmanager
def _without_attention(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    AttentionInterface.register(_WITHOUT_ATTENTION, _no_attention)
    model.set_attn_implementation(_WITHOUT_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _no_attention(
    _: nn.Module, query: Tensor, __: Tensor, value: Tensor, *___: Any, **____: Any
) -> tuple[Tensor, None]:
    """Each token's own values."""
    group = query.shape[1] // value.shape[1]
    return value.repeat_interleave(group, 1).transpose(1, 2), None


def _is_like(expected: Any, found: Tensor, norm: _KnownNorm) -> bool:
    """Whether a layer has just given what its own code gave, and its norm."""
    if not isinstance(expected, Tensor) or norm.known is None:
        return False
    return is_near(found, expected) and is_near(norm.known[1], norm.norm(found))
