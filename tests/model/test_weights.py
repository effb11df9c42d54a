"""Weights: loaded whole or refused by name, and without packages that nobody asked for."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hydragen_tree.errors import ModelError
from hydragen_tree.model.fingerprint import fingerprint
from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.model.tiny import MODEL_DIR


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(MODEL_DIR, broken)
    [file] = broken.glob("*.safetensors")
    tensors = load_file(file)
    lost = next(name for name in sorted(tensors) if "down_proj" in name)
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"lack {lost}"):
        load_weights(find_model(str(broken), device="cpu"))


LINEAR = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(MODEL_DIR, tmp_path / "model")
    return tmp_path / "model"


def tensors_of(model: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(model / "model.safetensors")
    return tensors


def save(model: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors") -> None:
    save_file(tensors, model / name, metadata={"format": "pt"})


def set_config(model: Path, **values: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **values}))


def test_the_digest_is_of_the_files_alone(model: Path, tmp_path: Path) -> None:
    source = find_model(str(model), device="cpu")
    before = fingerprint(source)["sha256"]
    load_weights(source)  # which writes into the configuration
    assert fingerprint(source)["sha256"] == before
    moved = Path(shutil.move(model, tmp_path / "moved"))
    assert fingerprint(find_model(str(moved), device="cpu"))["sha256"] == before
    set_config(moved, rope_theta=20000.0)
    assert fingerprint(find_model(str(moved), device="cpu"))["sha256"] != before


def test_other_sizes_are_named(model: Path) -> None:
    tensors = tensors_of(model)
    save(model, {**tensors, LINEAR: tensors[LINEAR][:-2].clone()})
    with pytest.raises(ModelError, match=rf"{LINEAR} is \[254, 256\], not \[256, 256\]"):
        load_weights(find_model(str(model), device="cpu"))


def test_tensors_of_no_use_are_named_in_one_line(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(model, {**tensors_of(model), "foo.bar": torch.zeros(3)})
    load_weights(find_model(str(model), device="cpu"))
    said = f"{model}: tensors in its files that it has no use for: foo.bar"
    assert caplog.messages == [said]


def test_only_tied_heads_may_be_missing(model: Path) -> None:
    assert "lm_head.weight" not in tensors_of(model)
    load_weights(find_model(str(model), device="cpu"))
    set_config(model, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lack lm_head\.weight"):
        load_weights(find_model(str(model), device="cpu"))


def cut_off(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])


def pointer(model: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (model / "model.safetensors").write_text(text)


def in_parts(model: Path) -> None:
    names = dict.fromkeys(tensors_of(model), "one.safetensors") | {LINEAR: "two.safetensors"}
    (model / "model.safetensors").rename(model / "one.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def broken_index(model: Path) -> None:
    in_parts(model)
    (model / "model.safetensors.index.json").write_text("{no")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_off, r"model\.safetensors: 7,609,856 bytes, expected 7,614,856"),
        (pointer, r"model\.safetensors: a pointer of Git LFS"),
        (in_parts, r"model\.safetensors\.index\.json names two\.safetensors, which is not there"),
        (broken_index, r"model\.safetensors\.index\.json: not a readable index"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), "cut off"),
        (lambda model: (model / "model.safetensors").unlink(), "no weights in the directory"),
    ],
)
def test_broken_files_are_named_before_anything_is_loaded(
    model: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(model)
    monkeypatch.setattr("hydragen_tree.model.loading.AutoModelForCausalLM", None)
    with pytest.raises(ModelError, match=message):
        load_weights(find_model(str(model), device="cpu"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "llava"}', "llava is not a causal language model"),
        ("[1]", r"config\.json: expected a JSON object"),
        ("{no", r"config\.json: not JSON"),
        (None, r"config\.json: cannot be read"),
        ({"num_hidden_layers": -1}, r"config\.json: num_hidden_layers: -1, expected an integer"),
        ({"num_attention_heads": 0}, r"config\.json: .*zero"),
        ({"num_key_value_heads": 3}, r"config\.json: num_key_value_heads: 3, expected a divisor"),
    ],
)
def test_configurations_that_make_no_sense(
    model: Path, text: str | dict[str, int] | None, message: str
) -> None:
    if text is None:
        (model / "config.json").unlink()
    elif isinstance(text, dict):
        set_config(model, **text)
    else:
        (model / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        find_model(str(model), device="cpu")


def test_a_configuration_without_architectures_will_do(model: Path) -> None:
    set_config(model, architectures=None)
    load_weights(find_model(str(model), device="cpu"))


def test_any_device_without_accelerate_and_without_metadata() -> None:
    """`meta` stands for a device that is not the CPU, so that what a GPU needs is seen here."""
    code = """
import sys, importlib.metadata as metadata
sys.modules["accelerate"] = None
import dataclasses, torch
from hydragen_tree.model.fingerprint import fingerprint
from hydragen_tree.model.loading import find_model, load_weights
source = dataclasses.replace(find_model("tiny", device="cpu"), device=torch.device("meta"))
print(load_weights(source).device)
def none(name): raise metadata.PackageNotFoundError(name)
import hydragen_tree.sample.manifest as manifest
manifest.version = none
print(manifest.installed_versions()["torch"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["meta", "unknown"], done.stderr
