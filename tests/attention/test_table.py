"""The table of backends: who serves what, in which order, and what is said of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from hydragen_kernels import native
from hydragen_kernels.items import Item, item_table
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.plan import Plan
from hydragen_tree.attention.table import BACKENDS, TABLE, backend, choose, passed_over
from hydragen_tree.attention.torch_backend import TorchBackend
from hydragen_tree.attention.tree_attention import TreeAttention, tree_attention
from hydragen_tree.errors import InputError
from hydragen_tree.model.explain import explain
from hydragen_tree.model.loading import find_model
from hydragen_tree.trie.costs import CPU

needs_compiler = pytest.mark.skipif(native.why_unavailable() is not None, reason="no C compiler")


def heads(device: str = "cpu", **changes: Any) -> Heads:
    sizes = {"q_heads": 4, "kv_heads": 2, "head_dim": 64, "dtype": torch.float32}
    return Heads(**{**sizes, "device": torch.device(device), **changes})


@pytest.mark.parametrize("name", BACKENDS[1:])
@pytest.mark.parametrize(
    "kind", [heads(), heads("mps"), heads(dtype=torch.float16), heads(is_capped=True)], ids=str
)
def test_what_cannot_serve_is_refused_with_its_reason(name: str, kind: Heads) -> None:
    why = backend(name).why_not(kind)
    if why is None:
        assert choose(name, kind) == name
        assert backend(name).explain(kind)
    else:
        with pytest.raises(InputError, match="use auto") as refusal:
            choose(name, kind)
        assert str(refusal.value) == f"attention {name}: {why}; use auto"


def test_auto_is_the_first_that_can() -> None:
    assert [entry.name for entry in TABLE] == list(BACKENDS[1:])
    for kind in (heads("cuda"), heads("cuda", dtype=torch.bfloat16, is_capped=True)):
        assert choose("auto", kind) == "triton"
    assert choose("auto", heads("cuda", head_dim=512)) == "torch"
    assert choose("auto", heads("mps")) == "torch"
    skipped = dict(passed_over("torch", heads("mps")))
    assert skipped == {
        "native": "computes on a CPU, not on mps",
        "triton": "computes on a CUDA device, not on mps",
    }


def test_flash_computes_in_16_bits_without_caps() -> None:
    assert backend("flash").why_not(heads("cuda", dtype=torch.float16)) is None
    assert "16 bits" in str(backend("flash").why_not(heads("cuda")))
    capped = heads("cuda", dtype=torch.float16, is_capped=True)
    assert "soft-capping" in str(backend("flash").why_not(capped))


def test_a_plan_is_prepared_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []
    prepare = TorchBackend.prepare

    def counted(self: TorchBackend, plan: Plan, kind: Heads) -> Any:
        prepared.append(kind.head_dim)
        return prepare(self, plan, kind)

    monkeypatch.setattr(TorchBackend, "prepare", counted)
    plan = Plan(3, item_table([Item(0, 3, 2, 5, 0, 0)]))
    attend = TreeAttention(plan, "torch")
    for layer, head_dim in enumerate((16, 16, 32, 16, 32)):
        x = torch.randn(3, 4, head_dim), *torch.randn(2, 2, 8, head_dim)
        found = attend(layer, *x, scale=0.2, softcap=None, sinks=None)
        expected = tree_attention(*x, plan, scale=0.2, backend="reference")
        torch.testing.assert_close(found, expected)
    assert prepared == [16, 32]


@needs_compiler
def test_a_model_with_capped_scores_is_not_explained_as_native(
    random_model: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    config = Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    said = dict(explain(find_model(str(tmp_path), device="cpu"), "auto", CPU))["attention"]
    assert said.startswith("torch: ")
    assert "native: no soft-capping of scores" in said
    plain = find_model(str(random_model), device="cpu")
    said = dict(explain(plain, "auto", CPU))["attention"]
    assert said.split(":")[0] == choose("auto", plain.heads)


def test_the_command_line_names_every_backend() -> None:
    command = [sys.executable, "-c", "from hydragen_cli.main import run_sample; run_sample()"]
    environment = {**os.environ, "COLUMNS": "400"}
    done = subprocess.run(
        [*command, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    for entry in TABLE:
        assert f"{entry.name} ({entry.note})" in done.stdout
