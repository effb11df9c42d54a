"""What is kept of samples while they are drawn."""

import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.stepper import Ended
from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.settings import SamplingSettings

N, TOKENS = 3, 24


def samples_of(at_a_time: int) -> list[Sample]:
    """Samples that so many tokens of came at a time."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    text = Detokenizer(tokenizer, len(tokenizer))
    settings = SamplingSettings(max_tokens=TOKENS, logprobs=True)
    prompt = Prompt("a", 0, np.array([5, 6], np.int32), ())
    records = SampleRecords([prompt], {"a": range(N)}, settings, text, (), (), {}, RunStats())
    rng = np.random.default_rng(0)
    tokens = rng.integers(40, 90, (TOKENS, N)).astype(np.int32)
    logprobs, sampled = -rng.exponential(1.0, (2, TOKENS, N))
    for at in range(0, TOKENS, at_a_time):
        part = slice(at, at + at_a_time)
        records.add(np.arange(N), Drawn(tokens[part], logprobs[part], sampled[part]))
    ended = [Ended(0, np.array([number]), tokens[:, number]) for number in range(N)]
    return sorted(records.finished(ended), key=lambda one: one.sample_index)


@pytest.mark.parametrize("at_a_time", [2, 7, 24])
def test_sums_do_not_depend_on_how_many_tokens_come_at_a_time(at_a_time: int) -> None:
    """Bit for bit, as the batch-invariant mode has it."""
    for found, expected in zip(samples_of(at_a_time), samples_of(1), strict=True):
        assert found.token_logprobs == expected.token_logprobs
        assert found.logprob == expected.logprob
        assert found.logprob == pytest.approx(math.fsum(expected.token_logprobs))
        assert found.sampled_logprob == expected.sampled_logprob
