"""Steps that change a list of integers as a whole."""

from collections.abc import Callable

from hydragen_tiny.corpus.parts import KRange, Step


def _whole(
    name: str,
    do: tuple[str, ...],
    code: tuple[str, ...],
    change: Callable[[list[int], int], list[int]],
    k: KRange | None = None,
    shrinks: bool = False,
    signed: bool = False,
    needs_items: bool = False,
) -> Step:
    """A change of the list as a whole."""
    return Step(
        name,
        "ints",
        do,
        change,
        code=code,
        k=k,
        shrinks=shrinks,
        signed=signed,
        needs_items=needs_items,
    )


def _running(a: list[int], combine: Callable[[list[int]], int]) -> list[int]:
    return [combine(a[: i + 1]) for i in range(len(a))]


LIST_STEPS = (
    _whole(
        "sort",
        ("sort the {v} in ascending order", "sort the {v} from smallest to largest"),
        ("$a.sort()", "$a = sorted($a)"),
        lambda a, k: sorted(a),
    ),
    _whole(
        "sort-down",
        ("sort the {v} in descending order", "sort the {v} from largest to smallest"),
        ("$a.sort(reverse=True)", "$a = sorted($a, reverse=True)"),
        lambda a, k: sorted(a)[::-1],
    ),
    _whole(
        "reverse",
        ("reverse the order of the {v}", "turn the list around"),
        ("$a = $a[::-1]", "$a.reverse()"),
        lambda a, k: list(reversed(a)),
    ),
    _whole(
        "sort-absolute",
        ("sort the {v} by absolute value, keeping the order of ties",),
        ("$a = sorted($a, key=abs)", "$a.sort(key=abs)"),
        lambda a, k: sorted(a, key=lambda x: x * x),
    ),
    _whole(
        "sort-last-digit",
        ("sort the {v} by their remainder modulo 10, keeping ties in order",),
        ("$a = sorted($a, key=lambda $x: $x % 10)", "$a.sort(key=lambda $x: $x % 10)"),
        lambda a, k: [x for r in range(10) for x in a if x % 10 == r],
    ),
    _whole(
        "differences",
        (
            "replace the list by the differences of neighbours (next minus previous)",
            "take the differences between each item and the one before it",
        ),
        (
            "$a = [$a[i + 1] - $a[i] for i in range(len($a) - 1)]",
            "$a = [$y - $x for $x, $y in zip($a, $a[1:])]",
        ),
        lambda a, k: [a[i] - a[i - 1] for i in range(1, len(a))],
        shrinks=True,
        signed=True,
    ),
    _whole(
        "neighbour-sums",
        (
            "replace the list by the sums of neighbours",
            "add each item to the next one, which leaves one item fewer",
        ),
        (
            "$a = [$a[i] + $a[i + 1] for i in range(len($a) - 1)]",
            "$a = [$x + $y for $x, $y in zip($a, $a[1:])]",
        ),
        lambda a, k: [a[i] + a[i - 1] for i in range(1, len(a))],
        shrinks=True,
    ),
    _whole(
        "prefix-sums",
        (
            "replace the list by its prefix sums",
            "replace each item by the sum of all items up to it",
        ),
        (
            "for i in range(1, len($a)):\n    $a[i] += $a[i - 1]",
            "$a = [sum($a[:i + 1]) for i in range(len($a))]",
        ),
        lambda a, k: _running(a, sum),
    ),
    _whole(
        "prefix-maxima",
        (
            "replace each item by the largest item up to it",
            "replace the list by its running maximum",
        ),
        (
            "for i in range(1, len($a)):\n    $a[i] = max($a[i], $a[i - 1])",
            "$a = [max($a[:i + 1]) for i in range(len($a))]",
        ),
        lambda a, k: _running(a, max),
    ),
    _whole(
        "rotate",
        ("rotate the list left by {k} places", "move the first {k} items to the end"),
        (
            "$a = $a[$k % len($a):] + $a[:$k % len($a)]",
            "for _ in range($k):\n    $a.append($a.pop(0))",
        ),
        lambda a, k: [a[(i + k) % len(a)] for i in range(len(a))],
        k=(2, 3),
        needs_items=True,
    ),
    _whole(
        "first-k",
        ("keep only the first {k} items", "take the first {k} of the {v}"),
        ("$a = $a[:$k]",),
        lambda a, k: [x for i, x in enumerate(a) if i < k],
        k=(2, 5),
        shrinks=True,
    ),
    _whole(
        "skip-k",
        ("drop the first {k} items", "remove the first {k} of the {v}"),
        ("$a = $a[$k:]",),
        lambda a, k: [x for i, x in enumerate(a) if i >= k],
        k=(2, 3),
        shrinks=True,
    ),
    _whole(
        "every-second",
        (
            "keep only the items at odd positions (the first, third, ...)",
            "take every second item, beginning with the first",
        ),
        ("$a = $a[::2]", "$a = [$a[i] for i in range(0, len($a), 2)]"),
        lambda a, k: [x for i, x in enumerate(a) if not i & 1],
        shrinks=True,
    ),
    _whole(
        "even-positions",
        (
            "keep only the items at even positions (the second, fourth, ...)",
            "take every second item, beginning with the second",
        ),
        ("$a = $a[1::2]", "$a = [$a[i] for i in range(1, len($a), 2)]"),
        lambda a, k: [x for i, x in enumerate(a) if i & 1],
        shrinks=True,
    ),
    _whole(
        "unique",
        ("keep only the first of equal {v}", "drop repeated {v}"),
        (
            "$a = list(dict.fromkeys($a))",
            "kept = []\nfor $x in $a:\n    if $x not in kept:\n        kept.append($x)\n$a = kept",
        ),
        lambda a, k: [x for i, x in enumerate(a) if x not in a[:i]],
        shrinks=True,
    ),
    _whole(
        "unique-sorted",
        ("keep one of each of the {v}, sorted in ascending order",),
        ("$a = sorted(set($a))",),
        lambda a, k: [x for i, x in enumerate(sorted(a)) if x not in sorted(a)[:i]],
        shrinks=True,
    ),
    _whole(
        "squeeze",
        ("drop each item that equals the one before it", "remove repeats of neighbours"),
        (
            "$a = [$x for i, $x in enumerate($a) if i == 0 or $x != $a[i - 1]]",
            "kept = []\nfor $x in $a:\n    if not kept or kept[-1] != $x:\n"
            "        kept.append($x)\n$a = kept",
        ),
        lambda a, k: a[:1] + [y for x, y in zip(a, a[1:], strict=False) if x != y],
        shrinks=True,
    ),
    _whole(
        "once-only",
        ("keep only the {v} that occur exactly once", "drop all {v} that occur more than once"),
        ("$a = [$x for $x in $a if $a.count($x) == 1]",),
        lambda a, k: [x for i, x in enumerate(a) if x not in a[:i] + a[i + 1 :]],
        shrinks=True,
    ),
    _whole(
        "above-mean",
        ("keep only the {v} greater than the mean",),
        ("$a = [$x for $x in $a if $x * len($a) > sum($a)]",),
        lambda a, k: [x for x in a if x > sum(a) / len(a)],
        shrinks=True,
    ),
    _whole(
        "rising",
        ("keep only the items greater than the one before them",),
        (
            "$a = [$y for $x, $y in zip($a, $a[1:]) if $y > $x]",
            "$a = [$a[i] for i in range(1, len($a)) if $a[i] > $a[i - 1]]",
        ),
        lambda a, k: [a[i] for i in range(len(a)) if i and a[i] > a[i - 1]],
        shrinks=True,
    ),
    _whole(
        "weigh",
        (
            "multiply each item by its position (from 1)",
            "multiply the first item by 1, the second by 2 and so on",
        ),
        (
            "$a = [i * $x for i, $x in enumerate($a, 1)]",
            "$a = [$a[i] * (i + 1) for i in range(len($a))]",
        ),
        lambda a, k: [x * (i + 1) for i, x in enumerate(a)],
    ),
    _whole(
        "drop-extremes",
        ("sort the {v}, leaving out the smallest and the largest",),
        ("$a = sorted($a)[1:-1]",),
        lambda a, k: sorted(a)[1 : len(a) - 1],
        shrinks=True,
    ),
    _whole(
        "swap-neighbours",
        ("swap each two neighbours (first and second, third and fourth, ...)",),
        ("for i in range(0, len($a) - 1, 2):\n    $a[i], $a[i + 1] = $a[i + 1], $a[i]",),
        lambda a, k: [a[j] if (j := i ^ 1) < len(a) else a[i] for i in range(len(a))],
    ),
)
