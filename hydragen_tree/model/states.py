"""Running states: what layers without attention know of a sequence, in a fixed number of bytes.

A gated DeltaNet or a Mamba keeps a matrix a head in place of keys and values, and the last inputs
of a short convolution. Such a state cannot be cut: it is of a sequence's tokens up to one place. So
there is one for the end of each resident segment of the prompts, from which whatever hangs below
goes on, and one for each row of the batch. A fork copies it. Frozen tails have none: nothing begins
at their ends but rows that have their own.

Places of segments and of rows are apart: a batch never lacks one, and a segment that finds none is
treated like one that finds no pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import CapacityError
from hydragen_tree.model.reserving import zeros

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
        """Bytes of one."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class LayerKinds(NamedTuple):
    """What a layer keeps; None: nothing of the kind.

    Attributes:
        conv: inputs of its convolution.
        recurrent: what it has made of all tokens.
    """

    conv: StateKind | None
    recurrent: StateKind | None


def state_bytes(kinds: Mapping[int, LayerKinds]) -> int:
    """Bytes of one sequence's state in all layers."""
    return sum(kind.n_bytes for layer in kinds.values() for kind in layer if kind is not None)


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
        return torch.from_numpy(array.astype(np.int64)).to(self.device)


def empty_state() -> Any:
    """What transformers' layers take a state from and leave it in; nothing has been before."""
    from transformers.cache_utils import LinearAttentionLayer  # not in every version

    return LinearAttentionLayer()


class States:
    """An arena of states.

    Args:
        kinds: of each layer that keeps one, by its number.
        segments: places for ends of segments.
        rows: places for rows.
        device: where they live.
    """

    def __init__(
        self, kinds: Mapping[int, LayerKinds], segments: int, rows: int, device: torch.device
    ) -> None:
        self._rows = rows
        self._first_row = segments
        self._tensors = {
            layer: tuple(
                None if kind is None else zeros((segments + rows, *kind.shape), kind.dtype, device)
                for kind in own
            )
            for layer, own in kinds.items()
        }
        self._is_used = np.zeros(segments + rows, np.bool_)

    @property
    def is_kept(self) -> bool:
        """Whether the model has layers that keep states at all."""
        return bool(self._tensors)

    def most_rows(self, rows: int) -> int:
        """Rows of a batch of at most so many that have a place."""
        return min(rows, self._rows) if self.is_kept else rows

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
        if not self.is_kept or not source.size:
            return
        for tensors in self._tensors.values():
            for one in tensors:
                if one is not None:
                    at = torch.from_numpy(np.stack([source, target]).astype(np.int64))
                    at = at.to(one.device)
                    one[at[1]] = one[at[0]]

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
