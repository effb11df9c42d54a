"""Samples: the records a run leaves behind."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished completion.

    Args:
        task_id: the problem's id.
        sample_index: i in 0 .. n-1; the i-th sample is the same whatever n is.
        prompt_variant: which few-shot variant it was drawn from: `sample_index % variants`.
        completion: the text drawn, stop string and end token cut off, without the `reasoning`.
        solution: the program extracted from the completion.
        finish_reason: `eos`, `stop` (a stop string) or `length`.
        n_tokens: tokens drawn, those of the stop included.
        logprob: natural-log probability of the tokens drawn under the model's own distribution.
        sampled_logprob: the same under the distribution they were drawn from.
        seed: the run's seed.
        token_ids: the tokens drawn.
        token_logprobs: one log-probability a token, when asked for.
        reasoning: what the model thought before its answer, as in `<think>`; None: nothing.
    """

    task_id: str
    sample_index: int
    prompt_variant: int
    completion: str
    solution: str
    finish_reason: FinishReason
    n_tokens: int
    logprob: float
    sampled_logprob: float
    seed: int
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] | None = None
    reasoning: str | None = None
