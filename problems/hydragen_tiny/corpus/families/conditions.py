"""Families that ask of the items of a list that meet a condition: every question with every one."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from hydragen_tiny.corpus.families.build import family
from hydragen_tiny.corpus.parts import Family, KRange

value = family("ints", "int")
WEIGHT = 0.35


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked of an item.

    Args:
        name: unique name.
        told: the items that meet it, in the plural; with `{e}` where a story has owners,
            and `{r}` for what joins them to an amount.
        test: program text about `$x`.
        holds: (item, list, k) -> whether it is met.
        before: program text that must stand before the loop.
        k: range of the parameter, if there is one.
    """

    name: str
    told: tuple[str, ...]
    test: str
    holds: Callable[[int, list[int], int], bool]
    before: str = ""
    k: KRange | None = None


CONDITIONS = (
    Condition("zero", ("{e} {r} 0 {u}", "zeros"), "$x == 0", lambda x, a, k: not x),
    Condition("even", ("even {v}",), "$x % 2 == 0", lambda x, a, k: not x & 1),
    Condition("odd", ("odd {v}",), "$x % 2 == 1", lambda x, a, k: bool(x & 1)),
    Condition(
        "above",
        ("{e} {r} more than {k} {u}", "{v} greater than {k}", "{v} above {k}"),
        "$x > $k",
        lambda x, a, k: x - k > 0,
        k=(3, 20),
    ),
    Condition(
        "below",
        ("{e} {r} fewer than {k} {u}", "{v} less than {k}", "{v} below {k}"),
        "$x < $k",
        lambda x, a, k: x - k < 0,
        k=(4, 25),
    ),
    Condition(
        "at-most",
        ("{e} {r} at most {k} {u}", "{v} that are at most {k}", "{v} not above {k}"),
        "$x <= $k",
        lambda x, a, k: not x > k,
        k=(3, 20),
    ),
    Condition(
        "at-least",
        ("{e} {r} at least {k} {u}", "{v} that are at least {k}", "{v} not below {k}"),
        "$x >= $k",
        lambda x, a, k: not x < k,
        k=(3, 20),
    ),
    Condition(
        "exactly",
        ("{e} {r} exactly {k} {u}", "{v} equal to {k}"),
        "$x == $k",
        lambda x, a, k: not x - k,
        k=(1, 9),
    ),
    Condition(
        "multiple",
        ("{v} divisible by {k}", "multiples of {k}"),
        "$x % $k == 0",
        lambda x, a, k: x == x // k * k,
        k=(2, 5),
    ),
    Condition(
        "above-mean",
        (
            "{e} {r} more {u} than the average of all {e}",
            "{v} greater than the average of all {v}",
            "{v} above the average",
        ),
        "$x > mean",
        lambda x, a, k: x > sum(a) / len(a),
        before="mean = sum($a) / len($a)\n",
    ),
    Condition(
        "below-mean",
        (
            "{e} {r} fewer {u} than the average of all {e}",
            "{v} less than the average of all {v}",
            "{v} below the average",
        ),
        "$x * len($a) < total",
        lambda x, a, k: x < sum(a) / len(a),
        before="total = sum($a)\n",
    ),
    Condition(
        "like-first",
        ("{e} {r} as many {u} as the first", "{v} equal to the first one"),
        "$x == first",
        lambda x, a, k: x == a[0],
        before="first = $a[0]\n",
    ),
    Condition(
        "above-last",
        ("{e} {r} more {u} than the last", "{v} greater than the last one"),
        "$x > last",
        lambda x, a, k: x > a[-1],
        before="last = $a[-1]\n",
    ),
)


def _longest(flags: list[bool]) -> int:
    return max([0] + [len(list(run)) for flag, run in groupby(flags) if flag])


def _questions(c: Condition) -> tuple[Family, ...]:
    """All questions about one condition."""

    def build(
        name: str,
        asks: tuple[str, ...],
        code: tuple[str, ...],
        answer: Callable[[list[int], list[bool]], int],
        defined: tuple[tuple[str, str], ...] = (),
    ) -> Family:
        told = tuple(ask.replace("{P}", p) for p in c.told for ask in asks)
        meanings = tuple((d.replace("{P}", p), ask) for p in c.told for d, ask in defined)
        with_k = {} if c.k is None else {"k": c.k}

        def spec(a: list[int], k: int = 0) -> int:
            return answer(a, [c.holds(x, a, k) for x in a])

        texts = [text.replace("{T}", c.test) for text in code]
        if c.before:
            texts = [c.before + (t if "\n" in t else f"$r = {t}") for t in texts]
        return value(
            f"{name}-{c.name}", told, tuple(texts), spec, defined=meanings, weight=WEIGHT, **with_k
        )

    return (
        build(
            "count",
            ("the number of {P}", "how many {P} there are"),
            (
                "sum({T} for $x in $a)",
                "len([$x for $x in $a if {T}])",
                "$r = 0\nfor $x in $a:\n    if {T}:\n        $r += 1",
            ),
            lambda a, flags: flags.count(True),
            (("Call the {P} {term}.", "the number of {term} ones"),),
        ),
        build(
            "run",
            (
                "the length of the longest run of {P}",
                "the largest number of {P} in a row",
                "how many {P} follow each other at most",
            ),
            (
                "best = run = 0\nfor $x in $a:\n    if {T}:\n        run += 1\n"
                "        best = max(best, run)\n    else:\n        run = 0\n$r = best",
                "best = run = 0\nfor $x in $a:\n    run = run + 1 if {T} else 0\n"
                "    best = max(best, run)\n$r = best",
            ),
            lambda a, flags: _longest(flags),
            (
                ("A {term} is a run of consecutive {P}.", "the length of the longest {term}"),
                ("Neighbouring {P} make a {term}.", "the number of items in the longest {term}"),
            ),
        ),
        build(
            "runs",
            ("the number of runs of {P}", "into how many runs the {P} fall"),
            (
                "$r = 0\ninside = False\nfor $x in $a:\n    if {T} and not inside:\n"
                "        $r += 1\n    inside = {T}",
            ),
            lambda a, flags: sum(flag for flag, _ in groupby(flags)),
            (("A {term} is a run of consecutive {P}.", "the number of {term}s"),),
        ),
        build(
            "first",
            ("the position (from 1) of the first of the {P} (0 if there are none)",),
            (
                "next((i for i, $x in enumerate($a, 1) if {T}), 0)",
                "$r = 0\nfor i in range(len($a)):\n    $x = $a[i]\n    if {T}:\n"
                "        $r = i + 1\n        break",
            ),
            lambda a, flags: flags.index(True) + 1 if any(flags) else 0,
        ),
        build(
            "total",
            ("the sum of the {P}", "what the {P} add up to"),
            (
                "sum($x for $x in $a if {T})",
                "$r = 0\nfor $x in $a:\n    if {T}:\n        $r += $x",
            ),
            lambda a, flags: sum(x for x, flag in zip(a, flags, strict=True) if flag),
        ),
    )


NEGLIGIBLE = frozenset({"total-zero", "total-exactly"})
ASKED = tuple(f for c in CONDITIONS for f in _questions(c) if f.name not in NEGLIGIBLE)
