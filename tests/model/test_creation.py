"""Models are made without numbers being drawn that their weights replace."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hydragen_tree.model.creation import Undrawn
from hydragen_tree.model.weights import without_reports
from tests.model.shrunken import shrunken


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.filterwarnings("ignore")  # transformers' own, about configurations it makes itself
@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2", "deepseek_v3", "gemma4_text", "lfm2"])
def test_a_loaded_model_is_the_same(kind: str, tmp_path: Path) -> None:
    """Gemma 4 joins frequencies with zeros, which are on the meta device."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shrunken(kind)).save_pretrained(tmp_path)
    with without_reports():
        expected = tensors(AutoModelForCausalLM.from_pretrained(tmp_path))
        with Undrawn():
            found = tensors(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_weights_that_are_real_are_drawn() -> None:
    with Undrawn():
        layer = nn.Linear(8, 8)
        assert layer.weight.unique().numel() == 64
        assert torch.arange(3).tolist() == [0, 1, 2]


def test_what_fails_on_numbers_still_fails() -> None:
    with Undrawn(), pytest.raises(RuntimeError, match=r"[Ss]ize"):
        torch.ones(3) + torch.ones(4)
    with Undrawn(), pytest.raises(RuntimeError, match=r"[Ss]ize"):
        torch.ones(3) + torch.ones(4, device="meta")
