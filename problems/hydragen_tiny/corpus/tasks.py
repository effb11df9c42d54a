"""Draws compositions and their tests, and knows which ones are held out of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from random import Random
from typing import Any
from zlib import crc32

from hydragen_tiny.corpus.families import FAMILIES, HELD_OUT_FAMILIES
from hydragen_tiny.corpus.finishes import FINISHES
from hydragen_tiny.corpus.item_steps import ITEM_STEPS
from hydragen_tiny.corpus.list_steps import LIST_STEPS
from hydragen_tiny.corpus.parts import Data, Family, Finish, Result, Scale, Source, Step
from hydragen_tiny.corpus.shapes import SHAPE_SOURCES
from hydragen_tiny.corpus.sources import INT_SOURCES
from hydragen_tiny.corpus.table_steps import MATRIX_STEPS, PAIR_STEPS
from hydragen_tiny.corpus.text_steps import MOVE_STEPS, TEXT_STEPS, WORD_STEPS

SOURCES = (*INT_SOURCES, *SHAPE_SOURCES)
STEPS = (
    *ITEM_STEPS,
    *LIST_STEPS,
    *TEXT_STEPS,
    *MOVE_STEPS,
    *WORD_STEPS,
    *PAIR_STEPS,
    *MATRIX_STEPS,
)
HELD_OUT_SHARE = 8
RESERVED = frozenset(
    {
        ("sum", "square"),
        ("list-itself", "sort-down"),
        ("first-word", "words-longer"),
        ("distinct", "palindromic"),
        ("count", "absolute"),
        ("rising-subsequence", "swap-neighbours"),
        ("count-at-most", "absolute"),
        ("count-at-most", "differences"),
        ("rising-subsequence", "int-even-up"),
        ("home-distance", "int-parity"),
        ("box-chain", "pairs-turn"),
        ("weighted-ends", "pairs-by-ratio"),
        ("cut-pieces", "shorten"),
    }
)
"""Pairs of a question and a step that are held out because problems in `problems/` have them."""
LARGEST = 100_000
INT_DEPTHS = (22, 30, 30, 18)  # weights of 0, 1, ... steps in training
OTHER_DEPTHS = (35, 45, 20)
LONGER_BY = 3
MAKES_NATURAL = frozenset({"absolute", "square", "modulo", "distance", "floor", "positive"})
WANTS_SIGNED = frozenset({"absolute", "positive", "negative"})


Part = Step | Family | Finish


class Split(Enum):
    """What a task may be drawn from."""

    TRAIN = "train"
    COMPOSITIONS = "held-out compositions"
    LONGER = "held-out compositions of more steps than any in training"
    FAMILIES = "held-out families"
    PHRASINGS = "held-out phrasings"


class UnsuitableError(Exception):
    """The task has no sensible tests; another one must be drawn."""


@dataclass(frozen=True, slots=True)
class Task:
    """One composition with its parameters.

    Args:
        source: how the input is read.
        steps: changes before the question, in order.
        family: the question.
        finish: how the answer is printed.
        constants: the parameters of the steps, the family and the finish; 0 for those without.
        reads: which of these parameters is read with the input instead, if one is.
        reads_too: a second parameter that is read, behind the first one on the line of n.
        k_follows_n: the parameter that is read stands behind n, not on a last line of its own.
        cases: whether the input holds several cases.
        guard: what is printed when the steps leave nothing, if that may happen.
        signed: whether the input may hold negative integers.
    """

    source: Source
    steps: tuple[Step, ...]
    family: Family
    finish: Finish
    constants: tuple[int, ...]
    reads: int | None
    reads_too: int | None
    k_follows_n: bool
    cases: bool
    guard: str | None
    signed: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that may have a parameter, in the order of `constants`."""
        return (*self.steps, self.family, self.finish)

    @property
    def composition(self) -> str:
        """Names of the parts: equal for tasks that differ only in parameters and words."""
        parts: list[Source | Part] = [self.source, *self.parts]
        return " > ".join(part.name for part in parts) + (" (cases)" if self.cases else "")

    @property
    def shrinks(self) -> bool:
        """Whether the steps may leave fewer items than were read."""
        return any(step.shrinks for step in self.steps)


