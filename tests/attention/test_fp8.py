"""Keys and values in fp8: half the memory of 16 bits, rounded once, and never silently."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hydragen_cli import main
from hydragen_kernels.inputs import FP8
from hydragen_kernels.reference import narrow
from hydragen_tree.branch.host_stepper import decode_tokens
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.branch.residency import Residency
from hydragen_tree.errors import InputError
from hydragen_tree.model.cache import KVCache
from hydragen_tree.model.explain import explain
from hydragen_tree.model.loading import find_model
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CPU
from hydragen_tree.trie.trie import Trie

Cli = Callable[..., tuple[int, str, str]]
PROBLEM = """
id: doubles
statement: Read an integer n and print 2n.
tests:
  - {input: "3\\n", output: "6\\n", sample: true}
"""
RUN = ["doubles.yaml", "-n", "6", "--max-tokens", "12"]


def test_numbers_beyond_the_range_stay_finite() -> None:
    far = torch.tensor([447.0, 449.0, 500.0, -1e30, torch.inf])
    assert narrow(far, FP8).float().tolist() == [448.0, 448.0, 448.0, -448.0, 448.0]
    assert narrow(torch.tensor(torch.nan), FP8).float().isnan()
    assert narrow(far, torch.float32) is far


def test_the_arena_rounds_what_is_written_and_moves_it_unchanged() -> None:
    shape = KVShape(layers=2, q_heads=2, kv_heads=2, head_dim=16, itemsize=1)
    cache = KVCache(shape, 12, 4, FP8, torch.device("cpu"))
    assert cache.keys.nbytes == 12 * 4 * shape.token_bytes // 2
    keys, values = torch.randn(2, 2, 10, 16) * 300
    slots = torch.arange(10) + 16
    cache.arenas[0].write(1, slots, keys, values)
    written = slice(16, 26)
    stored = cache.keys[1, :, written].float()
    assert torch.equal(stored, narrow(keys, FP8).float())
    assert torch.equal(cache.values[1, :, written].float(), narrow(values, FP8).float())
    assert stored.abs().max() == 448.0
    assert not cache.keys[0].float().any()

    cache.copy_pages(*np.array([[4, 5], [9, 8], [4, 4]], np.int32))
    assert torch.equal(cache.keys[1, :, 36:40].float(), stored[:, :4])
    assert torch.equal(cache.keys[1, :, 32:36].float(), stored[:, 4:8])
    nothing = np.empty(0, np.int64)
    cache.copy_to_run([nothing], np.array([4, 5, 6], np.int32), 10, [0])
    assert torch.equal(cache.keys[1, :, :10].float(), stored)


def logits(kv_dtype: str) -> tuple[Tensor, KVCache]:
    """The shipped model's, after two prompts and one step of decoding each."""
    sampler = Sampler.from_pretrained(kv_dtype=kv_dtype, device="cpu")
    source = sampler.source
    texts = ["Print the sum of all even numbers.", "Print the largest of all numbers."]
    prompts = [sampler.tokenizer(text).input_ids for text in texts]
    trie = Trie.build([np.array(prompt, np.int32) for prompt in prompts])
    cache = KVCache(source.shape, 40, 16, source.kv_dtype, source.device)
    model, tree = sampler.model, Residency(trie, cache)
    segments = [segment.index for segment in trie]
    assert tree.place(segments)
    first = Prefill(model, trie, tree.table, cache, 64).segments(segments)
    leaves = trie.leaf_segments
    ends = np.array([trie.end(leaf) for leaf in range(2)], np.int32)
    pages = cache.take(2).reshape(2, 1)
    tokens = np.array([7, 9], np.int32)
    then = decode_tokens(
        model, cache, tree.table, tokens, ends, leaves, pages, np.zeros(2, np.int32)
    )
    return torch.cat([torch.stack([first[leaf] for leaf in leaves.tolist()]), then]), cache


def test_what_rounding_costs_the_shipped_model() -> None:
    (exact, held), (rounded, held_rounded) = logits("auto"), logits("fp8")
    assert held_rounded.keys.nbytes * 4 == held.keys.nbytes
    for one, other in ((held.keys, held_rounded.keys), (held.values, held_rounded.values)):
        assert 0.01 < float((one - other.float()).norm() / one.norm()) < 0.05
    assert 1e-4 < float((exact - rounded).norm() / exact.norm()) < 0.05


def test_samples_do_not_depend_on_the_batch(random_model: Path) -> None:
    prompt = list(range(40, 90))
    settings = SamplingSettings(temperature=0.7, max_tokens=20)

    def run(**options: int) -> dict[int, list[int]]:
        sampler = Sampler.from_pretrained(str(random_model), kv_dtype="fp8", **options)
        return {s.sample_index: list(s.token_ids) for s in sampler.sample([prompt], 12, settings)}

    whole = run()
    assert sorted(whole) == list(range(12))
    page_bytes = 16 * find_model(str(random_model), kv_dtype="fp8").shape.token_bytes
    assert run(max_rows=3) == whole
    assert run(memory_bytes=16 * page_bytes) == whole


