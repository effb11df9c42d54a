"""`hydragen bench run`: both engines' processes, and the table."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, LlamaConfig

from hydragen_bench import configs, peer_child, run, run_child, sharpened
from hydragen_bench.peers import Peer, find_peer, run_peer
from hydragen_bench.run import Asked
from hydragen_bench.sets import Point, made_up
from hydragen_cli import bench_measures
from hydragen_tree.errors import HydragenError, InputError
from hydragen_tree.spread.estimate import Estimate, estimate
from hydragen_tree.trie.outline import Outline
from tests.bench.fake_vllm import FakeVllm
from tests.bench.sharpened_model import BITS, LENGTH, VOCABULARY

SMALL = {"small": Point(3, 4), "rooted": Point(2, 3, 40, 9)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sets, and an architecture of that name."""
    monkeypatch.setattr(run, "POINTS", SMALL)
    monkeypatch.setitem(configs.CONFIGS, "tiny", LlamaConfig())


# -- our process -----------------------------------------------------------------------------


def in_process(
    name: str, command: Sequence[str], job: Mapping[str, Any], folder: Path, _: object
) -> list[dict[str, Any]]:
    """As `run_child`, without waiting for another process to import torch."""
    assert (name, command[1:]) == ("run", ["-m", "hydragen_bench.run_child"])
    asked, answered = folder / "job", folder / "answer"
    asked.write_text(json.dumps({**job, "started": time.time()}))
    run_child.main(str(asked), str(answered))
    return [json.loads(line) for line in answered.read_text().splitlines()]


