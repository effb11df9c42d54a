"""Layers that keep a running state, called once for every run of tokens instead of for a pass.

A pass packs tokens of many sequences into one. Attention tells them apart by the plan; a layer with
a state would take them for one sequence. So its call is taken apart here: runs of one length go
through it side by side, as a batch, each with the state of what was before it. The layer's own code
does the rest: transformers hands it states through an object, which is ours.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from hydragen_tree.errors import ModelError
from hydragen_tree.imports import hidden_from_compiler
from hydragen_tree.model.alike import numbers
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.states import (
    LayerKinds,
    RowRuns,
    RunGroup,
    Runs,
    StateKind,
    StatePlaces,
    States,
    empty_state,
)

_PROBED = 7  # tokens; in pieces of two, and one
_ADAPTED = "_tree_recurrence"  # of a model whose layers have been taken
ASKS_FOR_STATE = "get_conv_state("  # in the code of a layer that takes its state from a cache


class Recurrence:
    """A model's layers with states.

    Args:
        model: their calls are replaced.
        has_kernels: Triton's kernels can run, and take steps where they give what layers give.

    Attributes:
        kinds: what each of them keeps, by its number.
    """

    def __init__(self, model: PreTrainedModel, *, has_kernels: bool = False) -> None:
        layers = recurrent_layers(model)
        self.kinds = layer_kinds(model)
        self._runs: Runs | RowRuns | None = None
        self._states: States | None = None
        self._steps: dict[int, Callable[..., Any]] = {}  # of layers, with states in their places
        for layer in layers:
            number = int(layer.layer_idx)
            if has_kernels and (step := _step_of(layer, self.kinds[number], _width(model))):
                self._steps[number] = step
            layer.forward = partial(self._call, layer, layer.forward)

    @classmethod
    def of(cls, model: PreTrainedModel, *, has_kernels: bool) -> "Recurrence":
        """A model's; the same one for all that adapt it."""
        found: Recurrence | None = getattr(model, _ADAPTED, None)
        if found is None:
            found = cls(model, has_kernels=has_kernels)
            setattr(model, _ADAPTED, found)
        return found

    @contextmanager
    def over(self, runs: Runs | RowRuns | None, states: States) -> Iterator[None]:
        """While a pass is of these runs, and these states are what was before them.

        Raises:
            ModelError: the model keeps states, and nobody says which tokens follow each other.
        """
        if self.kinds and runs is None:
            raise ModelError("its layers keep states, and nobody says which tokens follow which")
        self._runs, self._states = runs, states
        try:
            yield
        finally:
            self._runs = self._states = None

    @hidden_from_compiler
    def _call(
        self, layer: Any, own: Callable[..., Any], hidden_states: Tensor, *_: Any, **__: Any
    ) -> Tensor:
        """A layer's call, run by run; tokens behind those of the runs are padding."""
        assert self._runs is not None
        assert self._states is not None
        packed, number = hidden_states[0], int(layer.layer_idx)
        out = torch.zeros_like(packed)
        for group in self._runs.groups:
            tokens, step = packed[group.tokens], self._steps.get(number)
            if step is not None and group.is_step:
                out[group.tokens] = _stepped(step, tokens, self._states, number, group)
                continue
            held = self._states.load(number, group.source)
            out[group.tokens] = own(tokens, cache=_cache_of(held, number))
            self._states.store(number, group.target, held)
        return out[None]


def _step_of(layer: Any, kinds: LayerKinds, width: int) -> Callable[..., Any] | None:
    """A layer's step with its states in their places, if that gives what its own code gives."""
    from hydragen_tree.model.state_steps import placed_forward  # imports Triton

    step = placed_forward(layer, kinds.recurrent is not None)
    try:
        return step if step is not None and _is_alike(layer, step, kinds, width) else None
    except (TypeError, ValueError):  # its code asks for what the kernels do not do
        return None


