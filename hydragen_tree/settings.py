"""How to sample: one frozen value, validated once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydragen_tree.errors import InputError

COLDEST = 1e-6  # logits divided by less might be beyond float32


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Settings that decide which tokens are drawn. Equal settings and seed give equal samples.

    Args:
        temperature: divides the logits, at least 1e-6; 0 means greedy.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of most probable tokens with at least this mass, in (0, 1].
        min_p: keep tokens at least this fraction as probable as the best one, in [0, 1].
        max_tokens: tokens drawn per sample at the most.
        stop: strings that end a sample, besides those of the prompt's template; cut from the text.
            One string is one stop. Kept as a tuple.
        seed: seed of the counter-based random numbers.
        logprobs: also record every token's log-probability.
        stop_tokens: tokens that end a sample besides the model's own, by text or id.
            One text is one token. Kept as a tuple.

    Raises:
        InputError: a value is out of range; `setting` names it.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 256
    stop: Sequence[str] = ()
    seed: int = 0
    logprobs: bool = False
    stop_tokens: Sequence[str | int] = ()

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        named = self.stop_tokens
        tokens = (named,) if isinstance(named, str | int) else tuple(named)
        object.__setattr__(self, "stop_tokens", tokens)
        checks = [
            (
                "temperature",
                self.temperature == 0.0 or COLDEST <= self.temperature < float("inf"),
                f"0 (greedy) or a finite number >= {COLDEST:g}",
            ),
            ("top_k", self.top_k >= 0, "an integer >= 0 (0 keeps all tokens)"),
            ("top_p", 0.0 < self.top_p <= 1.0, "a number in (0, 1]"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "a number in [0, 1]"),
            ("max_tokens", self.max_tokens >= 1, "an integer >= 1"),
            ("seed", 0 <= self.seed < 2**63, "an integer in [0, 2^63)"),
        ]
        for name, ok, expected in checks:
            if not ok:
                raise InputError(f"expected {expected}", setting=name, value=getattr(self, name))
        _check_each("stop", stop, _is_text, "text that is not empty")
        _check_each("stop_tokens", tokens, _is_token, "text that is not empty, or an id >= 0")


def _check_each(
    setting: str, values: tuple[object, ...], fits: Callable[[Any], bool], expected: str
) -> None:
    for value in values:
        if not fits(value):
            raise InputError(f"expected {expected}", setting=setting, value=repr(value))


def _is_text(text: object) -> bool:
    return isinstance(text, str) and text != ""


def _is_token(name: str | int) -> bool:
    return _is_text(name) if isinstance(name, str) else name >= 0