def test_sizes_and_names_follow_the_type(random_model: Path) -> None:
    plain, small = (find_model(str(random_model), kv_dtype=kind) for kind in ("auto", "fp8"))
    assert plain.kv_dtype == plain.dtype == small.dtype == torch.float32
    assert small.kv_dtype == FP8
    assert small.shape.token_bytes * 4 == plain.shape.token_bytes
    assert small.shape.merge_bytes == plain.shape.merge_bytes
    assert "keys and values in float8_e4m3fn" in dict(explain(small, "auto", CPU))["device"]
    assert "keys and values" not in dict(explain(plain, "auto", CPU))["device"]


def test_what_cannot_work_is_refused(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="kv_dtype int4: expected auto or fp8"):
        Sampler.from_pretrained(str(random_model), kv_dtype="int4")
    with pytest.raises(InputError, match="attention flash: reads no fp8"):
        Sampler.from_pretrained(str(random_model), kv_dtype="fp8", attention="flash")
    # an accelerator that torch has and fp8 does not
    monkeypatch.setattr("hydragen_tree.model.loading.find_device", torch.device)
    with pytest.raises(InputError, match="kv_dtype fp8: not on meta"):
        find_model(str(random_model), device="meta", kv_dtype="fp8")


@pytest.fixture
def cli(own_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `hydragen ARGS` in this process, on a CPU; returns exit code, stdout and stderr."""
    monkeypatch.setenv("HYDRAGEN_DEVICE", "cpu")
    (own_home / "doubles.yaml").write_text(PROBLEM)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        return int(caught.value.code or 0), *capfd.readouterr()

    return run


def test_a_run_says_that_it_is_not_exact_and_resumes_only_as_it_began(
    cli: Cli, own_home: Path
) -> None:
    args = ["sample", *RUN, "-o", "out.jsonl"]
    code, out, err = cli(*args, "--kv-dtype", "fp8")
    assert (code, out) == (0, "")
    said = [line for line in err.splitlines() if "not exactly" in line]
    assert len(said) == 1
    assert said[0].startswith("--kv-dtype fp8: keys and values are rounded to 8 bits")
    assert "keys and values in float8_e4m3fn" in err.split("\nmodel")[1]
    lines = [json.loads(line) for line in (own_home / "out.jsonl").read_text().splitlines()]
    assert sorted(line["sample_index"] for line in lines) == list(range(6))
    assert all(1 <= line["n_tokens"] <= 12 and line["logprob"] < 0 for line in lines)
    manifest = json.loads((own_home / "out.jsonl.manifest.json").read_text())
    assert manifest["model"]["dtype"] == "float32"
    assert manifest["model"]["kv_dtype"] == "float8_e4m3fn"

    code, out, err = cli(*args, "--resume")
    assert (code, out) == (2, "")
    assert 'model.kv_dtype was "float8_e4m3fn", is absent' in err
    code, out, err = cli(*args, "--resume", "--kv-dtype", "fp8", "-q")
    assert (code, out, err) == (0, "", "")


def test_an_exact_run_is_not_continued_in_fp8(cli: Cli, own_home: Path) -> None:
    args = ["sample", *RUN, "-o", "out.jsonl"]
    code, _, err = cli(*args)
    assert code == 0
    assert "not exactly" not in err
    before = (own_home / "out.jsonl").read_bytes()
    code, _, err = cli(*args, "--resume", "--kv-dtype", "fp8")
    assert code == 2
    assert 'model.kv_dtype was absent, is "float8_e4m3fn"' in err
    assert (own_home / "out.jsonl").read_bytes() == before


def test_the_option_is_refused_by_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = cli("sample", *RUN, "--kv-dtype", "int4")
    assert code == 2
    assert "--kv-dtype" in err
    for command in ("sample", "plan"):
        code, out, err = cli(command, "doubles.yaml", "--kv-dtype", "fp8", "--attention", "flash")
        assert (code, out) == (2, "")
        assert "--attention flash: reads no fp8 keys and values" in err
    monkeypatch.setenv("HYDRAGEN_KV_DTYPE", "int4")
    code, _, err = cli("plan", "doubles.yaml")
    assert code == 2
    assert "HYDRAGEN_KV_DTYPE" in err


def test_plans_count_the_bytes_of_the_type(cli: Cli) -> None:
    plans = {}
    for kind in ("auto", "fp8"):
        code, out, _ = cli("plan", "doubles.yaml", "-n", "50", "--json", "--kv-dtype", kind)
        assert code == 0
        plans[kind] = json.loads(out)
    exact, rounded = plans["auto"], plans["fp8"]
    assert exact["token_bytes"] == 4 * rounded["token_bytes"]
    assert exact["savings"]["kv_bytes"] == 4 * rounded["savings"]["kv_bytes"]
    assert exact["savings"]["tokens"] == rounded["savings"]["tokens"]

    code, _, err = cli("sample", *RUN, "--dry-run", "--kv-dtype", "fp8")
    assert code == 0
    assert "not exactly" in err
