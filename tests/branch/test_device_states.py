"""Places of states on a device, whatever becomes of the rows; runs are in `test_device_stepper`."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from hydragen_kernels.drawn import Drawn
from hydragen_kernels.fork import Origins
from hydragen_tree.branch import device_states
from hydragen_tree.branch.device_states import DeviceStates
from hydragen_tree.model.states import LayerKinds, StateKind, StatePlaces, States
from tests.branch.stand_in_memory import copy_states

ROWS, FIRST = 8, 3 + 2  # behind those of segments, and of rows on their way
NOWHERE = FIRST + ROWS


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> States:
    """Each place holds its number."""
    monkeypatch.setattr(device_states, "copy_states", copy_states)
    kinds = {2: LayerKinds(StateKind((3, 2), torch.int16), StateKind((5,), torch.float64))}
    held = States(kinds, StatePlaces(3, 2, ROWS), torch.device("cpu"))
    held.buffer.copy_(torch.arange(len(held.buffer))[:, None])
    return held


def drawn(*tokens: int) -> Drawn[Tensor]:
    found = torch.tensor(tokens, dtype=torch.int32)
    return Drawn(found, found / 2, found / 4)


def origins(goes: bool, parents: list[int], rows: int) -> Origins:
    """Children of these parents, all of which have drawn a token."""
    n = len(parents)
    parent = torch.tensor([*parents, *[0] * (rows - n)])
    is_row = torch.arange(rows) < n
    is_heir = is_row & (parent.diff(prepend=torch.tensor([-1])) != 0)
    return Origins(torch.tensor([goes]), parent, is_row, is_heir, is_row)


def test_children_get_copies_and_places_stay_the_same_set(states: States) -> None:
    own = DeviceStates(states, 4)
    own.fork(origins(True, [1, 1, 1, 3], 6), torch.ones(6, dtype=torch.bool))
    assert sorted(own.places.tolist()) == list(range(FIRST, FIRST + ROWS))
    assert own.places[[0, 3]].tolist() == [FIRST + 1, FIRST + 3]
    assert own.places[6:].tolist() == [FIRST + 6, FIRST + 7]  # of rows beyond the step's
    held = states.buffer[own.places[:4], 0] - FIRST
    assert held.tolist() == [1, 1, 1, 3]


def test_rows_that_find_no_room_keep_what_they_have_drawn(states: States) -> None:
    """They are ahead: their states stay until they move, and so do their keys."""
    own, slots = DeviceStates(states, 2), torch.tensor([40, 41, -1, -1], dtype=torch.int32)
    rows = torch.tensor([0, 1], dtype=torch.int32)
    runs, keys = own.step(slots, keeps=True)
    assert runs.groups[0].target.tolist() == [FIRST, FIRST + 1, NOWHERE, NOWHERE]
    assert keys.tolist() == slots.tolist()
    own.recall(rows, drawn(5, 6))
    own.fork(origins(False, [0, 1], 4), slots >= 0)

    runs, keys = own.step(slots, keeps=True)
    assert runs.groups[0].target.tolist() == [NOWHERE] * 4
    assert keys.tolist() == [-1] * 4
    assert own.recall(rows, drawn(8, 9)).tokens.tolist() == [5, 6]
    own.moved(torch.tensor([40, -1, -1, -1]))  # without a fork
    assert own.step(slots, keeps=True)[1].tolist() == [40, -1, -1, -1]
    assert own.recall(rows, drawn(8, 9)).tokens.tolist() == [8, 6]
    own.fork(origins(True, [0, 1], 4), slots >= 0)
    assert own.recall(rows, drawn(8, 9)).tokens.tolist() == [8, 9]


def test_a_look_changes_no_state(states: States) -> None:
    own = DeviceStates(states, 2)
    runs, _ = own.step(torch.tensor([40, 41]), keeps=False)
    assert runs.groups[0].target.tolist() == [NOWHERE] * 2


def test_rows_come_and_leave(states: States) -> None:
    """Row 2 leads, two new ones follow it, row 0 is last; the others have left."""
    own = DeviceStates(states, 4)
    own.fork(origins(False, [0, 1, 2], ROWS), torch.tensor([True] + [False] * 7))
    order, is_row = torch.tensor([2, 8, 9, 0, 1, 3, 4, 5]), torch.arange(ROWS) < 4
    own.rearrange(order, is_row, torch.tensor([4, 3]))
    assert sorted(own.places.tolist()) == list(range(FIRST, FIRST + ROWS))
    held = states.buffer[own.places[:4], 0]
    assert held.tolist() == [FIRST + 2, 4, 3, FIRST]
    assert own.step(torch.arange(4), keeps=True)[1].tolist() == [0, 1, 2, -1]  # row 0 is ahead


def test_what_layers_keep_stands_side_by_side(states: States) -> None:
    """16 bytes of each kind at least; what is stored at a place is found there, and only there."""
    before = states.buffer.clone()
    assert states.buffer.shape == (NOWHERE + 1, (16 + 48) // 4)
    place = torch.tensor([6])
    held = states.load(2, place)
    held.conv_states[0], held.recurrent_states[0] = torch.ones(1, 3, 2), torch.full((1, 5), 0.5)
    states.store(2, place, held)
    again = states.load(2, place)
    assert again.conv_states[0].tolist() == [[[1, 1]] * 3]
    assert again.recurrent_states[0].tolist() == [[0.5] * 5]
    changed = (states.buffer != before).any(1)
    assert changed.nonzero()[:, 0].tolist() == [6]
