"""What a model thought before its answer is kept apart from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from hydragen_tree.branch.stepper import Ended
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.drafts import split_reasoning
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.solution import extract_solution
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings

ANSWER = "```python\nprint(1)\n```\n"
ASKED = "<|im_start|>user\nPrint 1.<|im_end|>\n<|im_start|>assistant\n"
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


def test_samples_and_their_lines_keep_it_apart(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    settings = SamplingSettings(max_tokens=200)
    text = f"{ASKED}<think>\n"
    prompt = Prompt("a", 0, np.array(tokenizer(text)["input_ids"], np.int32), (), text)
    records = SampleRecords(
        [prompt],
        {"a": range(1)},
        settings,
        Detokenizer(tokenizer, len(tokenizer)),
        (),
        (),
        {},
        RunStats(),
    )
    drawn = tokenizer(f"Easy.\n</think>\n\n{ANSWER}", add_special_tokens=False)["input_ids"]
    (sample,) = records.finished(Ended(np.arange(1), np.array(drawn, np.int32)))
    assert (sample.reasoning, sample.completion) == ("Easy.", ANSWER)
    assert sample.solution == "print(1)\n"
    path = tmp_path / "samples.jsonl"
    with SampleWriter(path) as writer:
        writer.begin(Manifest.describe([prompt], n=1, settings=settings, model={}, problems={}))
        writer.write(sample)
    line = json.loads(path.read_text())
    assert (line["reasoning"], line["completion"]) == ("Easy.", ANSWER)
