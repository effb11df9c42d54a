"""Every benchmark of the GPU from end to end, tiny: under Triton's interpreter, or on a GPU.

`test_interpreter.py` runs this module under the interpreter. What is checked is that all
columns are there and that the work was done; times are not.
"""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

pytest.importorskip("triton")

from hydragen_bench import (
    attention,
    choose,
    configs,
    decode,
    forks,
    order_cost,
    peer_vllm,
    plot,
    rig,
    tree,
)
from hydragen_bench.peer_vllm import Vllm
from hydragen_bench.peers import Peer
from hydragen_bench.timing import Ceilings
from hydragen_tree.branch import device_stepper
from hydragen_tree.errors import HydragenError, InputError, ModelError
from hydragen_tree.model.support import kv_shape, unsupported
from hydragen_tree.settings import SamplingSettings
from tests.model.shrunken import shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    *([] if INTERPRETED else [pytest.mark.gpu]),
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or the interpreter"
    ),
]
WORK = tree.Work(problems=3, samples=3, new_tokens=4, root_tokens=70, own_tokens=5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small architecture, known ceilings, each step once, few tokens."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=64, **sizes, **heads, bos_token_id=None, eos_token_id=None)
    monkeypatch.setitem(configs.CONFIGS, "small", config)
    for module in (attention, choose):
        monkeypatch.setattr(module, "median_us", lambda step, repeats=1: step() is None or 2.0)
    for module in (attention, choose, decode):
        monkeypatch.setattr(
            module, "measure_ceilings", lambda *_: Ceilings("none", 4e-2, 8e-6, 6e-6)
        )
    for module in (decode, device_stepper):
        monkeypatch.setattr(module, "CHUNK_STEPS", 2)
    monkeypatch.setattr(forks, "_SETTINGS", SamplingSettings(temperature=0.02, max_tokens=8))
    monkeypatch.setattr(forks, "MOST_STEPS", 4)


def small_rig() -> rig.Rig:
    model, shape = configs.random_model("small")
    return rig.Rig(model, shape, 64)


def drawn(bench: str, figures: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    """The rows, once they have been drawn."""
    plot.plot(bench, figures, tmp_path / "figures.svg")
    rows: list[dict[str, Any]] = figures["rows"]
    return rows


def test_attention(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = (
        attention.Shape("deep", (1, 2, 4), (32, 16, 16), 4, 2, 16),
        attention.Shape("nothing shared", (3,), (20,), 2, 1, 16),
    )
    rows = drawn("attention", attention.run(shapes), tmp_path)
    assert [row["shape"] for row in rows] == ["deep", "nothing shared"]
    assert all(row["error"] < 1e-2 and row["total_us"] > 0 for row in rows)
    assert "nothing shared" in capsys.readouterr().out


def test_choose(tmp_path: Path) -> None:
    rows = drawn("choose", choose.run(((2, 60),)), tmp_path)
    assert [row["settings"] for row in rows] == list(choose.SETTINGS)
    assert all(row["agree"] == 1.0 for row in rows)


@pytest.mark.parametrize("in_fp8", [False, True])
def test_decode(in_fp8: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = decode.run("small", [configs.Point(6, 20, 6)], in_fp8=in_fp8)
    assert (figures["kv_dtype"] == "float8_e4m3fn") == in_fp8
    (row,) = drawn("decode", figures, tmp_path)
    assert (row["rows"], row["prefix"], row["new_tokens"]) == (6, 20, 6)
    assert row["vllm_tokens_s"] is None
    assert row["tokens_s"] > 0
    assert row["sustained_tokens_s"] == pytest.approx(0.75 * row["roofline_tokens_s"])
    assert 0 < row["products_ms"] < row["step_ms"]
    assert row["fork_ms"] > 0  # samples did share rows
    assert all(
        math.isfinite(value)
        for name, value in row.items()
        if name.endswith("tokens_s") and value is not None
    )
    header, line = capsys.readouterr().out.splitlines()[-2:]
    assert len(header.split()) == len(line.split()) == 20


def test_decode_with_weights_of_8_bits(capsys: pytest.CaptureFixture[str]) -> None:
    points = [configs.Point(6, 20, 6)]
    figures = decode.run("small", points, weights_in_fp8=True)
    assert figures["weights"] == "float8_e4m3fn"
    assert 0.001 < figures["logit_error"]["relative"] < 0.5
    [row] = figures["rows"]
    assert row["tokens_s"] > 0
    assert 0 < row["products_ms"] < row["step_ms"]
    assert "random weights in fp8" in capsys.readouterr().out


def test_both_modes_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[bool] = []

    def time_tree(own: rig.Rig, point: configs.Point) -> tuple[float, float, float]:
        timed.append(own.heads.is_ordered and own.model.batch_invariant)
        return decode.time_tree(own, point)

    monkeypatch.setattr(order_cost, "time_tree", time_tree)
    figures = order_cost.run("small", [configs.Point(6, 20, 6)])
    [row] = drawn("decode", figures, tmp_path)
    assert (row["rows"], row["prefix"], row["new_tokens"]) == (6, 20, 6)
    assert row["default_ms"] > 0
    assert row["invariant_ms"] > 0
    assert timed == [False, True]
    header, line = capsys.readouterr().out.splitlines()[-2:]
    assert len(header.split()) == len(line.split()) == 9
    assert line.split()[-3:] == ["-", "-", "-"]


def test_both_modes_of_vllm_beside_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = configs.Point(4, 20, 16)

    def measure(*asked: Any, batch_invariant: bool) -> Vllm:
        assert asked == ("small", [point], Peer("vllm"))
        speed = 1000.0 if batch_invariant else 2000.0
        return Vllm("9.9", False, {point: speed}, batch_invariant)

    monkeypatch.setattr(peer_vllm, "measure", measure)
    figures = order_cost.run("small", [point], Peer("vllm"))
    [row] = figures["rows"]
    assert (row["vllm_default_ms"], row["vllm_invariant_ms"]) == (2.0, 4.0)
    assert figures["vllm"] == {"version": "9.9", "cascade": False}
    said = capsys.readouterr().out
    assert "vllm 9.9, batch-invariant: prefix caching on" in said
    assert "4x20x16 4.000" in said
    assert said.splitlines()[-1].split()[-3:] == ["2.000", "4.000", "+100.0%"]


def test_points_of_an_architecture() -> None:
    assert configs.points_of("llama-3.1-8b")[0] == (32, 1024, 128)
    assert configs.points_of("codellama-7b")[-1] == (1024, 16384, 64)


def test_an_architecture_is_cut_to_its_first_layers() -> None:
    whole, cut = configs.config_of("gpt-oss-20b"), configs.config_of("gpt-oss-20b@6")
    assert (whole.num_hidden_layers, cut.num_hidden_layers) == (24, 6)
    assert cut.layer_types == whole.layer_types[:6]
    assert kv_shape("it", cut, torch.bfloat16).layers == 6
    with pytest.raises(InputError, match="layers 25: gpt-oss-20b has 24"):
        configs.config_of("gpt-oss-20b@25")
    with pytest.raises(InputError, match="architecture gpt-2: expected one of"):
        configs.config_of("gpt-2")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen3-coder-30b-a3b", 30.5),
        ("gpt-oss-20b", 20.9),
        ("gemma-3-12b", 11.8),
        ("deepseek-v2-lite", 15.7),
    ],
)
def test_architectures_have_as_many_parameters_as_they_say(name: str, billions: float) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(configs.config_of(name))
    assert model.num_parameters() == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize("kind", ["gpt_oss", "gemma3_text", "qwen3_moe", "deepseek_v2"])
def test_layers_with_windows_experts_and_latent_vectors_are_measured(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = shrunken(kind, pad_token_id=None, eos_token_id=None, bos_token_id=None)
    monkeypatch.setitem(configs.CONFIGS, kind, config)
    [row] = decode.run(kind, [configs.Point(3, 30, 4)])["rows"]
    assert row["tokens_s"] > 0
    assert row["roofline_tokens_s"] > 0


def test_all_that_a_run_takes_is_captured_before_it_is_timed() -> None:
    own = small_rig()
    cache = own.cache(700, 2)
    settings = SamplingSettings(temperature=1.0, max_tokens=300)
    decoder = own.decoder(cache, settings, 2, 1)
    own.warm_up(own.run([rig.random_prompt(20, 64)], 2, settings, 2, cache, decoder), decoder)
    drawing = {graph.splits for graph in decoder._graphs._made if not graph.forks}
    assert drawing == {decoder._splits(8, length) for length in range(1, 301)} == {1, 2}


def test_too_few_tokens_are_not_timed() -> None:
    with pytest.raises(InputError, match="NEW of at least 4 tokens"):
        decode.run("small", [configs.Point(6, 20, 3)])


@pytest.fixture
def hybrid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small architecture with running states."""
    config = shrunken("qwen3_next")
    if why := unsupported(config, config):
        pytest.skip(f"the installed transformers: {why}")
    monkeypatch.setitem(configs.CONFIGS, "hybrid", config)


def test_what_the_tree_cannot_run_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configs.CONFIGS, "other", shrunken("jamba"))
    with pytest.raises(ModelError, match="jamba begins anew"):
        configs.random_model("other")


@pytest.mark.usefixtures("hybrid")
def test_a_tree_of_a_hybrid_is_refused() -> None:
    with pytest.raises(InputError, match="bench decode"):
        tree.run("hybrid")


@pytest.mark.usefixtures("hybrid")
def test_steps_of_a_hybrid_equal_the_hosts() -> None:
    """The check before the timing, from states that it does not change."""
    own = rig.Rig(*configs.random_model("hybrid"), vocabulary=97)
    settings = SamplingSettings(temperature=1.0, max_tokens=8)
    cache = own.cache(512, 4)
    decoder = own.decoder(cache, settings, 4, 1)
    loop = own.run([rig.random_prompt(20, 97)], 4, settings, 4, cache, decoder)
    rig.fork(loop)
    assert own._error(loop) == pytest.approx(own._error(loop), abs=1e-6)
    # in bf16 this model's logits are 0.5 to 0.6 % off those of float32, on each of the two sides
    assert own._error(loop) < (1e-5 if INTERPRETED else 2e-2)


def test_steps_that_fork_are_counted() -> None:
    found = forks.measure_forks(small_rig(), 6, 20)
    assert found is not None
    assert 1 <= found.steps <= forks.MOST_STEPS
    assert 1 <= found.rows <= 6
    assert found.step_ms > 0


def test_wrong_logits_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = small_rig()
    cache = own.cache(1000, 4)
    settings = SamplingSettings(temperature=1.0, max_tokens=16)
    decoder = own.decoder(cache, settings, 4, 1)
    run = own.run([rig.random_prompt(20, 64)], 4, settings, 4, cache, decoder)
    right = decoder.logits
    monkeypatch.setattr(decoder, "logits", lambda rows: right(rows) + 1.0)
    with pytest.raises(HydragenError, match="nothing is timed"):
        own.warm_up(run, decoder)


def test_what_a_last_bit_may_do_to_experts_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logits as far off as a last bit moves them pass, and those of a mistake do not."""
    monkeypatch.setitem(configs.CONFIGS, "experts", shrunken("qwen3_moe"))
    monkeypatch.setattr(rig, "_TOLERANCE", 0.0)
    own = rig.Rig(*configs.random_model("experts"), vocabulary=97)
    settings = SamplingSettings(temperature=1.0, max_tokens=8)
    cache = own.cache(512, 4)
    decoder = own.decoder(cache, settings, 4, 1)
    loop = own.run([rig.random_prompt(20, 97)], 4, settings, 4, cache, decoder)
    rig.fork(loop)
    monkeypatch.setattr(rig, "_LAST_BITS", 1e3)
    own._error(loop)
    assert "a last bit moves them by" in capsys.readouterr().out
    right = decoder.logits
    monkeypatch.setattr(decoder, "logits", lambda rows: right(rows).flip(0))
    with pytest.raises(HydragenError, match="nothing is timed"):
        own._error(loop)


@pytest.mark.parametrize("is_tree", [False, True])
def test_every_way_draws_the_set(is_tree: bool) -> None:
    """In three waves of four, four and one, and what one run takes the next finds again."""
    own = small_rig()
    cache = own.cache(64 * 20, 4)
    way = tree.Way(own, WORK, 4, cache, is_tree)
    assert own.warm_up(way.begin(), way.decoder) < 1e-2
    assert cache.free_pages == 20
    run = way.begin()
    samples = list(run.samples())
    root, problems = WORK.tokens(64)
    tails = WORK.new_tokens + (0 if is_tree else WORK.own_tokens)
    assert [sample.n_tokens for sample in samples] == [tails] * WORK.total
    if is_tree:  # a problem cut by a wave's end may be computed again
        computed = run.stats.prefilled_tokens - root.size - problems.size
        assert 0 <= computed <= 2 * WORK.own_tokens
    else:
        begun = sorted(sample.token_ids[: WORK.own_tokens] for sample in samples)
        assert begun == sorted(WORK.samples * [tuple(tokens) for tokens in problems.tolist()])
        assert run.stats.prefilled_tokens == root.size


def test_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    less = replace(WORK, problems=2, samples=2)
    monkeypatch.setattr(tree, "Work", lambda problems: less)
    rows = drawn("tree", tree.run("small"), tmp_path)
    assert [row["way"] for row in rows] == ["single level", "tree", "tree, larger"]
    assert all(row["tokens_s"] > 0 and row["error"] < 1e-2 for row in rows)
