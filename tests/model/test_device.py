"""Devices by name: those that are there, and what is said of the others."""

import pytest
import torch

from hydragen_tree.errors import InputError
from hydragen_tree.model.device import find_device


def test_the_device_that_is_there_is_found() -> None:
    assert find_device("cpu").type == "cpu"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert find_device("auto").type == (accelerator.type if accelerator else "cpu")


@pytest.mark.parametrize("name", ["vulkan", "xla", "ipu", "mkldnn", "opengl", "privateuseone"])
def test_torchs_list_of_operators_is_not_shown(name: str) -> None:
    with pytest.raises(InputError) as refused:
        find_device(name)
    assert refused.value.setting == "device"
    assert "no such device here; expected auto, cpu" in str(refused.value)
    assert len(str(refused.value)) < 200


def test_an_accelerators_own_words_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards, of which the second is taken, as torch tells it."""
    words = "CUDA error: out of memory.\nCUDA kernel errors might be reported elsewhere"

    def no_card(*_: object, device: str) -> torch.Tensor:
        raise RuntimeError(words)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", no_card)
    with pytest.raises(InputError, match=r"cuda:1: CUDA error: out of memory$"):
        find_device("cuda:1")
    with pytest.raises(InputError, match=r"expected auto, cpu, cuda, cuda:0, cuda:1$"):
        find_device("cuda:2")
    with pytest.raises(InputError, match=r"auto: CUDA error: out of memory$"):
        find_device("auto")
