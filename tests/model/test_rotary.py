"""Rotary frequencies that depend on how long a sequence is: a run has one set."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hydragen_tree.errors import ModelError
from hydragen_tree.model.loading import find_model
from hydragen_tree.model.rotary import longrope_remark
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from tests.model.shrunken import shrunken
from tests.model.test_every_architecture import check_equal, found

FACTORS = {"short_factor": [1.0] * 8, "long_factor": [1.5 + 0.5 * i for i in range(8)]}


def longrope(tokens: int) -> dict[str, Any]:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": tokens}
    return rope | FACTORS


@pytest.mark.parametrize("tokens", [60, 200])
@pytest.mark.parametrize("kind", ["phi3", "llama"])
def test_longrope_equals_dense_over_the_longest_sequence(
    kind: str, tokens: int, tmp_path: Path
) -> None:
    """Shorter than 60 tokens or not: all have the frequencies that the longest has."""
    config = shrunken(kind, rope_parameters=longrope(tokens))
    config.original_max_position_embeddings = tokens
    source = found(config, tmp_path)
    assert source is not None
    check_equal(config, source)


def test_a_run_goes_by_its_longest_sequence(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_DIR, tmp_path / "model")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    half = config["head_dim"] // 2
    rope = longrope(16) | {"short_factor": [1.0] * half, "long_factor": [4.0] * half}
    file.write_text(json.dumps(config | {"rope_parameters": rope}))
    sampler = Sampler.from_pretrained(str(folder), device="cpu")
    rotary = sampler.model.model.model.rotary_emb
    short = rotary.original_inv_freq.clone()
    for max_tokens, factor in ((4, 1.0), (20, 4.0), (4, 1.0)):
        settings = SamplingSettings(max_tokens=max_tokens)
        assert list(sampler.sample([[5, 6, 7, 8], [5, 6]], 2, settings))
        torch.testing.assert_close(rotary.inv_freq * factor, short)
        remark = longrope_remark(sampler.source.config, 4 + max_tokens)
        assert remark is not None
        assert ("for more than 16 tokens" in remark) == (factor > 1)
    assert longrope_remark(find_model("tiny").config, 10_000) is None


def test_dynamic_ntk_is_refused_where_it_begins(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    source = found(shrunken("llama", rope_parameters=rope), tmp_path)
    assert source is not None
    source.check_length(64, "p")
    with pytest.raises(ModelError, match=r"beyond 64 tokens .* \(dynamic NTK\)"):
        source.check_length(65, "p")
