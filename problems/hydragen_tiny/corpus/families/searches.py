"""Families on a list of integers whose answer is found by halving a range of answers."""

from itertools import count

from hydragen_tiny.corpus.families.build import family

value = family("ints", "int")

CUTS = (
    "Equal pieces are to be cut from n ropes; pieces cannot be tied together.",
    "From planks of different lengths equal boards are to be sawn.",
)


def _halving(test: str, low: str, high: str, down: bool) -> str:
    """Program text that halves [low, high] for the last (down: the first) number that passes."""
    middle = "(low + high) // 2" if down else "(low + high + 1) // 2"
    yes, no = ("high = mid", "low = mid + 1") if down else ("low = mid", "high = mid - 1")
    return (
        f"low, high = {low}, {high}\nwhile low < high:\n    mid = {middle}\n    if {test}:\n"
        f"        {yes}\n    else:\n        {no}\n$r = low"
    )


def _small(a: list[int]) -> list[int]:
    """The items, if they are few enough to try all numbers up to the largest."""
    if max(a) > 2000:
        raise ValueError
    return a


def _least_speed(a: list[int], k: int) -> int:
    if min(_small(a)) < 1 or len(a) > k:
        raise ValueError
    return next(n for n in count(1) if sum(x // n + (x % n > 0) for x in a) <= k)


SEARCHED = (
    value(
        "cut-pieces",
        (
            "the largest whole length of which {k} pieces can be cut from ribbons of these lengths",
            "how long {k} equal pieces, cut from these {v}, can be at most (a whole number, or 0)",
            "the greatest number L so that the {v} hold L at least {k} times in all (0 if none does)",
        ),
        (_halving("sum($x // mid for $x in $a) >= $k", "0", "max($a)", down=False),),
        lambda a, k: max(
            [0] + [n for n in range(1, max(_small(a)) + 1) if sum(divmod(x, n)[0] for x in a) >= k]
        ),
        k=(2, 9),
        natural_only=True,
        intros=CUTS,
        weight=1.5,
    ),
    value(
        "least-speed",
        (
            "the smallest whole number s so that the {v}, each divided by s and rounded up, have a "
            "sum of at most {k}",
            "the least daily amount with which all {v}, one after another and at most one a day, "
            "are done within {k} days",
        ),
        (_halving("sum(-(-$x // mid) for $x in $a) <= $k", "1", "max($a)", down=True),),
        _least_speed,
        k=(12, 30),
        natural_only=True,
    ),
    value(
        "most-for-all",
        (
            "the largest whole number s so that the {v}, those above s lowered to s, have a sum of "
            "at most {k} (0 if there is none)",
        ),
        (_halving("sum(min($x, mid) for $x in $a) <= $k", "0", "max($a)", down=False),),
        lambda a, k: max(
            n for n in range(max(_small(a)) + 1) if sum(x if x < n else n for x in a) <= k
        ),
        k=(15, 60),
        natural_only=True,
    ),
)
