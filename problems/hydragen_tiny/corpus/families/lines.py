"""Families that print a list of words line by line, in columns and frames."""

from collections.abc import Callable

from hydragen_tiny.corpus.families.build import family
from hydragen_tiny.corpus.parts import Family

lines = family("words", "lines")
INTROS = (
    "A notice lists the names of rivers, one below the other.",
    "A menu names the dishes of the day.",
    "On a wall stand the names of the players.",
)
FILLS = (("dots", "."), ("stars", "*"), ("hyphens", "-"), ("spaces", " "))
SIDES = (("in front of", "rjust"), ("behind", "ljust"))
WIDTHS = (
    ("it is as long as the longest word", "width", "width = max(len($u) for $u in $w)\n"),
    ("it has {k} characters (longer ones stay)", "$k", ""),
)


def _aligned() -> list[Family]:
    built = []
    for fill, mark in FILLS:
        for side, method in SIDES:
            for number, (goal, width, before) in enumerate(WIDTHS):
                if mark == " " and method == "ljust":
                    continue

                def spec(
                    w: list[str],
                    k: int = 0,
                    mark: str = mark,
                    right: bool = method == "rjust",
                ) -> list[str]:
                    longest = k or max(map(len, w))
                    fills = [mark * (longest - len(u)) for u in w]
                    return [f + u if right else u + f for f, u in zip(fills, w, strict=True)]

                call = f"$u.{method}({width}" + ("" if mark == " " else f', "{mark}"') + ")"
                built.append(
                    lines(
                        f"{fill}-{method}-{'longest' if number == 0 else 'k'}",
                        (
                            f"every word with {fill} put {side} it until {goal}",
                            f"the words in the given order, each with {fill} {side} it until {goal}",
                        ),
                        (
                            f"{before}$r = [{call} for $u in $w]"
                            if before
                            else f"[{call} for $u in $w]",
                            f"{before}$r = []\nfor $u in $w:\n    $r.append({call})",
                        ),
                        spec,
                        k=(6, 12) if number else None,
                        intros=INTROS,
                        weight=0.5,
                    )
                )
    return built


def _simple(
    name: str, asks: tuple[str, ...], item: str, change: Callable[[int, str], str]
) -> Family:
    return lines(
        name,
        asks,
        (
            f"[{item} for i, $u in enumerate($w, 1)]",
            f"$r = []\nfor i, $u in enumerate($w, 1):\n    $r.append({item})",
        ),
        lambda w: [change(i, u) for i, u in enumerate(w, 1)],
        intros=INTROS,
    )


LINES = (
    *_aligned(),
    _simple(
        "numbered",
        ("the words with their numbers 1, 2, ... and a space in front",),
        'f"{i} {$u}"',
        lambda i, u: str(i) + " " + u,
    ),
    _simple(
        "measured",
        ("each word, a space and its number of letters",),
        'f"{$u} {len($u)}"',
        lambda i, u: u + " " + str(len(u)),
    ),
    _simple(
        "starred",
        ("each word between two stars",),
        '"*" + $u + "*"',
        lambda i, u: f"*{u}*",
    ),
    _simple(
        "stepped",
        ("each word with one more dot in front than the word before, the first with one",),
        '"." * i + $u',
        lambda i, u: u.rjust(len(u) + i, "."),
    ),
)
