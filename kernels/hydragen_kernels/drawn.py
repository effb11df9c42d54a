"""What a draw gives, wherever it is made: a token and its probabilities."""

from typing import Generic, NamedTuple, TypeVar

Array = TypeVar("Array")


class Drawn(NamedTuple, Generic[Array]):
    """One token each, of samples `[samples]`, or of rows over some steps `[steps, rows]`.

    Attributes:
        tokens: integers; -1 for padding, where a kernel drew.
        logprobs: natural log, under the model's own distribution, softmax(logits); NaN where the
            row holds NaN or +inf, or nothing but -inf: then the token means nothing.
        sampled_logprobs: the same under the distribution after temperature and filters.
    """

    tokens: Array
    logprobs: Array
    sampled_logprobs: Array
