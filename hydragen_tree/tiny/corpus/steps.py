"""What may happen to a list of integers before the question is asked."""

from collections.abc import Callable
from math import isqrt

from hydragen_tree.tiny.corpus.parts import KRange, Step


def _keep(
    name: str,
    do: tuple[str, ...],
    test: str,
    holds: Callable[[int, int], bool],
    k: KRange | None = None,
    natural_only: bool = False,
) -> Step:
    """A filter of integers."""
    return Step(
        name,
        "ints",
        do,
        lambda a, k: [x for x in a if holds(x, k)],
        test=test,
        k=k,
        shrinks=True,
        natural_only=natural_only,
    )


def _each(
    name: str,
    do: tuple[str, ...],
    item: str,
    change: Callable[[int, int], int],
    k: KRange | None = None,
    natural_only: bool = False,
    signed: bool = False,
) -> Step:
    """A map of integers."""
    return Step(
        name,
        "ints",
        do,
        lambda a, k: [change(x, k) for x in a],
        item=item,
        k=k,
        natural_only=natural_only,
        signed=signed,
    )


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


def _is_prime(x: int, _: int) -> bool:
    return x > 1 and all(x % d for d in range(2, isqrt(x) + 1))


FILTERS = (
    _keep(
        "even",
        ("keep only the even {v}", "drop all odd {v}", "ignore the {v} that are odd"),
        "$x % 2 == 0",
        lambda x, k: not x & 1,
    ),
    _keep(
        "odd",
        ("keep only the odd {v}", "drop all even {v}", "ignore the {v} that are even"),
        "$x % 2 == 1",
        lambda x, k: bool(x & 1),
    ),
    _keep(
        "positive",
        ("keep only the positive {v}", "drop all {v} that are not positive"),
        "$x > 0",
        lambda x, k: x >= 1,
    ),
    _keep(
        "negative",
        ("keep only the negative {v}", "drop all {v} that are not below zero"),
        "$x < 0",
        lambda x, k: x <= -1,
    ),
    _keep(
        "above",
        (
            "keep only the {v} greater than {k}",
            "drop all {v} up to {k}",
            "ignore the {v} that are {k} or less",
        ),
        "$x > $k",
        lambda x, k: x - k > 0,
        k=(2, 20),
    ),
    _keep(
        "below",
        ("keep only the {v} less than {k}", "drop all {v} that are {k} or more"),
        "$x < $k",
        lambda x, k: x - k < 0,
        k=(5, 40),
    ),
    _keep(
        "at-least",
        ("keep only the {v} that are at least {k}", "drop all {v} smaller than {k}"),
        "$x >= $k",
        lambda x, k: not x < k,
        k=(2, 20),
    ),
    _keep(
        "multiples",
        ("keep only the {v} divisible by {k}", "keep only the multiples of {k}"),
        "$x % $k == 0",
        lambda x, k: x == x // k * k,
        k=(2, 5),
    ),
    _keep(
        "no-multiples",
        ("drop all {v} divisible by {k}", "drop all multiples of {k}"),
        "$x % $k != 0",
        lambda x, k: x != x // k * k,
        k=(2, 5),
    ),
    _keep(
        "not-equal",
        ("drop every {k}", "drop all {v} equal to {k}"),
        "$x != $k",
        lambda x, k: bool(x - k),
        k=(1, 9),
    ),
    _keep(
        "two-digit",
        ("keep only the {v} with two digits", "keep only the {v} from 10 to 99"),
        "10 <= $x <= 99",
        lambda x, k: x in range(10, 100),
    ),
    _keep(
        "ends-with",
        ("keep only the {v} whose last digit is {k}", "keep only the {v} that end in {k}"),
        "$x % 10 == $k",
        lambda x, k: str(x).endswith(str(k)),
        k=(0, 9),
        natural_only=True,
    ),
    _keep(
        "digit-sum-even",
        ("keep only the {v} with an even digit sum",),
        "sum(map(int, str($x))) % 2 == 0",
        lambda x, k: not sum(c in "13579" for c in str(x)) & 1,
        natural_only=True,
    ),
    _keep(
        "prime",
        ("keep only the prime {v}", "drop all {v} that are not prime"),
        "$x > 1 and all($x % d for d in range(2, $x))",
        _is_prime,
        natural_only=True,
    ),
    _keep(
        "square-number",
        ("keep only the perfect squares", "drop all but the square numbers"),
        "int($x ** 0.5) ** 2 == $x",
        lambda x, k: isqrt(x) ** 2 == x,
        natural_only=True,
    ),
    _keep(
        "palindromic",
        ("keep only the {v} that read the same backwards", "drop all {v} that are not palindromes"),
        "str($x) == str($x)[::-1]",
        lambda x, k: list(str(x)) == list(reversed(str(x))),
        natural_only=True,
    ),
    _keep(
        "power-of-two",
        ("keep only the powers of two",),
        "$x > 0 and $x & ($x - 1) == 0",
        lambda x, k: x in [2**i for i in range(40)],
        natural_only=True,
    ),
)