@cache
def steps_of(kind: str) -> tuple[Step, ...]:
    """The steps that apply to a kind of input."""
    return tuple(step for step in STEPS if step.kind == kind)


@cache
def sources_of(kind: str) -> tuple[Source, ...]:
    """The sources that give a kind of input."""
    return tuple(source for source in SOURCES if source.kind == kind)


@cache
def _finishes_of(result: Result, plain: bool) -> tuple[Finish, ...]:
    chosen = tuple(f for f in FINISHES if f.result == result and f.is_plain == plain)
    return chosen or _finishes_of(result, not plain)


@cache
def _held_out_pair(family: str, part: str) -> bool:
    by_chance = crc32(f"{family}+{part}".encode()) % HELD_OUT_SHARE == 0
    return by_chance or (family, part) in RESERVED


def is_held_out(task: Task) -> bool:
    """Whether the question meets a step or a finish that it never meets in training."""
    parts: list[Step | Finish] = list(task.steps)
    if not task.finish.is_plain:
        parts.append(task.finish)
    return any(_held_out_pair(task.family.name, part.name) for part in parts)


def _draw_depth(rng: Random, split: Split, kind: str) -> int:
    """How many steps a task has.

    Raises:
        UnsuitableError: this kind of input has no steps, and the split wants some.
    """
    weights = INT_DEPTHS if kind == "ints" else OTHER_DEPTHS
    if split is not Split.LONGER:
        return rng.choices(range(len(weights)), weights=weights)[0] if steps_of(kind) else 0
    longest = len(weights) - 1
    if len(steps_of(kind)) < longest + LONGER_BY:
        raise UnsuitableError
    return rng.randint(longest + 1, longest + LONGER_BY)


def _fits(split: Split, task: Task) -> bool:
    if split is Split.FAMILIES:
        return task.family.name in HELD_OUT_FAMILIES
    if task.family.name in HELD_OUT_FAMILIES:
        return False
    return split is Split.LONGER or is_held_out(task) == (split is Split.COMPOSITIONS)


def _weight(family: Family) -> float:
    return family.weight * (2 if family.kind == "ints" else 1)


_WEIGHTS = [_weight(family) for family in FAMILIES]
_HELD_OUT = [family for family in FAMILIES if family.name in HELD_OUT_FAMILIES]


def _meaningful(source: Source, steps: Sequence[Step], family: Family, signed: bool) -> bool:
    """Whether no part is given what it has no meaning for."""
    natural, shrunk = source.natural or not signed, False
    for step in steps:
        if (step.natural_only and not natural) or (step.name in WANTS_SIGNED and natural):
            return False
        if step.needs_items and shrunk:
            return False
        natural = step.name in MAKES_NATURAL or (natural and not step.signed)
        shrunk |= step.shrinks
    return natural or not family.natural_only


def _draw_composition(rng: Random, split: Split, family: Family | None) -> Task:
    if family is None:
        family = (
            rng.choice(_HELD_OUT)
            if split is Split.FAMILIES
            else rng.choices(FAMILIES, weights=_WEIGHTS)[0]
        )
    source = rng.choice(sources_of(family.kind))
    if family.kind == "ints" and rng.random() < 0.35:
        source = rng.choice(INT_SOURCES[:3])
    steps = tuple(rng.sample(steps_of(family.kind), _draw_depth(rng, split, family.kind)))
    signed = rng.random() < 0.35
    if not _meaningful(source, steps, family, signed):
        raise UnsuitableError
    finish = rng.choice(_finishes_of(family.result, rng.random() < 0.6))
    parts: tuple[Part, ...] = (*steps, family, finish)
    with_k = [i for i, part in enumerate(parts) if part.k is not None]
    reads = rng.choice(with_k) if with_k and rng.random() < 0.5 else None
    follows = source.counted and rng.random() < 0.6
    others = [i for i in with_k if i != reads] if reads is not None and follows else []
    reads_too = rng.choice(others) if others and rng.random() < 0.8 else None
    guarded = family.least == 1 and any(step.shrinks for step in steps) and rng.random() < 0.6
    return Task(
        source,
        steps,
        family,
        finish,
        tuple(rng.randint(*part.k) if part.k else 0 for part in parts),
        reads,
        reads_too,
        follows,
        family.kind not in ("matrix", "square", "grid", "graph", "digraph", "commands")
        and rng.random() < 0.12,
        rng.choice(("NONE", "EMPTY", "-1", "0")) if guarded else None,
        signed,
    )


