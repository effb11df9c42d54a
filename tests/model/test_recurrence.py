"""Layers with running states, one token a sequence, as a captured step calls them."""

import os
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from hydragen_tree.model.recurrence import Recurrence, recurrent_layers
from hydragen_tree.model.states import RowRuns, RunGroup, StatePlaces, States
from hydragen_tree.model.support import keeps_states, unsupported
from tests.model.shrunken import shrunken

# one of each kind of layer
KINDS = ["qwen3_next", "qwen3_5_text", "kimi_linear", "olmo_hybrid", "falcon_h1", "nemotron_h"]
WITHOUT_KERNELS = "kimi_linear"
FORMS = [False]
if os.environ.get("TRITON_INTERPRET") == "1":
    FORMS.append(True)
_ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


class NothingAsked(TorchDispatchMode):
    """Refuses what a GPU's answer would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in _ASKING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_what_waits_is_refused() -> None:
    with pytest.raises(AssertionError, match="waits for the device"), NothingAsked():
        bool(torch.ones(3).sum() > 2)


@pytest.mark.parametrize("has_kernels", FORMS, ids=["plain", "kernels"][: len(FORMS)])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_step_waits_for_nothing_and_goes_on_from_its_states(kind: str, has_kernels: bool) -> None:
    """Two rows at places of their own, one of which keeps nothing, against whole sequences."""
    config = shrunken(kind)
    if (why := unsupported(config, config)) or not keeps_states(config):
        pytest.skip(why or "keeps no states")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    own = recurrent_layers(model)[0].forward
    recurrence = Recurrence(model, has_kernels=has_kernels)
    assert bool(recurrence._steps) == (has_kernels and kind != WITHOUT_KERNELS)
    layer = recurrent_layers(model)[0]
    states = States(recurrence.kinds, StatePlaces(0, 4), torch.device("cpu"))
    tokens = torch.randn(2, 5, config.hidden_size)
    expected = own(tokens)[:, -1]

    every, place = torch.arange(2)[:, None], torch.tensor([2, 0])
    whole = RunGroup(torch.arange(8).view(2, 4), None, place)
    with recurrence.over(RowRuns([whole]), states):
        layer(tokens[:, :4].reshape(1, 8, -1))
    before = states.buffer.clone()
    step = RunGroup(every, place, torch.tensor([2, 3]))
    asking = nullcontext() if has_kernels else NothingAsked()  # the interpreter looks at numbers
    with recurrence.over(RowRuns([step]), states), asking:
        found = layer(tokens[:, 4][None])[0]
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    changed = (states.buffer != before).any(1)
    assert changed.tolist() == [False, False, True, True]


@torch.inference_mode()
def test_who_adapts_a_model_again_takes_its_layers_as_they_are() -> None:
    """`bench decode` has two forms of one model, which take turns."""
    model = AutoModelForCausalLM.from_config(shrunken("qwen3_next")).float().eval()
    first, second = (Recurrence.of(model, has_kernels=False) for _ in range(2))
    states = States(second.kinds, StatePlaces(0, 1), torch.device("cpu"))
    run = RunGroup(torch.arange(4)[None], None, torch.tensor([0]))
    found = []
    for recurrence in (first, second, first):
        with recurrence.over(RowRuns([run]), states):
            found.append(recurrent_layers(model)[0](torch.ones(1, 4, 64)))
    assert all(torch.equal(one, found[0]) for one in found)