def test_sets_are_run_to_their_last_line(
    weights: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_child", in_process)
    kept = Asked("tiny", entropy_bits=BITS, mean_tokens=LENGTH, weights=weights, max_tokens=40)
    figures = run.run(kept)
    names = [row["set"] for row in figures["rows"]]
    assert names == ["small, T 0.8", "small, T 0.2", "rooted, T 0.8", "rooted, T 0.2"]
    for row, samples in zip(figures["rows"], (12, 12, 6, 6), strict=True):
        ours = row["ours"]
        assert ours["samples"] == samples == sum(ours["ends"].values())
        assert 0 < ours["rows_a_token"] <= 1
        assert 0 < ours["first_sample_s"] <= ours["seconds"]
        assert 0 < ours["first_token_s"] <= ours["first_run_s"]
        assert ours["tokens_s"] == pytest.approx(ours["tokens"] / ours["seconds"])
        assert ours["cpu_s"] > 0
        assert row["peer"] is None
    assert figures["start_s"] > figures["ours"]["loaded_s"] > 0
    json.dumps(figures)
    out = capsys.readouterr().out
    assert "native attention" in out
    assert out.count(", T 0.2") == 2


@pytest.mark.usefixtures("forked_workers")
def test_devices_draw_the_same_set(
    weights: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_child", in_process)
    asked = Asked(
        "tiny", points=["small"], entropy_bits=BITS, mean_tokens=LENGTH, weights=weights,
        max_tokens=20, temperatures=[0.8], devices="cpu,cpu",
    )  # fmt: skip
    planned: list[dict[str, Any]] = []

    def noted(outline: Outline, **given: Any) -> Estimate:
        planned.append({**given, "prompts": len(outline.prompts), "n": outline.n})
        return estimate(outline, **given)

    monkeypatch.setattr(run_child, "estimate", noted)
    alone, spread = (run.run(one) for one in (replace(asked, devices=None), asked))
    assert "on cpu 1, cpu 2" in capsys.readouterr().out
    assert [each["workers"] for each in planned] == [1, 1, 2, 2]
    assert alone["device"] == spread["device"] == "cpu"
    assert "device_name" not in alone["ours"], "said twice"
    first, second = (figures["rows"][0]["ours"] for figures in (alone, spread))
    assert second["cpu_s"] is None  # of other processes
    for name in ("samples", "tokens", "ends"):
        assert first[name] == second[name]
    assert second["first_run_s"] > second["first_token_s"] > second["seconds"]  # with loading
    for ours, told in ((first, planned[0]), (second, planned[2])):
        assert (told["prompts"], told["n"]) == (3, 4)
        pace = told["pace"]
        assert pace.lengths.sum() == ours["tokens"]
        assert pace.rows_a_token == ours["rows_a_token"]
        assert told["max_tokens"] == pace.lengths.max()
        most = pace.lengths.max() * pace.step_s(np.array([12.0]), 1000, 1000, 1000)[0]
        assert 0 < ours["planned_s"] < pace.prefill_s(1000) + most  # all samples at once


def test_the_batch_invariant_mode_is_run_in(
    weights: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_child", in_process)
    asked = Asked(
        "tiny", points=["small"], entropy_bits=BITS, mean_tokens=LENGTH, weights=weights,
        max_tokens=20, temperatures=[0.8], repeats=1, batch_invariant=True,
    )  # fmt: skip
    (row,) = run.run(asked)["rows"]
    assert row["ours"]["samples"] == 12
    assert "ordered attention" in capsys.readouterr().out


def test_real_prompts_are_read_as_the_model_reads_them(
    random_model: Path, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [{"task_id": f"t/{i}", "prompt": f"def f{i}():\n"} for i in range(3)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    jobs: list[Mapping[str, Any]] = []

    def kept(*arguments: Any) -> list[dict[str, Any]]:
        jobs.append(arguments[2])
        return in_process(*arguments)

    monkeypatch.setattr(run, "run_child", kept)
    asked = Asked(
        model=str(random_model), prompts=file, points=["small"], temperatures=[1.0], n=2, repeats=1,
        max_tokens=6,
    )  # fmt: skip
    (row,) = run.run(asked)["rows"]
    assert row["ours"]["samples"] == 6
    prompts = jobs[0]["runs"][0]["prompts"]
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    assert [p["token_ids"] for p in prompts] == [tokenizer.encode(x["prompt"]) for x in lines]
    with pytest.raises(InputError, match="prompts"):
        run.run(Asked(model=str(random_model), prompts=tmp_path / "none"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points": ["one", "two"]}, "points"),
        ({"architecture": "none"}, "architecture"),
        ({"architecture": "codellama-7b@33"}, "layers 33: codellama-7b has 32"),
        ({"prompts": Path("x")}, "name a --model"),
        ({"against": Peer("vllm"), "devices": "all"}, "no peer is spread over devices"),
        ({"against": Peer("llama.cpp"), "tensor_parallel": 2}, "runs on one device"),
        ({"against": Peer("llama.cpp"), "batch_invariant": True}, "no such mode"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Asked(**wrong)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemError('no such thing')"]
    with pytest.raises(HydragenError, match=r"it failed with exit code 1(.|\n)*no such thing"):
        run.run_child("it", command, {}, tmp_path)


HYDRAGEN = [sys.executable, "-c", "from hydragen_cli.main import run; run()", "bench", "run"]


def test_temperatures_are_numbers_with_commas() -> None:
    assert bench_measures.parse_temperatures("0.8,0") == [0.8, 0.0]
    assert bench_measures.parse_temperatures(None) is None
    with pytest.raises(InputError, match="temperatures"):
        bench_measures.parse_temperatures("warm")


def test_other_benchmarks_do_not_take_its_options() -> None:
    command = [*HYDRAGEN[:-1], "tree", "--mean-tokens", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--mean-tokens" in done.stderr
    assert "only bench run takes it" in done.stderr


@pytest.mark.slow
def test_the_command_measures_and_keeps_its_figures(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [*HYDRAGEN, "--model", str(folder), "--points", "one", "-n", "3", "--repeats", "1"]
    more = ["--temperatures", "0.8", "--max-tokens", "8", "-o", str(out)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "one, T 0.8" in done.stdout
    (row,) = json.loads(out.read_text())["rows"]
    assert row["ours"]["samples"] == 3


# -- vLLM ------------------------------------------------------------------------------------

FAKE_VLLM = """
import json, os
from pathlib import Path
from types import SimpleNamespace

__version__ = "9.9"
ASKED = Path(os.environ["FAKE_VLLM_LOG"])

class LLM:
    def __init__(self, **options):
        assert Path(options["model"], "tokenizer.json").exists()
        runner = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
        mode = os.environ.get("VLLM_BATCH_INVARIANT")
        multicast = os.environ.get("NCCL_NVLS_ENABLE")
        asked = {**options, "runner": runner, "mode": mode, "multicast": multicast}
        ASKED.write_text(json.dumps([asked]))

    def generate(self, prompts, settings, use_tqdm):
        asked = json.loads(ASKED.read_text())
        ASKED.write_text(json.dumps([*asked, {"prompts": prompts, **vars(settings)}]))
        sample = SimpleNamespace(token_ids=[1, 2, 0], text="x", finish_reason="stop")
        return [SimpleNamespace(outputs=[sample] * settings.n) for _ in prompts]

class SamplingParams(SimpleNamespace):
    pass
"""


@pytest.mark.parametrize(("cascade", "invariant"), [(False, False), (True, False), (False, True)])
def test_vllm_gets_the_same_prompts_limits_and_stops(
    cascade: bool,
    invariant: bool,
    weights: Path,
    small: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    vllm = FakeVllm(tmp_path, FAKE_VLLM, monkeypatch)
    monkeypatch.setattr(run, "run_child", in_process)
    asked = Asked(
        "tiny", points=["rooted"], entropy_bits=BITS, mean_tokens=LENGTH, weights=weights,
        max_tokens=9, temperatures=[0.8], batch_invariant=invariant,
        against=find_peer("vllm-cascade" if cascade else "vllm", None),
    )  # fmt: skip
    figures = run.run(asked)
    assert figures["peer"]["version"] == "9.9"
    assert figures["peer"]["cascade"] is cascade
    (row,) = figures["rows"]
    assert row["peer"]["mean_tokens"] == 3
    assert row["peer"]["samples"] == row["ours"]["samples"] == 6
    assert row["peer"]["ends"] == {"stop": 6}
    engine, *runs = json.loads(vllm.log.read_text())
    assert engine["runner"] == ("0" if cascade else None)
    assert engine["mode"] == ("1" if invariant else None)
    assert engine.get("disable_cascade_attn", True) is not cascade
    assert "skip_tokenizer_init" not in engine  # stop strings need its texts
    assert len(runs) == 2
    prompts = [prompt.token_ids.tolist() for prompt in made_up(SMALL["rooted"], VOCABULARY)]
    assert runs[0]["prompts"] == [{"prompt_token_ids": tokens} for tokens in prompts]
    assert (runs[0]["n"], runs[0]["max_tokens"], runs[0]["temperature"]) == (3, 9, 0.8)
    assert runs[0]["stop"] == list(run.STOPS)
    assert runs[0]["stop_token_ids"] == [sharpened.END]
    assert engine["max_model_len"] >= 40 + 9 + 9
    assert "tensor_parallel_size" not in engine


@pytest.mark.usefixtures("forked_workers")
def test_vllm_has_as_many_ranks_and_no_multicast(
    random_model: Path, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vllm = FakeVllm(tmp_path, FAKE_VLLM, monkeypatch)
    monkeypatch.delenv("NCCL_NVLS_ENABLE", raising=False)
    monkeypatch.setattr(run, "run_child", in_process)
    asked = Asked(
        model=str(random_model), points=["rooted"], max_tokens=9, temperatures=[0.8], repeats=1,
        tensor_parallel=2, against=Peer("vllm"),
    )  # fmt: skip
    (row,) = run.run(asked)["rows"]
    assert row["peer"]["samples"] == row["ours"]["samples"] == 6
    engine, *_ = json.loads(vllm.log.read_text())
    assert engine["tensor_parallel_size"] == 2
    assert engine["compilation_config"]["pass_config"]["fuse_allreduce_rms"] is False
    assert engine["multicast"] == "0"


# -- transformers and llama.cpp ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
@pytest.mark.filterwarnings("ignore")
def test_peers_of_a_cpu_draw_what_the_model_says(
    name: str, random_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At temperature 0 all three say the same, and are ended by the same limits and stops.

    `TEST_LLAMA_PYTHON` names a Python that has llama-cpp-python.
    """
    try:
        peer = find_peer(name, os.environ.get("TEST_LLAMA_PYTHON") if "." in name else None)
    except InputError as missing:
        pytest.skip(str(missing))
    texts: list[dict[tuple[str, int], str]] = []

    def keep(folder: Path) -> None:
        lines = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
        texts.append({(x["task_id"], x["sample_index"]): x["completion"] for x in lines})

    def ours(*arguments: Any) -> list[dict[str, Any]]:
        monkeypatch.setattr(run_child, "TemporaryDirectory", lambda: nullcontext(tmp_path))
        answers = in_process(*arguments)
        keep(tmp_path)
        return answers

    def theirs(peer: Peer, job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        answers = run_peer(peer, job, folder)
        keep(folder)
        return answers

    monkeypatch.setattr(run, "run_child", ours)
    monkeypatch.setattr(run, "run_peer", theirs)
    monkeypatch.setattr(run, "POINTS", {"two": Point(2, 3, 0, 12)})
    monkeypatch.setattr(run, "STOPS", ("zz",))
    asked = Asked(
        model=str(random_model), points=["two"], max_tokens=24, temperatures=[0.0], top_p=1.0,
        repeats=1, against=peer,
    )  # fmt: skip
    figures = run.run(asked)
    (row,) = figures["rows"]
    assert row["peer"]["samples"] == row["ours"]["samples"] == 6
    assert texts[0] == texts[1]
    assert row["peer"]["tokens"] == row["ours"]["tokens"]
    assert row["peer"]["cpu_s"] > 0


def test_a_row_of_transformers_ends_where_its_sample_did() -> None:
    class Tokenizer:
        def decode(self, tokens: list[int]) -> str:
            return "".join(map(chr, tokens))

    engine = object.__new__(peer_child.Transformers)
    engine._tokenizer = Tokenizer()
    asked = {"stop": ["\n"]}
    cut = {row: engine._cut(list(map(ord, row)), asked, {0}) for row in ("ab", "a\0\0", "a\n\0")}
    assert [tuple(one) for one in cut.values()] == [
        (2, "ab", "length"), (2, "a", "stop"), (2, "a\n", "stop"),
    ]  # fmt: skip
