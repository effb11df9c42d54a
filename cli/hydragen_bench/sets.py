"""Problem sets to run: prompts by their number and length, made up or taken from real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompt_lines import read_prompt_lines
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources

# Lengths of HumanEval's 164 prompts in tokens of SmolLM2: shares of the prompts, and the length
# that so many have at the most.
_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
_LENGTHS = (42, 58, 75, 95, 122, 166, 231, 275, 395)


@dataclass(frozen=True, slots=True)
class Point:
    """A set of `hydragen bench run`.

    Attributes:
        prompts: how many.
        n: samples of each.
        root_tokens: that all of them begin with.
        own_tokens: of each prompt beyond the root; None: as long as HumanEval's.
    """

    prompts: int
    n: int
    root_tokens: int = 0
    own_tokens: int | None = None


POINTS = {
    "humaneval": Point(164, 100),
    "one": Point(1, 1000),
    "fewshot12": Point(12, 64, 2400, 350),
    "fewshot120": Point(120, 64, 2400, 350),
}


def made_up(point: Point, vocabulary: int) -> list[Prompt]:
    """Random token ids, the same each time.

    Args:
        point: the set.
        vocabulary: tokens there are; the first is special.
    """
    rng = np.random.default_rng(0)

    def draw(length: int) -> Int32:
        return rng.integers(1, vocabulary, length).astype(np.int32)

    root = draw(point.root_tokens)
    places = (np.arange(point.prompts) + 0.5) / point.prompts
    lengths = np.interp(places, _SHARES, _LENGTHS).astype(int)
    if point.own_tokens is not None:
        lengths[:] = point.own_tokens
    rng.shuffle(lengths)
    return [
        Prompt(f"made-up/{i}", 0, np.append(root, draw(length)), ())
        for i, length in enumerate(lengths.tolist())
    ]


def from_real(point: Point, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompts, behind a root that is made of the last ones where there is to be one.

    Raises:
        InputError: there are too few.
    """
    if len(prompts) < point.prompts:
        raise InputError(
            f"{len(prompts)} prompts, expected at least {point.prompts}", setting="prompts"
        )
    chosen = list(prompts[: point.prompts])
    if not point.root_tokens:
        return chosen
    examples = np.concatenate([prompt.token_ids for prompt in reversed(prompts)])
    root = np.resize(examples, point.root_tokens)  # begins again where they are too short
    return [Prompt(p.task_id, 0, np.append(root, p.token_ids).astype(np.int32), ()) for p in chosen]


def to_json(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """As the processes that measure are given them: token ids, and the text where there is one."""
    return [
        {"task_id": p.task_id, "text": p.text, "token_ids": p.token_ids.tolist()} for p in prompts
    ]


def read_prompts(path: Path, tokenizer: Any) -> list[Prompt]:
    """Real prompts from JSON lines.

    Raises:
        InputError: the file cannot be read, or its lines are broken.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return prompts_from_sources(read_prompt_lines(lines).prompts, tokenizer)
    except OSError as error:
        raise InputError(error.strerror or str(error), setting="prompts", value=path) from None
