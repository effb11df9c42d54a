"""Training and evaluation of the tiny model, in miniature."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from hydragen_tiny import drawing, evaluate, train
from hydragen_tiny.model import FENCE
from hydragen_tiny.running import solves
from hydragen_tree.model.tiny import MODEL_DIR

PLAN = train.Plan(
    seed=1,
    chunks=2,
    group=1,
    steps=2,
    batch=2,
    context=128,
    peak=1e-3,
    warm=1,
    cool=0.5,
    checkpoints=(0.5, 1.0),
    flat=0.5,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two steps, drawn by threads instead of processes."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(drawing, "CHUNK", 20)
        patch.setattr(drawing, "TOKENIZER_CHUNKS", 1)
        train.run(PLAN, train.parse(["--out", str(out), "--device", "cpu"]), pool)
    return out


def test_training_writes_checkpoints_and_figures(trained: Path) -> None:
    figures = json.loads((trained / "training.json").read_text())
    assert figures["documents"] == 20  # the first of two chunks holds enough
    assert figures["trained_tokens"] == 2 * 2 * 128
    weights = [(trained / name / "model.safetensors").read_bytes() for name in ("at-0.5", "at-1.0")]
    assert weights[0] != weights[1]


def test_what_ships_has_flatter_logits_than_the_last_checkpoint(trained: Path) -> None:
    tokens = torch.tensor([[5, 80, 300, 7]])
    sharp, flat = (
        LlamaForCausalLM.from_pretrained(trained / name, dtype=torch.float32)(tokens).logits
        for name in ("at-1.0", "shipped")
    )
    torch.testing.assert_close(flat, 0.5 * sharp)
    files = [sorted(p.name for p in (trained / d).iterdir()) for d in ("at-1.0", "shipped")]
    assert files[0] == files[1]


@pytest.mark.parametrize("loop", ["transformers", "tree"])
def test_evaluation_writes_a_table_a_split(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 4)
    out = tmp_path / "figures.json"
    model = str(trained / "at-1.0")
    options = ["--splits", "TRAIN", "LONGER", "--tasks", "2", "-n", "3", "--device", "cpu"]
    options += ["--loop", loop]
    evaluate.main(["--out", str(out), "--model", model, *options])
    tables = json.loads(out.read_text())["models"]["at-1.0"]
    assert set(tables) == {"train", "longer"}
    assert tables["train"]["pass@k"] == {"1": 0.0}
    assert [item["right"] for item in tables["train"]["items"]] == [0, 0]


def test_evaluation_counts_every_sample_of_a_right_program() -> None:
    item = evaluate.Item("echo", "prompt", (("3\n", "3\n"), ("5\n", "5\n")))
    result = evaluate.table([item], [["print(input())", "print(3)", "print(input())"]], workers=1)
    assert result["items"] == [{"name": "echo", "right": 2, "distinct": 2}]
    assert result["pass@k"] == {"1": 0.6667}


@pytest.mark.parametrize(
    ("program", "right"),
    [
        ("print(input())", True),
        ("import sys\nprint(sys.stdin.read())", True),
        ("print(input())\nraise SystemExit", True),
        ("print(input())\nraise SystemExit(1)", False),
        ("print(3)", False),
        ("print(", False),
        ("while True:\n    pass", False),
        ("x = [0] * 10**9\nprint(input())", False),
    ],
    ids=["line", "all", "exit-0", "exit-1", "wrong", "syntax", "endless", "memory"],
)
def test_programs_are_judged(program: str, right: bool) -> None:
    assert solves(program, [("3", "3"), ("4", "4")]) == right


def test_rows_begin_with_documents() -> None:
    tokens = np.array([1, 9, 9, 0, 1, 9, 0, 1, 9, 9, 9, 0], dtype=np.uint16)
    chunk = drawing.Chunk(tokens, np.array([0, 4, 7]), 0, frozenset())
    assert drawing.pack([chunk], 4).tolist() == [[1, 9, 9, 0], [1, 9, 0, 1]]


def test_programs_weigh_more_than_prose() -> None:
    tokens = torch.tensor([[5, 7, 5, 5, 7, 5]])
    weights = train.token_weights(tokens, fence=7)
    prose = train.PROSE_WEIGHT
    assert torch.equal(weights, torch.tensor([[prose, prose, 1.0, 1.0, 1.0, prose]]))


def test_every_document_comes_once_before_any_comes_again() -> None:
    tokens = np.array([3, 0], dtype=np.uint16)
    chunks = [drawing.Chunk(tokens + i, np.array([0]), 0, frozenset()) for i in range(6)]
    plan = drawing.Reading(seed=1, size=2, length=2, group=2)
    read = [int(row[0]) for batch in islice(drawing.batches(chunks, plan), 6) for row in batch]
    assert [sorted(read[:2]), sorted(read[2:4]), sorted(read[4:6])] == [[3, 4], [5, 6], [7, 8]]
    assert sorted(read[6:]) == sorted(read[:6])


def test_learning_rate_rises_stays_and_falls() -> None:
    steps = train.PLAN.steps
    rates = [train.learning_rate(step, step / steps, train.PLAN) for step in range(steps)]
    top = rates.index(train.PLAN.peak)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < train.PLAN.peak / 100


def test_shipped_model_is_small_and_closes_programs_with_one_token() -> None:
    weights = MODEL_DIR / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    ids = tokenizer(f"x\n{FENCE}\n\n###")["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids(FENCE)) == 1