def draw_task(rng: Random, split: Split, family: Family | None = None) -> Task:
    """A random composition of the split, of one family if given."""
    while True:
        try:
            task = _draw_composition(rng, split, family)
        except UnsuitableError:
            continue
        if _fits(split, task):
            return task


def _answer(task: Task, values: tuple[Any, ...], read: dict[int, int]) -> str:
    """What is right for one case, by the parts' specs; `read` has the parameters of the input.

    Raises:
        ValueError: the data do not fit the task.
    """
    main, *rest = values
    given = [read.get(i, c) for i, c in enumerate(task.constants)]
    for step, parameter in zip(task.steps, given, strict=False):
        main = step.spec(main, parameter)
        if step.kind == "ints" and any(abs(x) > LARGEST for x in main):
            raise ValueError
    if hasattr(main, "__len__") and len(main) < task.family.least:
        if task.guard is not None and len(main) == 0:
            return task.guard
        raise ValueError
    extra = () if task.family.k is None else (given[-2],)
    return task.finish.spec(task.family.spec(main, *rest, *extra), given[-1])


def _draw_case(task: Task, rng: Random, scale: Scale) -> tuple[list[str], str]:
    for _ in range(12):
        data: Data = task.source.draw(rng, scale)
        read, lines = {}, list(data.lines)
        for i in (task.reads, task.reads_too):
            if i is None:
                continue
            read[i] = rng.randint(*(task.parts[i].k or (0, 0)))
            if task.k_follows_n:
                lines[0] += f" {read[i]}"
            else:
                lines.append(str(read[i]))
        try:
            return lines, _answer(task, data.values, read)
        except ValueError:
            continue
    raise UnsuitableError


def draw_test(task: Task, rng: Random, count: int) -> tuple[str, str]:
    """Input and output of one test with at most about `count` items.

    Raises:
        UnsuitableError: no data fit the task.
    """
    low = -20 if task.signed else 0 if task.family.name.endswith("-zero") else 1
    scale = Scale(count, low, rng.choice((9, 20, 50)))
    if not task.cases:
        lines, answer = _draw_case(task, rng, scale)
        return "\n".join(lines) + "\n", answer + "\n"
    cases = [_draw_case(task, rng, scale) for _ in range(rng.randint(2, 3))]
    lines = [str(len(cases)), *(line for case in cases for line in case[0])]
    return "\n".join(lines) + "\n", "".join(answer + "\n" for _, answer in cases)


def draw_tests(task: Task, rng: Random, counts: Sequence[int]) -> list[tuple[str, str]]:
    """Tests of the given sizes, of which the first two differ in their answers.

    Raises:
        UnsuitableError: the answers are nearly always the same.
    """
    tests = [draw_test(task, rng, count) for count in counts]
    first = tests[0][1]
    other = next((i for i, test in enumerate(tests) if test[1] != first), None)
    if other is None or not first.strip():
        raise UnsuitableError
    tests[1], tests[other] = tests[other], tests[1]
    if task.guard is not None and sum(o.strip() == task.guard for _, o in tests) * 2 > len(tests):
        raise UnsuitableError
    return tests
