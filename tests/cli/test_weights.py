"""`--weights fp8`: it says that it is not exact, by how much, and stands in the manifest."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hydragen_cli import main
from hydragen_kernels.inputs import FP8
from hydragen_tree import Sampler
from hydragen_tree.branch.budget import workspace_bytes
from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model import explain
from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.settings import SamplingSettings

PROMPTS = '{"prompt": "def add(a, b):", "task_id": "add"}\n'


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def sample(
    tmp_path: Path,
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Draws from the small model in this process: exit code, and what was said."""
    (tmp_path / "p.jsonl").write_text(PROMPTS)
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    monkeypatch.chdir(tmp_path)
    common = ["--prompts", "p.jsonl", "--model", str(random_model), "--max-tokens", "6"]

    def run(*options: str) -> tuple[int, str]:
        arguments = ["hydragen", "sample", *common, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capfd.readouterr().err

    return run


def test_a_run_says_what_rounding_does(sample: Run, tmp_path: Path) -> None:
    output = tmp_path / "s.jsonl"
    code, said = sample("-n", "4", "-o", str(output), "--weights", "fp8")
    assert code == 0
    lines = said.splitlines()
    exact = next(i for i, line in enumerate(lines) if "samples are not exactly the model's" in line)
    moved = next(i for i, line in enumerate(lines) if "rounding to 8 bits moves logits by" in line)
    assert exact < moved < next(i for i, line in enumerate(lines) if line.startswith("samples  "))
    assert "linear layers in float8_e4m3fn" in said
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    assert manifest["model"]["weights"] == "float8_e4m3fn"
    error = manifest["sessions"][0]["figures"]["logit_error"]
    assert error["tokens"] == len("def add(a, b):")
    assert 0.001 < error["relative"] < 0.5
    code, said = sample("-n", "5", "-o", str(output), "--resume")
    assert code == 2
    assert 'model.weights was "float8_e4m3fn", is absent' in said
    assert sample("-n", "5", "-o", str(output), "--resume", "--weights", "fp8")[0] == 0
    assert len(output.read_text().splitlines()) == 5


def test_without_it_nothing_is_said(sample: Run, tmp_path: Path) -> None:
    code, said = sample("-n", "2", "-o", str(tmp_path / "s.jsonl"))
    assert code == 0
    assert "8 bits" not in said
    assert "weights" not in json.loads((tmp_path / "s.jsonl.manifest.json").read_text())["model"]


def test_samples_are_those_of_the_rounded_model(random_model: Path) -> None:
    """They are drawn from what the measured model says, and are not those of the exact one."""
    settings = SamplingSettings(max_tokens=12, logprobs=True)
    rounded = Sampler.from_pretrained(str(random_model), device="cpu", weights="fp8")
    plain = Sampler.from_pretrained(str(random_model), device="cpu")
    found, others = (
        {one.sample_index: one.token_logprobs for one in sampler.sample(["def f"], 6, settings)}
        for sampler in (rounded, plain)
    )
    assert found != others
    again = Sampler.from_pretrained(str(random_model), device="cpu", weights="fp8")
    assert again.logit_error(prompt_of(again)) is not None
    drawn = again.sample(["def f"], 6, settings)
    assert {one.sample_index: one.token_logprobs for one in drawn} == found
    assert rounded.logit_error(prompt_of(rounded)) is None  # the weights were there before


def prompt_of(sampler: Sampler) -> Prompt:
    return prompts_from_sources(["def f"], sampler.tokenizer)[0]


def test_bytes_are_counted(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_model(str(random_model), device="cpu", dtype="bfloat16", weights="fp8")
    model = load_weights(find_model(str(random_model), device="cpu", dtype="bfloat16"))
    whole = sum(p.nbytes for p in model.parameters())
    assert explain.weight_bytes(source) == {torch.bfloat16: whole}  # a CPU widens them
    monkeypatch.setattr(explain, "multiplies", lambda *_, **__: True)
    found = explain.weight_bytes(source)
    inner = sum(p.nbytes for p in model.model.layers.parameters() if p.ndim == 2)
    assert found[torch.bfloat16] == whole - inner
    assert inner / 2 < found[FP8] < 0.6 * inner


def test_a_gpu_keeps_room_for_rounding(random_model: Path) -> None:
    plain = replace(find_model(str(random_model), device="cpu"), device=torch.device("cuda"))
    rounded = replace(plain, weights=FP8)
    sizes = 100, 8, 1, False
    assert workspace_bytes(rounded, *sizes) - workspace_bytes(plain, *sizes) == 100 * 96 * 9


def test_a_gpu_keeps_room_for_drafts_where_there_may_be_some(random_model: Path) -> None:
    source = replace(find_model(str(random_model), device="cpu"), device=torch.device("cuda"))
    rows = {has: workspace_bytes(source, 0, 8, 1, has) for has in (False, True)}
    of_a_query = (rows[False] - workspace_bytes(source, 0, 16, 1, False)) // -8
    assert rows[True] - rows[False] == (64 - 8) * of_a_query > 0
    assert len({workspace_bytes(source, 0, 512, 1, has) for has in (False, True)}) == 1


def test_what_cannot_be_rounded_is_refused(tmp_path: Path, random_model: Path) -> None:
    with pytest.raises(InputError, match="expected auto, int8, bfloat16 or fp8"):
        find_model(str(random_model), weights="fp4")
    config = AutoConfig.for_model(
        "gpt_bigcode", n_embd=24, n_head=2, n_layer=1, n_inner=24, vocab_size=50, n_positions=32
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no linear layers that are taken to fewer bits"):
        load_weights(find_model(str(tmp_path), device="cpu", weights="fp8"))
