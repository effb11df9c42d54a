"""Running states: what layers without attention know of a sequence, in a fixed number of bytes.

A gated DeltaNet or a Mamba keeps a matrix a head in place of keys and values, and the last inputs
of a short convolution. Such a state cannot be cut: it is of a sequence's tokens up to one place. So
there is one for the end of each resident segment of the prompts, from which whatever hangs below
goes on, and one for each row of the batch. A fork copies it. Frozen tails have none: nothing begins
at their ends but rows that have their own.

Places of segments and of rows are apart: a batch never lacks one, and a segment that finds none is
treated like one that finds no pages. A batch on a device moves its own states, see `DeviceStates`;
the host's places for rows are then those of rows on their way into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.inputs import to_device
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.reserving import zeros
from hydragen_tree.shape import KVShape

_ALIGNED = 16  # bytes that what a layer keeps is a multiple of

NO_STATE = -1  # no place: of a sequence without tokens, or where nothing is kept


class StateKind(NamedTuple):
    """A tensor that a layer keeps of a sequence.

    Attributes:
        shape: of one sequence's.
        dtype: of its numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Bytes that one takes up."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return -(-size // _ALIGNED) * _ALIGNED


class LayerKinds(NamedTuple):
    """What a layer keeps; None: nothing of the kind.

    Attributes:
        conv: inputs of its convolution.
        recurrent: what it has made of all tokens.
    """

    conv: StateKind | None
    recurrent: StateKind | None


def state_bytes(kinds: Mapping[int, LayerKinds]) -> list[int]:
    """Bytes of one sequence's state in each layer."""
    return [sum(kind.n_bytes for kind in layer if kind is not None) for layer in kinds.values()]


def with_states(shape: KVShape, kinds: Mapping[int, LayerKinds]) -> KVShape:
    """The sizes of a model, with those of its running states."""
    of_layers = state_bytes(kinds)
    return replace(shape, state_bytes=sum(of_layers), layer_state_bytes=max(of_layers, default=0))


class StatePlaces(NamedTuple):
    """How many states there is room for.

    Attributes:
        segments: of ends of segments.
        rows: of rows that the host moves.
        device_rows: of rows that a device moves; 0: the host moves all.
    """

    segments: int
    rows: int
    device_rows: int = 0

    @property
    def total(self) -> int:
        """All of them, and one on a device for what nobody keeps."""
        return self.segments + self.rows + (self.device_rows + 1 if self.device_rows else 0)


class RunGroup(NamedTuple):
    """Runs of one length, which go through a layer side by side.

    Attributes:
        tokens: `[runs, length]` int64, their tokens among those of the pass.
        source: `[runs]` int64 places of the states before them; None: there is no token before.
        target: `[runs]` int64 places of the states behind them.
    """

    tokens: Tensor
    source: Tensor | None
    target: Tensor

    @property
    def is_step(self) -> bool:
        """Whether each is one token that follows others."""
        return self.source is not None and self.tokens.shape[1] == 1


@dataclass(frozen=True, eq=False)
class Runs:
    """Which tokens of a pass follow each other in one sequence; runs lie one behind the other.

    Attributes:
        counts: `[runs]` int32 tokens of each.
        source: `[runs]` int32 place of the state before it, `NO_STATE` at a sequence's beginning.
        target: `[runs]` int32 place that its last token's state goes to.
        device: of the model.
    """

    counts: Int32
    source: Int32
    target: Int32
    device: torch.device

    @cached_property
    def groups(self) -> list[RunGroup]:
        """All of them, by length; made once for all layers."""
        first = np.cumsum(self.counts) - self.counts
        is_fresh = self.source == NO_STATE
        groups = []
        for count, fresh in sorted(set(zip(self.counts.tolist(), is_fresh.tolist(), strict=True))):
            own = np.flatnonzero((self.counts == count) & (is_fresh == fresh))
            tokens = first[own][:, None] + np.arange(count)
            source = None if fresh else self._move(self.source[own])
            groups.append(RunGroup(self._move(tokens), source, self._move(self.target[own])))
        return groups

    def _move(self, array: NDArray[Any]) -> Tensor:
        return to_device(array.astype(np.int64), self.device)


class RowRuns(NamedTuple):
    """Runs of a step on a device: a token a row.

    Attributes:
        groups: one.
    """

    groups: list[RunGroup]


def empty_state() -> Any:
    """What transformers' layers take a state from and leave it in; nothing has been before."""
    from transformers.cache_utils import LinearAttentionLayer  # not in every version

    return LinearAttentionLayer()