MAPS = (
    _each(
        "square",
        ("square each of the {v}", "replace each of the {v} by its square"),
        "$x * $x",
        lambda x, k: x**2,
    ),
    _each(
        "double",
        ("double each of the {v}", "multiply each of the {v} by two"),
        "2 * $x",
        lambda x, k: x + x,
    ),
    _each(
        "absolute",
        ("replace each of the {v} by its absolute value", "drop the minus sign of all {v}"),
        "abs($x)",
        lambda x, k: max(x, -x),
    ),
    _each(
        "negate",
        ("negate each of the {v}", "turn the sign of each of the {v}"),
        "-$x",
        lambda x, k: 0 - x,
        signed=True,
    ),
    _each(
        "digit-sum",
        ("replace each of the {v} by the sum of its digits", "replace all {v} by their digit sums"),
        "sum(map(int, str($x)))",
        lambda x, k: sum(int(c) for c in str(x)),
        natural_only=True,
    ),
    _each(
        "last-digit",
        (
            "replace each of the {v} by its last digit",
            "keep only the last digit of each of the {v}",
        ),
        "$x % 10",
        lambda x, k: int(str(x)[-1]),
        natural_only=True,
    ),
    _each(
        "modulo",
        ("replace each of the {v} by its remainder modulo {k}", "take all {v} modulo {k}"),
        "$x % $k",
        lambda x, k: x - x // k * k,
        k=(3, 9),
    ),
    _each(
        "add",
        ("add {k} to each of the {v}", "raise each of the {v} by {k}"),
        "$x + $k",
        lambda x, k: k + x,
        k=(1, 12),
    ),
    _each(
        "subtract",
        ("subtract {k} from each of the {v}", "lower each of the {v} by {k}"),
        "$x - $k",
        lambda x, k: -(k - x),
        k=(1, 12),
        signed=True,
    ),
    _each(
        "times",
        ("multiply each of the {v} by {k}", "replace all {v} by {k} times their value"),
        "$x * $k",
        lambda x, k: sum([x] * k),
        k=(3, 9),
    ),
    _each(
        "halve",
        ("halve each of the {v}, rounding down", "replace all {v} by half, rounded down"),
        "$x // 2",
        lambda x, k: x >> 1,
    ),
    _each(
        "divide",
        ("divide each of the {v} by {k}, rounding down",),
        "$x // $k",
        lambda x, k: divmod(x, k)[0],
        k=(2, 6),
    ),
    _each(
        "cube",
        ("cube each of the {v}", "replace each of the {v} by its cube"),
        "$x ** 3",
        lambda x, k: x * x * x,
    ),
    _each(
        "digit-count",
        ("replace each of the {v} by its number of digits",),
        "len(str($x))",
        lambda x, k: len(f"{x}"),
        natural_only=True,
    ),
    _each(
        "backwards",
        ("reverse the digits of each of the {v}", "write the digits of each of the {v} backwards"),
        "int(str($x)[::-1])",
        lambda x, k: int("".join(reversed(str(x)))),
        natural_only=True,
    ),
    _each(
        "one-bits",
        ("replace each of the {v} by the number of ones in its binary form",),
        'bin($x).count("1")',
        lambda x, k: x.bit_count(),
        natural_only=True,
    ),
    _each(
        "distance",
        (
            "replace each of the {v} by its distance to {k}",
            "replace each of the {v} x by |x - {k}|",
        ),
        "abs($x - $k)",
        lambda x, k: max(x - k, k - x),
        k=(3, 20),
    ),
    _each(
        "cap",
        ("replace all {v} above {k} by {k}", "lower all {v} greater than {k} to {k}"),
        "min($x, $k)",
        lambda x, k: x if x < k else k,
        k=(8, 30),
    ),
    _each(
        "floor",
        ("replace all {v} below {k} by {k}", "raise all {v} less than {k} to {k}"),
        "max($x, $k)",
        lambda x, k: k if x < k else x,
        k=(3, 15),
    ),
    _each(
        "halve-even",
        ("halve the even {v} and leave the others", "divide all even {v} by two"),
        "$x // 2 if $x % 2 == 0 else $x",
        lambda x, k: x if x & 1 else x // 2,
    ),
    _each(
        "collatz",
        ("halve the even {v} and replace each odd x by 3x + 1",),
        "$x // 2 if $x % 2 == 0 else 3 * $x + 1",
        lambda x, k: 3 * x + 1 if x & 1 else x // 2,
    ),
)


def _running(a: list[int], combine: Callable[[list[int]], int]) -> list[int]:
    return [combine(a[: i + 1]) for i in range(len(a))]


REARRANGEMENTS = (
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
        k=(1, 3),
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
        k=(1, 3),
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
        ("sort the {v} and drop the smallest and the largest",),
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

INT_STEPS = (*FILTERS, *MAPS, *REARRANGEMENTS)
