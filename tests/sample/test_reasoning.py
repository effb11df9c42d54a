"""What a model thought before its answer is kept apart from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from hydragen_tree.branch.stepper import Ended
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.solution import extract_solution
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.thoughts import split_reasoning
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings

ANSWER = "```python\nprint(1)\n```\n"
ASKED = "<|im_start|>user\nPrint 1.<|im_end|>\n<|im_start|>assistant\n"
SETTINGS = SamplingSettings(max_tokens=200)
CHANNEL = "<|start|>user<|message|>Print 1.<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("prompt", "text", "reasoning", "answer"),
    [
        (ASKED, ANSWER, None, ANSWER),
        (ASKED, f"<think>\nEasy.\n</think>\n\n{ANSWER}", "Easy.", ANSWER),
        (ASKED, f"<think>\n\n</think>\n\n{ANSWER}", None, ANSWER),
        (ASKED, f"[THINK]Easy.[/THINK]{ANSWER}", "Easy.", ANSWER),
        (ASKED, "<think>\nHm, or", "Hm, or", ""),
        (ASKED, f"So: {ANSWER}<think>", None, f"So: {ANSWER}<think>"),
        (f"{ASKED}<think>\n", f"Easy.\n</think>\n\n{ANSWER}", "Easy.", ANSWER),
        (f"{ASKED}<think>\n", "Hm, or", "Hm, or", ""),
        (f"{ASKED}<think>\n\n</think>\n\n", ANSWER, None, ANSWER),
        (None, f"Easy.\n</think>\n\n{ANSWER}", "Easy.", ANSWER),
        (None, ANSWER, None, ANSWER),
        (CHANNEL, f"analysisEasy.assistantfinal{ANSWER}", "Easy.", ANSWER),
        (CHANNEL, f"final{ANSWER}", None, ANSWER),
        (CHANNEL, "analysisHm, or", "Hm, or", ""),
    ],
)
def test_a_thought_and_its_answer(
    prompt: str | None, text: str, reasoning: str | None, answer: str
) -> None:
    assert split_reasoning(text, prompt) == (reasoning, answer)
    if answer == ANSWER:
        assert extract_solution(text, prompt) == "print(1)\n"


def finish(tokenizer: Any, text: str, drawn: str) -> Sample:
    """The sample that has drawn the tokens of a text behind a prompt."""
    records = SampleRecords(
        [prompt(tokenizer, text)],
        {"a": range(1)},
        SETTINGS,
        Detokenizer(tokenizer, len(tokenizer)),
        (),
        (),
        {},
        RunStats(),
    )
    tokens = tokenizer(drawn, add_special_tokens=False)["input_ids"]
    (sample,) = records.finished([Ended(0, np.arange(1), np.array(tokens, np.int32))])
    return sample


def prompt(tokenizer: Any, text: str) -> Prompt:
    return Prompt("a", 0, np.array(tokenizer(text)["input_ids"], np.int32), (), text)


def test_samples_and_their_lines_keep_it_apart(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    text = f"{ASKED}<think>\n"
    sample = finish(tokenizer, text, f"Easy.\n</think>\n\n{ANSWER}")
    assert (sample.reasoning, sample.completion) == ("Easy.", ANSWER)
    assert sample.solution == "print(1)\n"
    path = tmp_path / "samples.jsonl"
    with SampleWriter(path) as writer:
        writer.begin(
            Manifest.describe(
                [prompt(tokenizer, text)], n=1, settings=SETTINGS, model={}, problems={}
            )
        )
        writer.write(sample)
    line = json.loads(path.read_text())
    assert (line["reasoning"], line["completion"]) == ("Easy.", ANSWER)


@pytest.mark.parametrize(
    ("drawn", "reasoning", "answer"),
    [
        (f"[THINK]Easy.[/THINK]{ANSWER}", "Easy.", ANSWER),
        (f"Easy.[/THINK]{ANSWER}", "Easy.", ANSWER),
        ("[THINK]Hm, or", "Hm, or", ""),
        (ANSWER, None, ANSWER),
    ],
)
def test_special_tokens_part_a_thought_from_its_answer(
    drawn: str, reasoning: str | None, answer: str
) -> None:
    """They leave nothing in the text."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    sample = finish(tokenizer, ASKED, drawn)
    assert (sample.reasoning, sample.completion) == (reasoning, answer)
    assert sample.solution == ("print(1)\n" if answer else "\n")
