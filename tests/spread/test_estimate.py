"""What a run on many devices would take: by constants, and by an earlier run."""

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from hydragen_bench.configs import CONFIGS
from hydragen_bench.sets import POINTS, made_up
from hydragen_tree.errors import InputError
from hydragen_tree.model.support import kv_shape
from hydragen_tree.model.tensor_parallel import rank_config
from hydragen_tree.run import run
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.session import session_figures
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.spread.estimate import Estimate, estimate
from hydragen_tree.spread.pace import CPU, Pace
from hydragen_tree.trie.costs import CUDA
from hydragen_tree.trie.outline import Outline
from tests.model.shrunken import shrunken
from tests.sample.test_sampler import SETTINGS, prompts

N, ROWS = 60, 8
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def sampler(random_model: Path) -> Sampler:
    return Sampler.from_pretrained(str(random_model), device="cpu", max_rows=ROWS)


@pytest.fixture(scope="module")
def earlier(sampler: Sampler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of a run that came to its end."""
    return drawn(sampler, N, tmp_path_factory.mktemp("earlier"))


def drawn(sampler: Sampler, n: int, folder: Path) -> Path:
    path = folder / "samples.jsonl"
    with SampleWriter(path) as writer:
        model = sampler.fingerprint
        whole = Manifest.describe(prompts(), n=n, settings=SETTINGS, model=model, problems={})
        writer.begin(whole)
        run(prompts(), n, sampler=sampler, settings=SETTINGS, keep=writer.write)
        writer.finish(session_figures(sampler, prompts()[0]))
    return path


def of(sampler: Sampler, n: int, workers: int, pace: Pace) -> Estimate:
    outline = sampler.outline(prompts(), n)
    return estimate(
        outline, workers=workers, max_tokens=SETTINGS.max_tokens, max_rows=ROWS, pace=pace
    )


@pytest.mark.parametrize("n", [4, N])
def test_a_run_is_estimated_as_long_as_it_took(n: int, sampler: Sampler, tmp_path: Path) -> None:
    """A short one too, that is running out for most of its time."""
    pace = Pace.of(sampler.source).like(drawn(sampler, n, tmp_path), sampler.fingerprint)
    found = of(sampler, n, 1, pace)
    took_s = figures_of(tmp_path)["elapsed_s"]
    assert found.draw_s == pytest.approx(took_s, rel=0.02)
    assert (found.running_out_s > 0.4 * found.draw_s) == (n == 4)
    assert found.samples == 3 * n
    assert found.speed_up == 1.0
    assert found.start_s >= CPU.start_s  # its session began when all was imported


def test_a_run_that_did_not_keep_its_rows_tells_them_by_its_steps(
    sampler: Sampler, earlier: Path, tmp_path: Path
) -> None:
    known = Pace.of(sampler.source).like(earlier, sampler.fingerprint)
    for file in earlier.parent.glob("samples*"):
        text = file.read_text().replace(f'"max_rows": {ROWS}', '"other": 0')
        (tmp_path / file.name).write_text(text)
    assert "max_rows" not in figures_of(tmp_path)
    told = Pace.of(sampler.source).like(tmp_path / earlier.name, sampler.fingerprint)
    assert told.factor == pytest.approx(known.factor, rel=0.3)


def figures_of(folder: Path) -> dict[str, Any]:
    manifest = Manifest.read(folder / "samples.jsonl.manifest.json")
    figures: dict[str, Any] = manifest.sessions[0]["figures"]
    return figures


def test_many_workers_are_as_many_times_as_fast_but_for_what_they_are_idle(
    sampler: Sampler, earlier: Path
) -> None:
    pace = Pace.of(sampler.source).like(earlier, sampler.fingerprint)
    pace = replace(pace, factor=1.0, start_s=1.0)  # whatever else this machine was doing
    long, short = (of(sampler, n, 16, pace) for n in (100_000, 40))
    assert long.idle_share < 0.05
    assert long.speed_up == pytest.approx(16, rel=0.05)
    assert short.idle_share > 0.4
    assert short.speed_up < 8
    assert short.running_out_s > 0.4 * short.draw_s
    assert long.running_out_s < 0.01 * long.draw_s


def measured_steps() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for name in ("decode-h200-llama-3.1-8b", "decode-h200-codellama-13b", "ranks-h200-x2"):
        figures = json.loads((BENCHMARKS / f"{name}.json").read_text())
        for row in figures["rows"]:
            # those of this card, and of sums as they are now
            if "note" not in row and (row.get("ranks", 1) == 1 or "joined" in row.get("sums", "")):
                yield row.get("architecture", figures.get("architecture")), row.get("ranks", 1), row


@pytest.mark.parametrize("architecture", ["llama-3.1-8b", "codellama-13b", "llama-70b"])
def test_steps_take_as_long_as_on_one_card_and_on_two(architecture: str, sampler: Sampler) -> None:
    """Measured on H200s; by the constants alone."""
    config = CONFIGS[architecture.replace("llama-70b", "llama-3.1-70b")]
    checked = 0
    for name, ranks, row in measured_steps():
        if name == architecture:
            cut = deepcopy(config)
            cut.num_hidden_layers = row.get("layers", config.num_hidden_layers)
            part = rank_config(name, cut, ranks)
            source = replace(
                sampler.source,
                config=part,
                shape=kv_shape(name, part, torch.bfloat16),
                dtype=torch.bfloat16,
                weights=torch.bfloat16,
                kv_dtype=torch.bfloat16,
                device=torch.device("cuda"),
                ranks=ranks,
            )
            tail = row["new_tokens"] / 2
            step_s = Pace.of(source).step_s(
                np.array([float(row["rows"])]), row["prefix"], row["prefix"], tail
            )
            assert 1e3 * step_s == pytest.approx(row["step_ms"], rel=0.12), row
            checked += 1
    assert checked >= 2


def test_of_experts_those_that_rows_choose_are_read(sampler: Sampler) -> None:
    config = shrunken("qwen3_moe")  # 2 of 4 experts a token
    pace = Pace.of(replace(sampler.source, config=config, device=torch.device("cuda")))
    model = AutoModelForCausalLM.from_config(config)
    named = model.named_parameters()
    experts = sum(weight.numel() for name, weight in named if ".experts." in name)
    rest = sum(weight.numel() for weight in model.parameters()) - experts
    embedding = config.vocab_size * config.hidden_size
    assert experts > 0
    assert not config.tie_word_embeddings
    assert pace.parameters == rest - embedding + experts // 2
    assert pace.weights == 4 * (rest - embedding + experts)

    def read_bytes(rows: int) -> float:
        """By a step of a card that multiplies at once and reads nothing else."""
        device = replace(
            pace.device, bandwidth=1.0, flops=1e30, reached=1.0, layer_s=0.0, logit_s=0.0
        )
        alone = replace(pace, device=device, tail_token_bytes=0)
        return float(alone.step_s(np.array([float(rows)]), 0, 0, 0)[0])

    for rows, chosen in ((1, 0.5), (2, 0.75), (1000, 1.0)):
        assert read_bytes(rows) == pytest.approx(4 * (rest - embedding + chosen * experts))


def measured_runs() -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    figures = json.loads((Path(__file__).parent / "devices-h200-llama-3.1-8b.json").read_text())
    for row in figures["runs"]:
        yield "humaneval", row["n"], len(row["devices"].split(",")), row
    figures = json.loads((BENCHMARKS / "run-vllm-h200-llama-3.1-8b.json").read_text())
    for row in figures["rows"]:
        ours = {**row["ours"], "max_rows": figures["ours"]["rows"]}
        yield row["set"].split(",")[0], figures["asked"]["n"], 1, ours


def drawn_lengths(row: dict[str, Any]) -> NDArray[np.int64]:
    """As many of 256 tokens as had no other end, and the others' lengths near to geometric."""
    most, whole = 256, row["ends"].get("length", 0)
    rest = row["samples"] - whole
    if not rest:
        return np.full(whole, most)
    places = (np.arange(rest) + 0.5) / rest

    def with_mean(mean: float) -> NDArray[np.float64]:
        share = 1.0 - np.exp(-most / mean)
        return -mean * np.log(1.0 - share * places)

    wanted = (row["tokens"] - most * whole) / rest
    low, high = 1.0, 1e5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if with_mean(middle).mean() < wanted else (low, middle)
    return np.sort(np.concatenate([np.ceil(with_mean(low)), np.full(whole, most)]).astype(np.int64))


def test_whole_runs_take_as_long_as_on_one_card_and_on_two(sampler: Sampler) -> None:
    """Measured on H200s, lengths known; by the constants alone."""
    config = CONFIGS["llama-3.1-8b"]
    source = replace(
        sampler.source,
        config=config,
        shape=kv_shape("llama-3.1-8b", config, torch.bfloat16),
        dtype=torch.bfloat16,
        weights=torch.bfloat16,
        kv_dtype=torch.bfloat16,
        device=torch.device("cuda"),
    )
    of_one: dict[int, float] = {}
    for name, n, workers, row in measured_runs():
        lengths = drawn_lengths(row)
        assert lengths.mean() == pytest.approx(row["mean_tokens"], rel=0.02)
        pace = replace(Pace.of(source), lengths=lengths, rows_a_token=row["rows_a_token"])
        pace = replace(pace, device=replace(pace.device, chunk_s=math.inf))  # 8 steps, always
        found = estimate(
            Outline.draw(
                made_up(POINTS[name], int(config.vocab_size)),
                n,
                source.shape,
                CUDA,
                row["max_rows"],
            ),
            workers=workers,
            max_tokens=256,
            max_rows=row["max_rows"],
            pace=pace,
        )
        assert found.draw_s == pytest.approx(row["seconds"], rel=0.15), row
        if workers == 1:
            of_one[row["samples"]] = found.draw_s
        else:
            assert of_one[row["samples"]] / found.draw_s > 1.8


def test_longer_samples_and_two_ranks_take_their_time(sampler: Sampler, random_model: Path) -> None:
    pace = Pace.of(sampler.source)
    outline = sampler.outline(prompts(), N)
    usual, longer = (
        estimate(outline, workers=2, max_tokens=tokens, max_rows=ROWS, pace=pace)
        for tokens in (100, 200)
    )
    assert 1.9 < longer.draw_s / usual.draw_s < 2.2
    assert usual.mean_tokens == pytest.approx(50, rel=0.1)
    halves = Pace.of(Sampler.from_pretrained(str(random_model), tensor_parallel=2).source)
    assert halves.weights < pace.weights
    assert halves.step_s(np.ones(1), 0, 0, 0) > pace.step_s(np.ones(1), 0, 0, 0)


def test_an_earlier_run_of_another_model_says_nothing(earlier: Path) -> None:
    tiny = Sampler.from_pretrained("tiny", device="cpu")
    with pytest.raises(InputError, match=r"like .*samples.jsonl: its model's sha256 is"):
        Pace.of(tiny.source).like(earlier, tiny.fingerprint)