class States:
    """An arena of states: everything that layers keep of a sequence stands side by side.

    Args:
        kinds: of each layer that keeps one, by its number.
        places: how many.
        device: where they live.

    Attributes:
        buffer: `[places, words]` int32: for segments, for rows, and a device's own.
        places: as given.
    """

    def __init__(
        self, kinds: Mapping[int, LayerKinds], places: StatePlaces, device: torch.device
    ) -> None:
        self.places, self._first_row = places, places.segments
        words = sum(state_bytes(kinds)) // 4
        self.buffer = zeros((places.total if kinds else 0, words), torch.int32, device)
        self._tensors: dict[int, tuple[Tensor | None, ...]] = {}
        start = 0
        for layer, own in kinds.items():
            views: list[Tensor | None] = []
            for kind in own:
                views.append(None if kind is None else self._view(start, kind))
                start += 0 if kind is None else kind.n_bytes
            self._tensors[layer] = tuple(views)
        self._is_used = np.zeros(places.segments + places.rows, np.bool_)

    def _view(self, start: int, kind: StateKind) -> Tensor:
        """`[places, ...]` what a layer keeps, from a byte of every place on."""
        size = int(np.prod(kind.shape)) * kind.dtype.itemsize
        numbers = self.buffer.view(torch.uint8)[:, start : start + size].view(kind.dtype)
        return numbers.view(-1, *kind.shape)

    @property
    def is_kept(self) -> bool:
        """Whether the model has layers that keep states at all."""
        return bool(self._tensors)

    @property
    def first_of_device(self) -> int:
        """The first place that a device moves itself."""
        return self._is_used.size

    @property
    def has_room(self) -> bool:
        """Whether there is a place for one more row."""
        return not (self.is_kept and self._is_used[self._first_row :].all())

    def most_rows(self, rows: int) -> int:
        """Rows of a batch of at most so many that have a place."""
        return min(rows, self.places.device_rows or self.places.rows) if self.is_kept else rows

    def take_segment(self) -> int | None:
        """A place for a segment's end, or `NO_STATE` of a model that keeps none; None: all used."""
        if not self.is_kept:
            return NO_STATE
        free = np.flatnonzero(~self._is_used[: self._first_row])
        if not free.size:
            return None
        self._is_used[free[0]] = True
        return int(free[0])

    def take_rows(self, count: int) -> Int32:
        """Places for rows, or as many `NO_STATE` of a model that keeps none.

        Raises:
            CapacityError: fewer are free: the batch has more rows than it was made for.
        """
        if not self.is_kept:
            return np.full(count, NO_STATE, np.int32)
        free = self._first_row + np.flatnonzero(~self._is_used[self._first_row :])[:count]
        if free.size < count:
            raise CapacityError(f"{count} places of states needed, {free.size} are free")
        self._is_used[free] = True
        return free.astype(np.int32)

    def release(self, places: Int32) -> None:
        """Gives up places; `NO_STATE` among them stands for none."""
        self._is_used[places[places >= 0]] = False

    def copy(self, source: Int32, target: Int32) -> None:
        """Copies states from places to others."""
        if self.is_kept and source.size:
            at = to_device(np.stack([source, target]).astype(np.int64), self.buffer.device)
            self.buffer[at[1]] = self.buffer[at[0]]

    def tensors(self, layer: int) -> tuple[Tensor | None, ...]:
        """What a layer keeps: `[places, ...]` inputs of a convolution, and what it made of all."""
        return self._tensors[layer]

    def load(self, layer: int, source: Tensor | None) -> Any:
        """Copies of a layer's states, as transformers' layers take and change them.

        Args:
            layer: its number.
            source: `[runs]` places; None: nothing has been before.
        """
        held = empty_state()
        if source is None:
            return held
        conv, recurrent = (None if x is None else x[source] for x in self._tensors[layer])
        held.has_previous_state[0] = True
        for name, state in (("conv", conv), ("recurrent", recurrent)):
            if state is not None:
                getattr(held, f"{name}_states")[0] = state
                getattr(held, f"is_{name}_states_initialized")[0] = True
        if conv is not None:
            held.conv_kernel_size[0] = conv.shape[-1]
            held.dtype, held.device = conv.dtype, conv.device
        return held

    def store(self, layer: int, target: Tensor, held: Any) -> None:
        """Keeps what a layer has made of the states that it was given.

        Args:
            layer: its number.
            target: `[runs]` places.
            held: as `load` gave it, after the layer's call.
        """
        both = held.conv_states[0], held.recurrent_states[0]
        for whole, new in zip(self._tensors[layer], both, strict=True):
            if whole is not None:
                whole[target] = new.to(whole.dtype)