@torch.inference_mode()
def _is_alike(layer: Any, step: Callable[..., Any], kinds: LayerKinds, width: int) -> bool:
    """Tries a layer's step on two random sequences, whose states go to other places."""
    number, like = int(layer.layer_idx), next(layer.parameters())
    states = States({number: kinds}, StatePlaces(0, 6), like.device)
    tokens = numbers(like, 2, _PROBED, width)
    held = empty_state()
    layer(tokens[:, :-1], cache=_cache_of(held, number))
    source, ours, own = torch.arange(6, device=like.device).view(3, 2)
    states.store(number, source, held)
    group = RunGroup(torch.arange(2, device=like.device)[:, None], source, ours)
    expected = layer(tokens[:, -1:], cache=_cache_of(held, number))
    states.store(number, own, held)
    found = _stepped(step, tokens[:, -1:], states, number, group)
    kept = [x for x in states.tensors(number) if x is not None]
    return _is_near(found, expected) and all(_is_near(x[ours], x[own]) for x in kept)


def _stepped(
    step: Callable[..., Any], tokens: Tensor, states: States, number: int, group: RunGroup
) -> Tensor:
    """A token of every row `[rows, 1, width]` through a layer that finds states by their places."""
    from hydragen_tree.model.state_steps import PlacedState

    held = PlacedState(states.tensors(number), group.source, group.target)
    out: Tensor = step(tokens, cache=_cache_of(held, number))
    return out


def recurrent_layers(model: nn.Module) -> list[Any]:
    """The modules that take a state from a cache."""
    return [one for one in model.modules() if hasattr(one, "layer_idx") and _asks(type(one))]


def layer_kinds(model: PreTrainedModel) -> dict[int, LayerKinds]:
    """What each layer keeps, by its number: what it leaves in a cache after some tokens.

    Args:
        model: its weights may be without memory (`meta`).

    Raises:
        ModelError: a layer does not go on from what it keeps.
    """
    of_type: dict[type, LayerKinds] = {}
    kinds = {}
    for layer in recurrent_layers(model):
        if type(layer) not in of_type:
            of_type[type(layer)] = _probed(layer, model)
        kinds[int(layer.layer_idx)] = of_type[type(layer)]
    return kinds


def kinds_of(config: PreTrainedConfig, dtype: torch.dtype) -> dict[int, LayerKinds]:
    """`layer_kinds` of a model that is not loaded.

    Args:
        config: of the text model.
        dtype: of weights and activations.
    """
    return layer_kinds(without_weights(config, dtype).eval())


@torch.inference_mode()
def _probed(layer: Any, model: PreTrainedModel) -> LayerKinds:
    """What a layer keeps; on the way it has to give for pieces of a sequence what it does for all.

    Raises:
        ModelError: it does not go on from its state.
    """
    width = _width(model)
    held, generator = empty_state(), torch.Generator().manual_seed(0)
    tokens = torch.randn(1, _PROBED, width, generator=generator).to(model.device, model.dtype)
    whole = layer(tokens)
    cache = _cache_of(held, layer.layer_idx)
    pieces = torch.cat([layer(piece, cache=cache) for piece in tokens.split(2, 1)], 1)
    if whole.device.type != "meta" and not _is_near(pieces, whole):
        raise ModelError(
            f"{type(layer).__name__} does not go on from the state that it keeps; "
            "choose another model"
        )
    both = held.conv_states[0], held.recurrent_states[0]
    kinds = (None if x is None else StateKind(tuple(x.shape[1:]), x.dtype) for x in both)
    return LayerKinds(*kinds)


def _width(model: PreTrainedModel) -> int:
    """Numbers of a token between layers."""
    return int(model.config.get_text_config(decoder=True).hidden_size)


def _is_near(found: Tensor, expected: Tensor) -> bool:
    """Whether two ways to the same numbers differ by no more than roundings."""
    difference = (found.float() - expected.float()).norm()
    return bool(difference <= torch.finfo(expected.dtype).eps ** 0.5 * expected.float().norm())


def _cache_of(held: Any, number: int) -> Cache:
    """A cache of one layer, at its place."""
    layers: list[Any] = [None] * number
    return Cache(layers=[*layers, held])


def _asks(kind: type) -> bool:
    """Whether a module's code asks a cache for a state."""
    try:
        code = inspect.getsource(inspect.unwrap(kind.forward))  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return False
    return ASKS_FOR_STATE in code
