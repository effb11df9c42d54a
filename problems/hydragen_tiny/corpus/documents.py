"""Tasks -> few-shot documents in the plain template."""

from dataclasses import dataclass
from random import Random

from hydragen_tiny.corpus.families import FAMILIES, HELD_OUT_FAMILIES
from hydragen_tiny.corpus.parts import Family
from hydragen_tiny.corpus.phrasing import statement
from hydragen_tiny.corpus.styles import Style, draw_style, program
from hydragen_tiny.corpus.tasks import Split, Task, UnsuitableError, draw_task, draw_tests
from hydragen_tree.prompt.template import render_block

SAMPLE_COUNT = 6
HIDDEN_COUNTS = (2, 4, 6, 8, 10, 12, 12, 3, 7)


@dataclass(frozen=True, slots=True)
class Exercise:
    """A task put into words, with tests and a program that solves it.

    Args:
        task: the composition.
        statement: the problem's text.
        tests: (input, output) pairs.
        samples: how many of the tests are shown, 1 or 2.
        solution: the program.
    """

    task: Task
    statement: str
    tests: tuple[tuple[str, str], ...]
    samples: int
    solution: str

    def block(self, solved: bool = True) -> str:
        """The block of the plain template, with its solution or open."""
        return render_block(
            self.statement, self.tests[: self.samples], self.solution if solved else None
        )


def draw_exercise(
    rng: Random,
    split: Split,
    *,
    style: Style | None = None,
    family: Family | None = None,
    counts: tuple[int, ...] = (SAMPLE_COUNT,) * 5,
) -> Exercise:
    """A random exercise of the split.

    Args:
        rng: all choices.
        split: what the composition may be.
        style: the author's habits; random if none.
        family: the question; random if none.
        counts: about how many items each test has at the most.
    """
    while True:
        unseen = split is Split.PHRASINGS
        task = draw_task(rng, split, family)
        try:
            tests = draw_tests(task, rng, counts)
        except UnsuitableError:
            continue
        return Exercise(
            task,
            statement(task, rng, unseen),
            tuple(tests),
            rng.choice((1, 2, 2)),
            program(task, style or draw_style(rng), rng),
        )


def draw_document(rng: Random) -> tuple[str, list[str]]:
    """A training document.

    Returns:
        the text: one to five solved blocks joined by empty lines; the compositions in it.
    """
    style = draw_style(rng) if rng.random() < 0.6 else None
    kinds = {family.kind for family in FAMILIES}
    kind = rng.choice(sorted(kinds)) if rng.random() < 0.25 else None
    exercises: list[Exercise] = []
    for _ in range(rng.choices((1, 2, 3, 4, 5), weights=(10, 15, 45, 20, 10))[0]):
        family = None
        if kind is not None:
            family = rng.choice([f for f in trained_families() if f.kind == kind])
        exercises.append(draw_exercise(rng, Split.TRAIN, style=style, family=family))
    text = "\n\n".join(exercise.block() for exercise in exercises)
    return text, [exercise.task.composition for exercise in exercises]


def trained_families() -> list[Family]:
    """The families that the training corpus shows."""
    return [family for family in FAMILIES if family.name not in HELD_OUT_FAMILIES]
