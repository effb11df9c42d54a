"""Models in GGUF files: loaded through transformers, or refused with the remedy."""

import importlib.util
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hydragen_bench.gguf_file import gguf_of
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.fingerprint import fingerprint
from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights


@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    made_of = find_model("tiny", device="cpu")
    tensors = {
        name: tensor
        for name, tensor in load_weights(made_of).state_dict().items()
        if name != "lm_head.weight"  # tied
    }
    file = gguf_of(made_of, tmp_path, "F32")
    source = find_model(str(file), device="cpu")
    assert source.shape == made_of.shape
    assert source.eos_ids == made_of.eos_ids
    assert source.context_tokens == made_of.context_tokens
    state = load_weights(source).state_dict()
    for name, tensor in tensors.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
    text = "def f(x):\n    return [x, 1]\n"
    ids = load_tokenizer(made_of)(text)["input_ids"]
    assert load_tokenizer(source)(text)["input_ids"] == ids
    before = fingerprint(source)["sha256"]
    shutil.copy(file, tmp_path / "other.gguf")  # of another model in the same folder
    assert fingerprint(source)["sha256"] == before
    with file.open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\0\0\1\0")
    assert fingerprint(source)["sha256"] != before


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "the form llama3"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_size": 48}, "heads"),
    ],
    ids=["rotary", "biases", "heads"],
)
def test_what_a_file_would_not_say_is_refused(
    changed: dict[str, Any], why: str, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    source = find_model("tiny", device="cpu")
    config = deepcopy(source.config)
    for name, value in changed.items():
        setattr(config, name, value)
    with pytest.raises(InputError, match=why):
        gguf_of(replace(source, config=config), tmp_path, "F32")


def test_without_its_packages_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "hydragen_tree.model.locating.find_spec",
        lambda name: None if name in ("gguf", "accelerate") else find(name),
    )
    with pytest.raises(
        ModelError, match=r"gguf and accelerate; pip install 'hydragen-tree\[gguf]'"
    ):
        find_model(str(file))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\3\0\0\0" + b"\1" * 40, b"no such file" * 9]
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.gguf: its GGUF file cannot be read"):
        find_model(str(file))
