"""`--long-prompt homer`: samples of prompts beyond the context, and what is said of it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hydragen_cli import main
from hydragen_tree import Sampler
from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.settings import SamplingSettings

LONG = "def add(a, b):\n    return a + b\n\n\n" * 20  # 680 tokens; the model holds 256
OTHER = "for i in range(10):\n    print(i * i)\n\n\n" * 20
SETTINGS = SamplingSettings(max_tokens=8)


@pytest.fixture(scope="module")
def deep_model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers, of which five can have a merge before them, and 256 tokens of context."""
    path = tmp_path_factory.mktemp("deep-model")
    shutil.copytree(random_model, path, dirs_exist_ok=True)
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(
        random_model, num_hidden_layers=6, max_position_embeddings=256, initializer_range=0.2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def drawn(sampler: Sampler, prompts: list[str], n: int = 6) -> dict[tuple[str, int], object]:
    samples = sampler.sample(list(zip(map(str, prompts), prompts, strict=True)), n, SETTINGS)
    return {(one.task_id, one.sample_index): one.token_ids for one in samples}


def test_samples_are_the_same_in_any_company(deep_model: Path) -> None:
    sampler = Sampler.from_pretrained(str(deep_model), device="cpu", long_prompt="homer")
    together = drawn(sampler, [LONG, "def f", OTHER])
    for prompt in (LONG, "def f", OTHER):
        alone = drawn(sampler, [prompt])
        assert alone == {key: tokens for key, tokens in together.items() if key[0] == prompt}
    assert len(set(map(str, together.values()))) > 3
    # where one path is given up for another, it is computed again
    page = sampler.page_tokens * sampler.source.shape.token_bytes
    tight = Sampler.from_pretrained(
        str(deep_model), device="cpu", long_prompt="homer", memory_bytes=11 * page
    )
    assert drawn(tight, [LONG, "def f", OTHER]) == together


def test_short_prompts_are_as_without_it(deep_model: Path) -> None:
    plain = Sampler.from_pretrained(str(deep_model), device="cpu")
    homer = Sampler.from_pretrained(str(deep_model), device="cpu", long_prompt="homer")
    assert drawn(plain, ["def f", "def g"]) == drawn(homer, ["def f", "def g"])
    with pytest.raises(InputError, match="holds 256"):
        drawn(plain, [LONG])
    with pytest.raises(InputError, match="condensed: 278 tokens with"):
        homer.check(built(homer, LONG), SamplingSettings(max_tokens=150))
    with pytest.raises(InputError, match="at most 3476 can be condensed"):
        homer.check(built(homer, "x" * 4000), SETTINGS)


def built(sampler: Sampler, text: str) -> list[Prompt]:
    return prompts_from_sources([text], sampler.tokenizer)


def test_a_run_says_so(
    deep_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": LONG, "task_id": "long"}, {"prompt": "def f", "task_id": "short"}]
    Path("p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ["--prompts", "p.jsonl", "--model", str(deep_model), "--device", "cpu", "-n", "2"]

    def run(*options: str) -> tuple[int, str]:
        arguments = ["hydragen", "sample", *common, "--max-tokens", "6", *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capfd.readouterr().err

    code, said = run("-o", "o.jsonl")
    assert code == 2
    assert "holds 256" in said
    code, said = run("-o", "o.jsonl", "--long-prompt", "homer")
    assert code == 0
    assert "1 prompt beyond the context condensed" in said
    assert len(Path("o.jsonl").read_text().splitlines()) == 4
    manifest = json.loads(Path("o.jsonl.manifest.json").read_text())
    assert manifest["model"]["long_prompt"] == "homer"
    assert run("--dry-run", "--long-prompt", "homer")[0] == 0
