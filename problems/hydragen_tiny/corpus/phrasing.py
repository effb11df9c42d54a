"""Task -> statement: bare, as a little story or as contests write it, in several manners."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from hydragen_tiny.corpus.finishes import YES_NO
from hydragen_tiny.corpus.formal import formal_layout, letters_of
from hydragen_tiny.corpus.scenes import (
    INT_STORIES,
    NAMES,
    NETS,
    PLAIN_NOUNS,
    SCENES,
    SHAPE_STORIES,
    SIGNED_NOUNS,
    SPELLS,
    TERMS,
)
from hydragen_tiny.corpus.tasks import Task

QUESTION_WORDS = ("how ", "what ", "which ", "where ", "who ", "in ")
TAKES_QUESTIONS = frozenset(
    {"Print {ask}.", "Report {ask}.", "Output {ask}.", "Print one integer: {ask}."}
)
BOUNDS = (" n is at most 100.", " 1 <= n <= 1000.", " n is not above 100000.")
STORY_SOURCES = frozenset({"count-line", "line", "count-lines", "commas"})
SEEKS = (
    "Find {ask}.",
    "Determine {ask}.",
    "What is {ask}?",
    "We look for {ask}.",
    "Compute {ask}.",
)
WONDERS = ("Is it true that {ask}?", "Find out whether {ask}.", "The question is whether {ask}.")
SHORT_ENDS = ("Print the answer.", "Print one integer, the answer.", "Output the answer.")
SYNONYMS = {
    "words": (("words", "names"), ("word", "name")),
    "text": (("characters", "letters"), ("character", "letter"), ("the text", "the word")),
    "matrix": (("cells", "entries"), ("cell", "entry")),
    "grid": (("cells", "squares"), ("cell", "square")),
    "pairs": (("pairs", "cards"), ("pair", "card")),
}
LONG_ENDS = ("Print {ask}.", "Print one integer: {ask}.", "Print one number: {ask}.")


@dataclass(frozen=True, slots=True)
class Words:
    """The nouns of one statement.

    Args:
        intro: the sentence that introduces the data.
        name: who does it, if somebody does.
        nouns: what stands for the fields of phrases.
        scene: the story has owners and a unit for the items.
        kinds: the items are names, not amounts.
    """

    intro: str
    name: str | None
    nouns: dict[str, str]
    scene: bool = False
    kinds: bool = False


def _choose(rng: Random, options: Sequence[str], unseen: bool) -> str:
    """One of the phrasings; of three or more the last is kept out of training."""
    if len(options) < 3:
        return rng.choice(options)
    return options[-1] if unseen else rng.choice(options[:-1])


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?!" else text + "."


def _third_person(phrase: str) -> str:
    verb, _, rest = phrase.partition(" ")
    verb = "multiplie" if verb == "multiply" else verb
    return f"{verb}s {rest}"


def _steps_text(rng: Random, phrases: list[str], name: str | None) -> str:
    """The steps in one of five manners."""
    manner = rng.choice(("sentences", "chain", "numbered", "and", "told" if name else "sentences"))
    if manner == "chain" and len(phrases) > 1:
        return f"First {phrases[0]}" + "".join(f", then {p}" for p in phrases[1:]) + "."
    if manner == "and" and len(phrases) == 2:
        return _sentence(" and ".join(phrases))
    if manner == "numbered" and len(phrases) > 1:
        return "Do this:\n" + "\n".join(f"{i}. {p}" for i, p in enumerate(phrases, 1)) + "\n"
    if manner == "told":
        told = [_third_person(p) for p in phrases]
        return f"{name} {told[0]}." + "".join(f" Then {name} {p}." for p in told[1:])
    return " ".join(_sentence(p) for p in phrases)


def _layout(task: Task, rng: Random, noun: str, letters: tuple[str, str], unseen: bool) -> str:
    if task.source.formal and not task.cases and not unseen and rng.random() < 0.4:
        return formal_layout(task, rng, noun, letters, rng.choice(task.source.formal))
    text = _choose(rng, task.source.layout, unseen).format(v=noun)
    if task.source.counted and rng.random() < 0.25:
        fitting = BOUNDS[1:] if task.source.kind == "number" else BOUNDS
        text += rng.choice(fitting)
    if task.reads is not None:
        letter, other = letters
        if task.reads_too is not None:
            text += rng.choice(
                (
                    f" {letter} and {other} follow n on the first line.",
                    f" The first line also holds {letter} and {other}.",
                )
            )
        elif task.k_follows_n:
            text += rng.choice(
                (
                    f" {letter} follows n on the first line.",
                    f" The first line also holds {letter}.",
                )
            )
        else:
            text += rng.choice(
                (f" The last line holds {letter}.", f" After that comes a line with {letter}.")
            )
    if task.cases:
        text = (
            rng.choice(
                (
                    "The first line holds t, the number of cases. For each case: ",
                    "There are t cases; t is on the first line. Each case: ",
                )
            )
            + text
            + rng.choice((" Answer every case on a new line.", " Print an answer for each case."))
        )
    return text


def _int_story(task: Task, rng: Random, unseen: bool, name: str) -> Words | None:
    """A story of a list of integers, if one fits."""
    if unseen or task.signed or rng.random() < 0.4:
        stories = INT_STORIES[-2:] if unseen else INT_STORIES[:-2]
        fitting = [s for s in stories if s[1] in SIGNED_NOUNS or not task.signed]
        intro, noun = rng.choice(fitting)
        return Words(intro.format(name=name), name, {"v": noun})
    scene = rng.choice(SCENES)
    many = f"n {scene.owners}" if task.source.counted else f"some {scene.owners}"
    intro = _sentence(rng.choice(scene.tells).format(name=name, ne=many))
    joins = rng.choice(scene.relatives)
    nouns = {"v": scene.items, "e": scene.owners, "u": scene.unit, "r": joins}
    teller = name if name in intro else None
    return Words(intro, teller, nouns, scene=True, kinds=scene.kinds)


def _words(task: Task, rng: Random, unseen: bool) -> Words:
    """What the statement tells of."""
    noun = rng.choice(PLAIN_NOUNS)
    if task.family.intros and rng.random() < 0.6:
        intro = rng.choice(task.family.intros).format(v=noun)
        plain = task.source.name in STORY_SOURCES or task.family.kind != "ints"
        if not plain or rng.random() < 0.3:
            intro = f"{_choose(rng, task.source.gives, unseen).format(v=noun)} {intro}"
        return Words(intro, None, {"v": noun})
    if task.family.kind == "graph" and rng.random() < 0.6:
        node, edge, intro = rng.choice(NETS)
        return Words(intro, None, {"v": noun, "node": node, "edge": edge})
    if rng.random() < 0.5:
        name = _choose(rng, NAMES, unseen)
        story = None
        if task.source.name in STORY_SOURCES:
            story = _int_story(task, rng, unseen, name)
        elif task.family.kind in SHAPE_STORIES:
            intro = rng.choice(SHAPE_STORIES[task.family.kind]).format(name=name)
            story = Words(intro, name, {"v": noun})
        if story is not None:
            return story
    return Words(_choose(rng, task.source.gives, unseen).format(v=noun), None, {"v": noun})


def _fitting(options: Sequence[str], words: Words) -> tuple[str, ...]:
    """The phrases whose nouns the story has."""

    def fits(phrase: str) -> bool:
        if "{u}" in phrase:
            return words.scene and not words.kinds
        return words.scene or "{e}" not in phrase

    return tuple(filter(fits, options))


def _guard(task: Task, rng: Random) -> str:
    """What is said of too few items, if anything."""
    if task.guard is not None:
        template = rng.choice(("If nothing is left, print {}.", "Print {} if nothing remains."))
        return " " + template.format(task.guard)
    if (task.family.least > 0 and task.shrinks) or task.family.least > 2:
        least = ("one", "two", "three")[task.family.least - 1]
        return f" At least {least} of them will be {'left' if task.steps else 'there'}."
    return ""


def _yes_no_end(task: Task, rng: Random, ask: str) -> str:
    yes, no = YES_NO[int(task.finish.name.rpartition("-")[2])]
    if " pair " in ask and rng.random() < 0.5:
        return f"Print {yes} if such a pair exists, and {no} if not."
    return rng.choice(
        (f"Print {yes} if {ask}, and {no} if not.", f"Print {yes} if so, and {no} if not.")
    )


def statement(task: Task, rng: Random, unseen: bool = False) -> str:
    """A statement of the task.

    Args:
        task: what to state.
        rng: chooses the words.
        unseen: use the phrasings that are kept out of training wherever there are some.

    Returns:
        the text, without samples.
    """
    words = _words(task, rng, unseen)
    letters = letters_of(task, rng)
    depth = len(task.steps)
    pool = SPELLS if "run" in task.family.name else TERMS
    nouns = {"node": "node", "edge": "edge", "term": rng.choice(pool), **words.nouns}

    def phrase(options: Sequence[str], index: int, **more: str) -> str:
        read = {task.reads: letters[0], task.reads_too: letters[1]}
        k = read.get(index, str(task.constants[index]))
        return _choose(rng, options, unseen).format(k=k, **nouns, **more)

    definition, asks = "", _fitting(task.family.ask, words)
    if task.family.defined and not unseen and rng.random() < 0.5:
        pairs = [pair for pair in task.family.defined if _fitting(pair[:1], words)]
        if pairs:
            defined, ask = rng.choice(pairs)
            definition, asks = phrase((defined,), depth) + " ", (ask,)
    steps = [phrase(_fitting(step.do, words), i) for i, step in enumerate(task.steps)]
    body = words.intro + (" " + _steps_text(rng, steps, words.name) if steps else "")
    if steps and task.family.kind == "moves" and rng.random() < 0.4:
        body += " Then let the robot go."
    says = _choose(rng, task.finish.says, unseen)
    plain = [a for a in asks if not a.startswith(QUESTION_WORDS)] or list(asks)

    def ask_in(template: str) -> str:
        ask = phrase(asks if template in TAKES_QUESTIONS else plain, depth)
        return _sentence(phrase((template,), depth + 1, ask=ask))

    layout = _layout(task, rng, nouns["v"], letters, unseen)
    if unseen or not task.finish.is_plain or task.cases or rng.random() < 0.5:
        told = f"{body} {definition}{ask_in(says)}{_guard(task, rng)}".replace("\n ", "\n")
        text = rng.choice((f"{told}\n{layout}", f"{told} {layout}", f"{told}\n\n{layout}"))
    else:
        text = _contest(task, rng, f"{body} {definition}".rstrip(" "), layout, ask_in)
    if not unseen and rng.random() < 0.25:
        for usual, other in SYNONYMS.get(task.family.kind, ()):
            text = re.sub(rf"\b{usual}\b", other, text)
    return text


def _contest(task: Task, rng: Random, body: str, layout: str, ask_in: Callable[[str], str]) -> str:
    """Three paragraphs: what it is about, the input, the output."""
    if task.family.result == "bool":
        clause = ask_in("{ask}")[:-1]
        clause = clause[0].lower() + clause[1:]
        question = rng.choice(WONDERS).format(ask=clause)
        if clause.startswith("there is ") and rng.random() < 0.7:
            question = f"Is there {clause.removeprefix('there is ')}?"
        end = _yes_no_end(task, rng, clause)
    elif task.family.result == "int":
        question = ask_in(rng.choice(SEEKS)) if rng.random() < 0.7 else ""
        if question.startswith("Find the number of ") or rng.random() < 0.3:
            question = question.replace("Find the number of ", "Count the ")
        short = question and rng.random() < 0.4
        end = rng.choice(SHORT_ENDS) if short else ask_in(rng.choice(LONG_ENDS))
    else:
        question, end = "", ask_in(rng.choice(task.finish.says[:2]))
    text = f"{body} {question}".replace("\n ", "\n").rstrip()
    return f"{text}\n\n{layout}\n\n{end}{_guard(task, rng)}"
