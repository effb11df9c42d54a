"""The input as contests describe it: where everything stands, with bounds."""

from random import Random

from hydragen_tiny.corpus.tasks import Task

SIZES = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)
HIGHS = (100, 500, 1000, 5000, 10000, 100000, 1000000)
LETTERS = ("k", "k", "k", "k", "w", "t", "d", "c", "q")
FITS = (
    "",
    "",
    "",
    " Some of the {v} may be equal.",
    " The {v} come in no special order.",
)


def letters_of(task: Task, rng: Random) -> tuple[str, str]:
    """What the parameters that are read are called in the statement."""
    letter = rng.choice(LETTERS) if task.family.kind in ("ints", "pairs", "words") else "k"
    return letter, rng.choice([name for name in ("c", "d", "k", "t") if name != letter])


def _bounds(name: str, low: int, high: int) -> str:
    return f"{low} <= {name} <= {high}"


def _head(task: Task, rng: Random, letters: tuple[str, str]) -> str:
    """What the first line holds, with bounds more often than not."""
    size = rng.choice(SIZES)
    least = rng.choice((1, 1, 1, 2)) if task.source.kind != "number" else 1
    names, bounds = "n", _bounds("n", least, size)
    read = [i for i in (task.reads, task.reads_too) if i is not None and task.k_follows_n]
    for i, letter in zip(read, letters, strict=False):
        names += f", {letter}"
        low = min((task.parts[i].k or (1, 1))[0], 1)
        bounds += f", {_bounds(letter, low, rng.choice((50, 100, 1000)))}"
    if read:
        names = " and ".join(names.rsplit(", ", 1))
    return f"{names} ({bounds})" if rng.random() < 0.75 else names


def formal_layout(task: Task, rng: Random, noun: str, letters: tuple[str, str], source: str) -> str:
    """The paragraph about the input.

    Args:
        task: what is read.
        rng: chooses bounds.
        noun: of the items.
        letters: of the parameters that are read.
        source: one of the source's formal descriptions.
    """
    low = -rng.choice((20, 50, 1000)) if task.signed else rng.choice((0, 1, 1))
    high = rng.choice(HIGHS)
    text = source.format(
        v=noun,
        head=_head(task, rng, letters),
        low=low,
        high=high,
        length=rng.choice(SIZES),
        columns=task.family.columns,
        size=rng.choice((20, 50, 100, 200)),
    )
    if task.reads is not None and not task.k_follows_n:
        letter = letters[0]
        bounds = f" ({_bounds(letter, 0, high)})" if rng.random() < 0.5 else ""
        where = rng.choice(
            (f"The last line contains {letter}", f"After that, a line holds {letter}")
        )
        text += f" {where}{bounds}."
    if task.source.kind == "ints" and not task.source.natural:
        text += rng.choice(FITS).format(v=noun)
    return text
