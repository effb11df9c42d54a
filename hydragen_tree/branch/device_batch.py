"""A batch on the device, and what changes in it between steps: rows that come and rows that go.

Everything is a queue of operations of fixed shapes on fixed buffers. None of them needs to know how
many rows there are by now, so that the host can order them while steps are still running.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import BatchState, Control, RowState
from hydragen_kernels.fork import Groups, first_rows
from hydragen_kernels.inputs import to_device
from hydragen_tree.branch.device_states import DeviceStates

DEAD = -1  # the stop state of a row that is none


@dataclass(frozen=True, eq=False, slots=True)
class NewRows:
    """Rows that come into a batch, and the samples they carry.

    Attributes:
        fields: `[fields, new]` int64, as `RowState` names them.
        pages: `[new, max_pages]` int32, -1 where there is none.
        slots: `[samples]` places that the samples get.
        rows: `[samples]` the new row of each.
        keys: `[samples]` uint64 stream keys.
        states: `[new]` places of their running states, which are copied; -1 of a model that keeps
            none.
    """

    fields: NDArray[np.int64]
    pages: Int32
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    keys: NDArray[np.uint64]
    states: Int32


class Frozen(NamedTuple):
    """Beginnings of tails that have become segments, `[frozen]` each; none is above another.

    Attributes:
        last: int32, ascending: the last page of each.
        pages: int64, how many each has.
        groups: int64, the group of those that hang from it.
    """

    last: Tensor
    pages: Tensor
    groups: Tensor

    @classmethod
    def of(cls, frozen: list[tuple[int, int, int]]) -> "Frozen":
        """Those given one by one."""
        last, pages, groups = torch.tensor(sorted(frozen)).T
        return cls(last.int().contiguous(), pages.contiguous(), groups.contiguous())


def hung_below(
    rows: Tensor, pages: Tensor, frozen: Frozen, page_tokens: int
) -> tuple[Tensor, Tensor]:
    """Rows, and their pages, with segments above them in the place of their tails' beginnings.

    Args:
        rows: `[fields, rows]` int64, as `RowState` names them.
        pages: `[rows, max_pages]` int32, -1 where there is none.
        frozen: the segments; rows that name the last page of one hang from it.
        page_tokens: tokens of a page.
    """
    named, column = RowState(*rows), torch.arange(pages.shape[1], device=pages.device)
    which = torch.searchsorted(frozen.last, pages).clamp(max=len(frozen.last) - 1)
    is_last = (frozen.last[which] == pages) & (named.stops >= 0)[:, None]
    count = torch.where(is_last, frozen.pages[which], 0).amax(1)
    group = torch.where(is_last, frozen.groups[which], 0).amax(1)
    named = named._replace(
        lengths=named.lengths - count * page_tokens,
        groups=torch.where(count > 0, group, named.groups),
    )
    source = column + count[:, None]
    is_there = source < pages.shape[1]
    left = pages.gather(1, source.clamp(max=pages.shape[1] - 1))
    return torch.stack(named), torch.where(is_there, left, -1)


def row_fields(rows: Sequence[RowState[int]]) -> NDArray[np.int64]:
    """`[fields, rows]` of rows given one by one."""
    return np.array(rows, np.int64).reshape(-1, len(RowState._fields)).T


class DeviceBatch:
    """Fixed buffers of a batch.

    Args:
        rows: room for them.
        samples: room for them.
        max_pages: pages of a tail at the most.
        pages: of the arena.
        device: where the buffers live.
        states: running states of the rows; None of a model that keeps none.

    Attributes:
        state: what steps read and write.
        states: as given.
        groups: the segments that rows hang from. A group has a number of its own for as long as
            rows hang from it; its rank changes with the tree.
    """

    def __init__(
        self,
        rows: int,
        samples: int,
        max_pages: int,
        pages: int,
        device: torch.device,
        states: DeviceStates | None = None,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.state = BatchState(
            rows=zeros(len(RowState._fields), rows),
            pages=zeros(rows, max_pages, dtype=torch.int32) - 1,
            sample_rows=zeros(samples, dtype=torch.int32) - 1,
            keys=zeros(samples),
            control=zeros(len(Control._fields)),
            queue=zeros(pages, dtype=torch.int32),
        )
        self.state.named.stops.fill_(DEAD)
        # a group more than rows, for those that come while others are still thought to be there
        self.groups = Groups(zeros(2 * rows), zeros(rows), zeros(rows + 1, dtype=torch.int32))
        self.states = states
        self._given = 0

    def clear(self) -> None:
        """Forgets all rows, samples and pages."""
        self.state.sample_rows.fill_(-1)
        self.state.named.stops.fill_(DEAD)
        self.state.pages.fill_(-1)
        self.state.control.zero_()
        if self.states is not None:
            self.states.clear()
        self._given = 0

    @property
    def control(self) -> Control[Tensor]:
        """The single numbers, as views."""
        return Control(*self.state.control.split(1))

    def give(self, pages: Int32) -> None:
        """Puts free pages into the queue."""
        at = (self._given + np.arange(pages.size)) % len(self.state.queue)
        self.state.queue[self._sent(at)] = self._sent(pages)
        self._given += pages.size
        self.control.given.fill_(self._given)

    def take_back(self, taken: int) -> None:
        """Empties the queue, from which so many pages have been taken."""
        self._given = taken
        self.control.given.fill_(taken)

    def set_groups(self, rank: NDArray[np.int64], room: NDArray[np.int64]) -> None:
        """Says in which order groups stand, and how many rows each may have.

        Args:
            rank: `[groups]` the rank of each group that rows hang from; others as they come.
            room: `[ranks]`.
        """
        self.groups.rank[: rank.size].copy_(self._sent(rank))
        self.groups.room.zero_()
        self.groups.room[: room.size].copy_(self._sent(room))

    def freeze(self, frozen: Frozen, page_tokens: int) -> None:
        """Hangs rows below segments that were made of their tails' beginnings.

        They have no rank before `set_groups` and `rearrange` have followed.
        """
        device = self.state.rows.device
        there = Frozen(*(to_device(part.numpy(), device) for part in frozen))
        rows, pages = hung_below(self.state.rows, self.state.pages, there, page_tokens)
        self.state.rows.copy_(rows)
        self.state.pages.copy_(pages)

    def rearrange(self, new: NewRows, left: NDArray[np.int64]) -> None:
        """Drops dead rows, lets rows in, and puts all in the order of their groups' ranks.

        Args:
            new: rows that come.
            left: slots of samples that leave, and their rows with them.
        """
        state = self.state
        n, n_new = state.rows.shape[1], new.fields.shape[1]
        if left.size:
            state.sample_rows[self._sent(left)] = -1
        if new.slots.size:
            slots = self._sent(new.slots)
            state.sample_rows[slots] = self._sent((n + new.rows).astype(np.int32))
            state.keys[slots] = self._sent(new.keys.view(np.int64))
        rows = torch.cat([state.rows, self._sent(new.fields)], 1)
        pages = torch.cat([state.pages, self._sent(new.pages)])
        is_sample = state.sample_rows >= 0
        owner = torch.where(is_sample, state.sample_rows, n + n_new).long()
        alive = torch.zeros(n + n_new + 1, dtype=torch.bool, device=owner.device)
        alive = alive.index_fill_(0, owner, True)[: n + n_new]
        nobody = len(self.groups.room)
        rank = torch.where(alive, self.groups.rank[RowState(*rows).groups], nobody)
        rank, order = rank.sort(stable=True)
        place = torch.empty_like(order).scatter_(
            0, order, torch.arange(n + n_new, device=order.device)
        )
        rank, order, count = rank[:n], order[:n], alive.sum()
        is_row = torch.arange(n, device=order.device) < count
        state.rows.copy_(rows[:, order])
        state.named.stops.copy_(torch.where(is_row, state.named.stops, DEAD))
        state.pages.copy_(torch.where(is_row[:, None], pages[order], -1))
        moved = place[owner.clamp(max=n + n_new - 1)].int()
        state.sample_rows.copy_(torch.where(is_sample, moved, -1))
        self.groups.starts.copy_(first_rows(rank, nobody))
        self.control.rows.copy_(count)
        if self.states is not None:
            self.states.rearrange(order, is_row, self._sent(new.states.astype(np.int64)))

    def _sent(self, array: NDArray[np.generic]) -> Tensor:
        return to_device(array, self.state.rows.device)
