"""Checkpoints in few bits: refused by name before weights load, or it is said that they widen."""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.quantizers import quantizer_finegrained_fp8

from hydragen_tree.errors import ModelError
from hydragen_tree.model.explain import explain
from hydragen_tree.model.loading import find_model
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.trie.costs import CPU

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]}
SMALL_BLOCKS = r"fp8 with weights scaled by blocks of \[64, 64\]"


def stored_as(folder: Path, stored: dict[str, Any]) -> str:
    """The shipped model, whose configuration says that its weights are something else."""
    shutil.copytree(MODEL_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stored}))
    return str(folder)


@pytest.mark.parametrize(
    ("stored", "library"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        (FP8, "accelerate"),
    ],
)
def test_a_library_that_is_missing_is_named(
    stored: dict[str, Any], library: str, tmp_path: Path
) -> None:
    if find_spec(library) is not None:
        pytest.skip(f"{library} is here")
    kind = SMALL_BLOCKS if stored is FP8 else stored["quant_method"]
    with pytest.raises(ModelError, match=rf"stored as {kind}, which .*pip install {library}"):
        find_model(stored_as(tmp_path / "model", stored), device="cpu")


def test_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    """transformers would load the weights as if they were not quantised."""
    stored = {"quant_method": "zzz"}
    with pytest.raises(ModelError, match=r"stored as zzz, which .*: Unknown quantization type"):
        find_model(stored_as(tmp_path / "model", stored), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU multiplies fp8")
def test_weights_that_widen_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer_finegrained_fp8, "is_accelerate_available", lambda: True)
    source = find_model(stored_as(tmp_path / "model", FP8), device="cpu")
    assert source.stored.widened_from == "fp8 with weights scaled by blocks of [64, 64]"
    facts = dict(explain(source, "auto", CPU))
    assert re.search(f"in float32, widened from {SMALL_BLOCKS} as they", facts["weights"])
    asked = find_model(stored_as(tmp_path / "asked", FP8 | {"dequantize": True}), device="cpu")
    assert asked.stored.widened_from is None
    assert find_model("tiny", device="cpu").stored.widened_from is None
