"""The corpus of the tiny model: every program does what its parts' specs say, in plain English."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hydragen_tiny.corpus.documents import Exercise, draw_document, draw_exercise
from hydragen_tiny.corpus.families import FAMILIES, HELD_OUT_FAMILIES
from hydragen_tiny.corpus.finishes import FINISHES
from hydragen_tiny.corpus.scenes import INT_STORIES, NAMES
from hydragen_tiny.corpus.styles import Style
from hydragen_tiny.corpus.tasks import RESERVED, SOURCES, STEPS, Split, is_held_out
from hydragen_tiny.running import solve_all, solves
from hydragen_tree.problem.reading import load_problem, problem_from_document
from hydragen_tree.prompt.prompts import build_prompts

PROBLEMS = Path(__file__).parents[2] / "problems"
SIZES = (6, 6, 2, 4, 8, 10)
BROKEN = re.compile(
    r"[{}$]|  |\b1 (items|places|letters|characters|neighbours|edges)\b|\b[123]-th\b|multiplys"
    r"|\b(\w+) \2\b|[?!,][.?!,]|[a-z)]\.\.(?!\.)"
)


def check(exercises: Sequence[Exercise]) -> None:
    """Runs all programs; names those that fail."""
    verdicts = solve_all([(e.solution, e.tests) for e in exercises], workers=2)
    wrong = [e for e, right in zip(exercises, verdicts, strict=True) if not right]
    assert not wrong, "\n\n".join(f"{e.task.composition}\n{e.block()}" for e in wrong[:3])


@pytest.fixture(scope="module")
def drawn() -> list[Exercise]:
    """Exercises of all splits."""
    rng = Random("exercises")
    return [draw_exercise(rng, split, counts=SIZES) for split in Split for _ in range(160)]


def test_issue_asks_for_many_families() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 80
    assert {family.name for family in FAMILIES} > HELD_OUT_FAMILIES
    assert len({step.name for step in STEPS}) == len(STEPS)


def test_programs_of_every_family_are_right() -> None:
    rng = Random("families")
    split = {True: Split.FAMILIES, False: Split.TRAIN}
    check(
        [
            draw_exercise(rng, split[f.name in HELD_OUT_FAMILIES], family=f, counts=SIZES)
            for f in FAMILIES
        ]
    )


def test_programs_with_every_step_source_and_finish_are_right() -> None:
    missing = {part.name for parts in (STEPS, SOURCES, FINISHES) for part in parts}
    rng, chosen = Random("parts"), []
    while missing:
        exercise = draw_exercise(rng, Split.TRAIN, counts=SIZES)
        task = exercise.task
        names = {task.source.name, task.finish.name, *(step.name for step in task.steps)}
        if names & missing:
            chosen.append(exercise)
            missing -= names
    check(chosen)


def test_programs_of_every_style_are_right() -> None:
    rng = Random("styles")
    habits = product(
        ("flat", "main", "solve"), ("input", "readline", "whole"), (0.0, 0.6), range(8)
    )
    check(
        [
            draw_exercise(rng, Split.TRAIN, style=Style(*h[:3], names=h[3]), counts=SIZES)
            for h in habits
        ]
    )


def test_programs_of_every_split_are_right(drawn: list[Exercise]) -> None:
    check(drawn[::4])


def test_statements_are_plain_english(drawn: list[Exercise]) -> None:
    broken = [e.statement for e in drawn if BROKEN.search(e.statement)]
    assert not broken, broken[:3]


def test_weights_and_prices_are_never_negative(drawn: list[Exercise]) -> None:
    for exercise in drawn:
        if re.search("their weights|the prices|heights of the plants", exercise.statement):
            assert not exercise.task.signed


def test_training_never_shows_what_is_held_out() -> None:
    rng = Random("training")
    names = {family.name for family in FAMILIES if family.name in HELD_OUT_FAMILIES}
    unseen = [story.format(name=name) for story, _ in INT_STORIES[-2:] for name in NAMES]
    longest = 0
    for _ in range(300):
        exercise = draw_exercise(rng, Split.TRAIN)
        longest = max(longest, len(exercise.task.steps))
        assert exercise.task.family.name not in names
        assert not is_held_out(exercise.task)
        assert NAMES[-1] not in exercise.statement
        assert not any(story in exercise.statement for story in unseen)
    assert longest == 3


def test_what_shipped_problems_ask_is_held_out() -> None:
    """Their questions, or where a question has many relatives, its pair with their step."""
    asked = {
        "below-average": "count-below-mean",
        "bridge-tolls": "nearest-leaf",
        "cellar-rooms": "areas-and-largest-of-free",
        "dry-spell": "run-zero",
        "low-rows": "largest-jump",
        "mirror-moves": "highest-place",
        "odd-detour": "worst-run",
        "signpost": "spaces-rjust-longest",
        "sushi-belt": "round-few-kinds",
    }
    pairs = {
        "bunting": ("cut-pieces", "shorten"),
        "calm-days": ("count-at-most", "absolute"),
        "cheap-goods": ("list-itself", "sort-down"),
        "clock-digits": ("distinct", "palindromic"),
        "even-squares": ("sum", "square"),
        "long-words": ("first-word", "words-longer"),
        "nesting-boxes": ("box-chain", "pairs-turn"),
        "print-queue": ("weighted-ends", "pairs-by-ratio"),
        "steady-climb": ("rising-subsequence", "swap-neighbours"),
        "way-home": ("home-distance", "int-parity"),
    }
    assert {*asked, *pairs} <= {path.stem for path in PROBLEMS.glob("*.yaml")}
    assert HELD_OUT_FAMILIES.issuperset(asked.values())
    assert RESERVED.issuperset(pairs.values())
    known = {part.name for parts in (FAMILIES, STEPS, FINISHES) for part in parts}
    assert known.issuperset({*asked.values(), *(name for pair in RESERVED for name in pair)})


def test_splits_are_what_they_say(drawn: list[Exercise]) -> None:
    by_split = {split: drawn[i * 160 : (i + 1) * 160] for i, split in enumerate(Split)}
    assert all(is_held_out(e.task) for e in by_split[Split.COMPOSITIONS])
    assert all(len(e.task.steps) >= 3 for e in by_split[Split.LONGER])
    assert all(e.task.family.name in HELD_OUT_FAMILIES for e in by_split[Split.FAMILIES])


def test_documents_depend_on_the_seed_alone() -> None:
    assert [draw_document(Random(3)) for _ in range(2)] == [draw_document(Random(3))] * 2
    assert draw_document(Random(3)) != draw_document(Random(4))


def test_format_is_the_products() -> None:
    """A product's prompt of two examples is the text the model was trained on."""
    rng = Random("format")
    shots = [draw_exercise(rng, Split.TRAIN) for _ in range(2)]
    asked = draw_exercise(rng, Split.TRAIN)
    body = [
        {
            "statement": e.statement,
            "tests": [
                {"input": given, "output": expected, "sample": i < e.samples}
                for i, (given, expected) in enumerate(e.tests)
            ],
            "solution": e.solution,
        }
        for e in (*shots, asked)
    ]
    examples = [{"id": name, **example} for name, example in zip("ab", body, strict=False)]
    few_shot = {"pool": examples, "shots": 2, "variants": [["a", "b"]]}
    document = {"id": "asked", "title": "Asked", **body[-1], "few_shot": few_shot}
    [prompt] = build_prompts([problem_from_document(document, "test")], byte_tokenizer())
    expected = [shots[0].block(), shots[1].block(), asked.block(solved=False)]
    assert prompt.text == "\n\n".join(expected)


def test_shipped_examples_are_right() -> None:
    pool = load_problem(PROBLEMS / "even-squares.yaml").examples
    assert len(pool) >= 12
    for example in pool:
        assert solves(example.solution, [(test.input, test.output) for test in example.tests])


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
