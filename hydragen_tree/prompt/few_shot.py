"""Which few-shot examples a variant shows, and in which order."""

import hashlib
import itertools
import math
from collections.abc import Sequence

from hydragen_tree.errors import InputError
from hydragen_tree.problem.types import Example, Problem


def choose_examples(
    problem: Problem, seed: int, variants: int | None = None
) -> list[tuple[Example, ...]]:
    """The examples of each variant, in order.

    Where only their number is given, they are drawn, and the draws do not depend on the problem:
    problems with one pool share the beginnings of their prompts. More variants only add to fewer.
    A problem that is in its own pool is passed over.

    Raises:
        InputError: other than 1 to as many variants as there are distinct choices are asked for.
    """
    few_shot, pool = problem.few_shot, problem.examples
    if few_shot is None:
        _check_count(problem, 1 if variants is None else variants, 1, "it has no few_shot")
        return [()]
    if isinstance(few_shot.variants, int):
        count = few_shot.variants if variants is None else variants
        held = f"{few_shot.shots} of {len(pool)} examples other than itself, in order"
        _check_count(problem, count, math.perm(len(pool), few_shot.shots), held)
        return _draw(pool, few_shot.shots, count, seed)
    count = len(few_shot.variants) if variants is None else variants
    _check_count(problem, count, len(few_shot.variants), "those it lists")
    by_id = {example.id: example for example in pool}
    return [tuple(by_id[name] for name in choice) for choice in few_shot.variants[:count]]


def _draw(pool: Sequence[Example], shots: int, count: int, seed: int) -> list[tuple[Example, ...]]:
    """`count` distinct ordered choices: each draw ranks the pool by a hash of seed, draw and id.

    Without one example, the others keep their ranks.
    """
    chosen: dict[tuple[str, ...], tuple[Example, ...]] = {}
    for draw in itertools.count():
        if len(chosen) == count:
            break
        ranks = {e.id: hashlib.sha256(f"{seed}/{draw}/{e.id}".encode()).digest() for e in pool}
        choice = tuple(sorted(pool, key=lambda example: ranks[example.id])[:shots])
        chosen.setdefault(tuple(example.id for example in choice), choice)
    return list(chosen.values())


def _check_count(problem: Problem, count: int, possible: int, held: str) -> None:
    if not 1 <= count <= possible:
        name = problem.source or problem.id
        expected = f"expected 1 to {possible}: {held}" if possible else f"there is none: {held}"
        raise InputError(f"{name}: few_shot.variants: {count} asked for, {expected}")
