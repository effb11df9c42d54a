"""A model compiled late is the same."""

from pathlib import Path

import pytest
import torch

from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch.compile's import
def test_a_model_compiled_between_runs_draws_the_same(
    random_model: Path, eager_compiler: None
) -> None:
    """Another model, made afterwards, is not compiled and changes nothing for the first."""
    settings = SamplingSettings(max_tokens=12)

    def draw(sampler: Sampler) -> dict[int, list[int]]:
        drawn = sampler.sample(["a b c", "a b d"], 4, settings)
        return {hash((one.task_id, one.sample_index)): one.token_ids for one in drawn}

    sampler = Sampler.from_pretrained(str(random_model), device="cpu")
    expected = draw(sampler)
    sampler.model.compile()
    sampler.model.compile()
    assert draw(sampler) == expected
    other = Sampler.from_pretrained(str(random_model), device="cpu")
    assert draw(other) == expected
    assert not other.model.is_compiled
    torch.compiler.reset()  # the first is traced anew, beside the second
    assert draw(sampler) == expected
