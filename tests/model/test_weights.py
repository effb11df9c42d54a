"""Weights: loaded whole or refused by name, and without packages that nobody asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hydragen_tree.errors import ModelError
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


def test_any_device_without_accelerate_and_without_metadata() -> None:
    """`meta` stands for a device that is not the CPU, so that what a GPU needs is seen here."""
    code = """
import sys, importlib.metadata as metadata
sys.modules["accelerate"] = None
import dataclasses, torch
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
