"""Task -> statement: bare or as a little story, in several manners."""

from collections.abc import Sequence
from random import Random

from hydragen_tiny.corpus.tasks import Task

NAMES = ("Mira", "Tom", "Ada", "Jonas", "Lena", "Ravi", "Nora", "Emil", "Yuki", "Omar", "Ines")
INT_STORIES = (
    ("{name} weighs parcels and writes down their weights.", "weights"),
    ("{name} notes the scores of a game.", "scores"),
    ("{name} measures the heights of the plants in a garden.", "heights"),
    ("A shop lists the prices of its goods, and {name} reads them.", "prices"),
    ("{name} keeps a record of the daily temperatures.", "temperatures"),
    ("{name} has cards with numbers on them.", "numbers"),
    ("{name} finds numbers on the doors of a street.", "numbers"),
    ("{name} writes down how many minutes each lesson takes.", "times"),
    ("{name} counts the birds at a lake day by day.", "counts"),
    ("A machine reports its readings to {name}.", "readings"),
    ("{name} pulls numbered balls out of a bag.", "numbers"),
)
SHAPE_STORIES = {
    "text": ("{name} finds a note with one line of text.", "A parrot tells {name} a line of text."),
    "words": ("{name} collects words.", "{name} reads the words on the signs of a street."),
    "texts": ("{name} and a friend each write down a word: s and t.",),
    "pairs": ("{name} writes down n pairs of numbers x and y.",),
    "intervals": ("{name} plans n meetings, each from time x to time y.",),
    "matrix": ("{name} fills a table with integers.",),
    "number": ("{name} thinks of a number n.", "{name} finds the number n on a ticket."),
    "numbers": ("{name} rolls two numbers x and y.",),
    "lists": ("{name} and a friend have equally long lists of numbers, a and b.",),
}
PLAIN_NOUNS = ("integers", "numbers", "values")
SIGNED_NOUNS = frozenset({"scores", "temperatures", "numbers", "readings"})
QUESTION_WORDS = ("how ", "what ", "which ", "where ", "who ", "in ")
TAKES_QUESTIONS = frozenset({"Print {ask}.", "Report {ask}.", "Output {ask}."})
BOUNDS = (" n is at most 100.", " 1 <= n <= 1000.", " n is not above 100000.")
STORY_SOURCES = frozenset({"count-line", "line", "count-lines", "commas"})


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
    """The steps in one of four manners."""
    manner = rng.choice(("sentences", "chain", "numbered", "told" if name else "sentences"))
    if manner == "chain" and len(phrases) > 1:
        return f"First {phrases[0]}" + "".join(f", then {p}" for p in phrases[1:]) + "."
    if manner == "numbered" and len(phrases) > 1:
        return "Do this:\n" + "\n".join(f"{i}. {p}" for i, p in enumerate(phrases, 1)) + "\n"
    if manner == "told":
        told = [_third_person(p) for p in phrases]
        return f"{name} {told[0]}." + "".join(f" Then {name} {p}." for p in told[1:])
    return " ".join(_sentence(p) for p in phrases)


def _layout(task: Task, rng: Random, noun: str, unseen: bool) -> str:
    text = _choose(rng, task.source.layout, unseen).format(v=noun)
    if task.source.counted and rng.random() < 0.25:
        fitting = BOUNDS[1:] if task.source.kind == "number" else BOUNDS
        text += rng.choice(fitting)
    if task.reads is not None:
        if task.k_follows_n:
            text += rng.choice((" k follows n on the first line.", " The first line also holds k."))
        else:
            text += rng.choice((" The last line holds k.", " After that comes a line with k."))
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


def statement(task: Task, rng: Random, unseen: bool = False) -> str:
    """A statement of the task.

    Args:
        task: what to state.
        rng: chooses the words.
        unseen: use the phrasings that are kept out of training wherever there are some.

    Returns:
        the text, without samples.
    """
    name, noun = None, rng.choice(PLAIN_NOUNS)
    intro = _choose(rng, task.source.gives, unseen)
    if rng.random() < 0.4:
        name = _choose(rng, NAMES, unseen)
        if task.source.name in STORY_SOURCES:
            stories = INT_STORIES[-2:] if unseen else INT_STORIES[:-2]
            fitting = [s for s in stories if s[1] in SIGNED_NOUNS or not task.signed]
            intro, noun = rng.choice(fitting)
        elif task.family.kind in SHAPE_STORIES:
            intro = rng.choice(SHAPE_STORIES[task.family.kind])
        else:
            name = None
    intro = intro.format(v=noun, name=name)

    def phrase(options: Sequence[str], index: int, **words: str) -> str:
        k = "k" if index == task.reads else str(task.constants[index])
        return _choose(rng, options, unseen).format(v=noun, k=k, **words)

    depth = len(task.steps)
    steps = [phrase(step.do, i) for i, step in enumerate(task.steps)]
    says = _choose(rng, task.finish.says, unseen)
    asks = task.family.ask
    if says not in TAKES_QUESTIONS:
        asks = tuple(a for a in asks if not a.startswith(QUESTION_WORDS)) or asks
    ask = phrase(asks, depth)
    body = [intro]
    if steps:
        body.append(_steps_text(rng, steps, name))
    body.append(_sentence(phrase((says,), depth + 1, ask=ask)))
    if task.guard is not None:
        template = rng.choice(("If nothing is left, print {}.", "Print {} if nothing remains."))
        body.append(template.format(task.guard))
    elif (task.family.least > 0 and task.shrinks) or task.family.least > 2:
        least = ("one", "two", "three")[task.family.least - 1]
        body.append(f"At least {least} of them will be {'left' if steps else 'there'}.")
    text = " ".join(body).replace("\n ", "\n")
    layout = _layout(task, rng, noun, unseen)
    return rng.choice((f"{text}\n{layout}", f"{text} {layout}", f"{text}\n\n{layout}"))
