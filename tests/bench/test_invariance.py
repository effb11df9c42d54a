"""The same sample drawn in many ways, and what the table says where it is not the same."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hydragen_bench import invariance
from hydragen_bench.invariance import Row, compare
from hydragen_cli.main import run
from hydragen_kernels import ordered_layers
from hydragen_tree.sample.sample import Sample

GPU = torch.cuda.is_available()
NO_COMPILER = not GPU and ordered_layers.why_unavailable() is not None
NEEDED = pytest.mark.gpu if GPU else pytest.mark.skipif(NO_COMPILER, reason="no C compiler")
SAMPLE = Sample(
    task_id="a",
    sample_index=0,
    prompt_variant=0,
    completion="x",
    solution="x",
    finish_reason="stop",
    n_tokens=3,
    logprob=-1.0,
    sampled_logprob=-1.0,
    seed=0,
    token_ids=(5, 6, 7),
    token_logprobs=(-0.5, -0.25, -0.25),
)


@pytest.mark.parametrize(
    ("tokens", "logprobs", "expected"),
    [
        ((5, 6, 7), (-0.5, -0.25, -0.25), (0, None, 0, 0.0)),
        ((5, 6, 7), (-0.5, -0.25, -0.375), (0, None, 1, 0.125)),
        ((5, 9, 7), (-0.5, -9.0, -9.0), (1, 1, 0, 0.0)),  # what follows has no pair
        ((5, 6, 7, 8), (-0.75, -0.25, -0.25, -1.0), (1, 3, 1, 0.25)),
        ((5, 6), (-0.5, -0.25), (1, 2, 0, 0.0)),
    ],
)
def test_what_differs_is_counted(
    tokens: tuple[int, ...],
    logprobs: tuple[float, ...],
    expected: tuple[int, int | None, int, float],
) -> None:
    other = replace(SAMPLE, token_ids=tokens, token_logprobs=logprobs)
    assert compare("way", {("a", 0): other}, {("a", 0): SAMPLE}) == Row("way", 1, *expected)


@NEEDED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_bit_differs_in_the_batch_invariant_mode(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped model, whose prompts share a beginning: segments, forks, parked branches."""
    monkeypatch.setattr(invariance, "STATEMENTS", invariance.STATEMENTS[:3])
    monkeypatch.setattr(invariance, "_THREADS", (1, 2, 16) if dtype == "bfloat16" else (16,))
    rows = invariance.run(n=6, max_tokens=20, dtype=dtype, batch_invariant=True)["rows"]
    expected = {"2 rows", "little memory", "n = 1", *(() if GPU else ("threads: 16",))}
    assert {row["way"] for row in rows} >= expected
    for row in rows:
        assert (row["tokens"], row["logprobs"], row["apart"]) == (0, 0, 0.0), row


def test_every_way_draws_the_same_in_float32(
    random_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(invariance, "STATEMENTS", ("a b c", "a b d e"))
    figures = tmp_path / "figures.json"
    asked = f"--model {random_model} -n 6 --max-tokens 12 --dtype float32 -o {figures}"
    monkeypatch.setattr(sys, "argv", ["hydragen", "bench", "invariance", *asked.split()])
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    rows = json.loads(figures.read_text())["rows"]
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    assert {row["way"]: row["samples"] for row in rows} == {
        "2 rows": 12,
        "7 rows": 12,
        "64 rows": 12,
        "n = 1": 2,
        "problem by problem": 12,
        "the other way round": 12,
        "little memory": 12,
        "three shards": 12,
        "resumed, every other one": 6,
    }
    assert [row["tokens"] for row in rows] == [0] * len(rows)
    assert max(row["apart"] for row in rows) < 1e-4
