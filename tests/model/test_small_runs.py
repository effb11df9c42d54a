"""Only runs that a CPU ends in a moment are said to be faster there."""

from dataclasses import replace

import pytest
import torch

from hydragen_tree.model.loading import ModelSource, find_model
from hydragen_tree.model.small_runs import is_faster_on_cpu


@pytest.fixture(scope="module")
def shipped() -> ModelSource:
    """The shipped model, as it would be found where there is a GPU."""
    return replace(find_model("tiny", device="cpu"), device=torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("samples", "max_tokens", "threads", "expected"),
    [
        pytest.param(1, 256, 1, True, id="one"),
        pytest.param(20, 256, 2, True, id="twenty"),
        pytest.param(1000, 256, 2, False, id="thousand"),
        pytest.param(1000, 256, 64, False, id="thousand-many-threads"),
        pytest.param(1, 4096, 64, False, id="long"),
    ],
)
def test_small_runs_of_the_shipped_model(
    shipped: ModelSource, samples: int, max_tokens: int, threads: int, expected: bool
) -> None:
    assert is_faster_on_cpu(shipped, 400, samples, max_tokens, threads) is expected


def test_many_prompts_are_no_small_run(shipped: ModelSource) -> None:
    assert not is_faster_on_cpu(shipped, 10_000_000, 1, 16, 2)


def test_a_large_model_is_never_sent_to_a_cpu(
    shipped: ModelSource, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("large")
    with (folder / "model.safetensors").open("wb") as stream:
        stream.truncate(16 << 30)  # a hole: takes no room
    assert not is_faster_on_cpu(replace(shipped, path=str(folder)), 400, 1, 256, 16)


def test_what_is_not_on_a_gpu_or_not_here_is_not_judged(shipped: ModelSource) -> None:
    assert not is_faster_on_cpu(replace(shipped, device=torch.device("cpu")), 9, 1, 16, 2)
    assert not is_faster_on_cpu(replace(shipped, path="owner/name"), 9, 1, 16, 2)
