"""Running states of a batch on a device: where each row's is, and what a step does to it.

Every row, dead ones among them, has a place, and those of all rows are always the same places in
another order. So none has to be looked for: when rows fork, a parent's first child keeps its place,
and the further ones get, in turn, those that rows have no more use for, and copies into them.

Keys of a step that moves nobody are written again by the next one. States cannot go back: where a
step has gone through the model and then finds no room for the rows that would follow, its rows are
*ahead*. What they have drawn is kept, and what they compute until they move is thrown away.
"""

import torch
from torch import Tensor

from hydragen_kernels.copy_states import copy_states
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.fork import Origins, scattered
from hydragen_tree.model.states import RowRuns, RunGroup, States


class DeviceStates:
    """Places of the rows of a batch.

    Args:
        states: with places for them.
        samples: of the batch.

    Attributes:
        places: `[rows]` int64 of each row.
    """

    def __init__(self, states: States, samples: int) -> None:
        device, rows = states.buffer.device, states.places.device_rows
        self._buffer, first = states.buffer, states.first_of_device
        self.places = torch.arange(first, first + rows, device=device)
        self._nowhere = first + rows  # where states go that nobody keeps
        self._is_ahead = torch.zeros(rows, dtype=torch.bool, device=device)
        tokens = torch.zeros(samples, dtype=torch.int32, device=device)
        self._held = Drawn(tokens, *torch.zeros(2, samples, device=device))

    def clear(self) -> None:
        """Forgets all rows."""
        self._is_ahead.fill_(False)

    def step(self, slots: Tensor, keeps: bool) -> tuple[RowRuns, Tensor]:
        """What the model's part of a step reads and writes.

        Args:
            slots: `[rows]` int32, where each row's key goes; -1: it does not move.
            keeps: rows keep the states that the step makes.

        Returns:
            A token of every row with its state, and `[rows]` where keys may go.
        """
        n = len(slots)
        place, is_ahead = self.places[:n], self._is_ahead[:n]
        goes = (slots >= 0) & ~is_ahead if keeps else torch.zeros_like(is_ahead)
        tokens = torch.arange(n, device=slots.device)[:, None]
        target = torch.where(goes, place, self._nowhere)
        return RowRuns([RunGroup(tokens, place, target)]), torch.where(is_ahead, -1, slots)

    def recall(self, sample_rows: Tensor, drawn: Drawn[Tensor]) -> Drawn[Tensor]:
        """What samples draw; of rows that are ahead, what they have drawn before.

        Args:
            sample_rows: `[samples]` int32, the row of each sample; -1: none.
            drawn: `[samples]` from the logits of this step.
        """
        is_held = (sample_rows >= 0) & self._is_ahead[sample_rows.clamp(min=0)]
        out = Drawn(*(torch.where(is_held, *pair) for pair in zip(self._held, drawn, strict=True)))
        for held, now in zip(self._held, out, strict=True):
            held.copy_(now)
        return out

    def moved(self, slots: Tensor) -> None:
        """Rows have moved, each on its place.

        Args:
            slots: `[rows]` int32; -1 of those that have not.
        """
        self._is_ahead[: len(slots)].logical_and_(slots < 0)

    def fork(self, origins: Origins, computed: Tensor) -> None:
        """Rows have forked, or found no room to.

        Args:
            origins: where they come from.
            computed: `[rows]` bool, rows whose states have taken in their last token.
        """
        goes, parent, is_row, is_heir, moved = origins
        n = len(computed)
        place = self._places_after(parent, is_heir)
        self._copy(self.places[parent], place, goes & is_row & ~is_heir)
        was_ahead, old = self._is_ahead[:n], self.places[:n]
        is_ahead = torch.where(goes, is_row & was_ahead[parent] & ~moved, was_ahead | computed)
        was_ahead.copy_(is_ahead)
        old.copy_(torch.where(goes, place, old))

    def rearrange(self, order: Tensor, is_row: Tensor, entering: Tensor) -> None:
        """Rows have left and come, and stand in another order.

        Args:
            order: `[rows]` int64, of each the row that it was, or that many rows and its number
                among those that come.
            is_row: `[rows]` bool; others are dead.
            entering: `[new]` int64 places of the states of those that come, which are copied.
        """
        n = len(order)
        is_old, parent = is_row & (order < n), order.clamp(max=n - 1)
        place = self._places_after(parent, is_old)
        if len(entering):
            self._copy(entering[(order - n).clamp(min=0)], place, is_row & ~is_old)
        self._is_ahead.copy_(is_old & self._is_ahead[parent])
        self.places.copy_(place)

    def _places_after(self, parent: Tensor, keeps: Tensor) -> Tensor:
        """`[rows]` places: of rows that `keeps` names their parents', of others what is left."""
        n = len(parent)
        old = self.places[:n]
        is_left = torch.ones(n + 1, dtype=torch.bool, device=old.device)
        is_left = is_left.index_fill_(0, torch.where(keeps, parent, n), False)[:n]
        left = scattered(is_left.cumsum(0) - 1, is_left, old, n)
        return torch.where(keeps, old[parent], left[((~keeps).cumsum(0) - 1).clamp(min=0)])

    def _copy(self, source: Tensor, target: Tensor, where: Tensor) -> None:
        """Copies states between places, where `where` holds."""
        at, n = where.cumsum(0) - 1, len(where)
        here, there = (scattered(at, where, places, n) for places in (source, target))
        copy_states(self._buffer, here, there, where.sum().view(1))
