"""Steps on lists of integers that look at one item at a time: filters and maps."""

from collections.abc import Callable
from math import isqrt

from hydragen_tiny.corpus.parts import KRange, Step


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
        "shorten",
        (
            "shorten each of the {v} by {k}, those that are less to 0",
            "take {k} away from each of the {v}, but leave 0 where it is less than that",
        ),
        "max(0, $x - $k)",
        lambda x, k: x - k if x > k else 0,
        k=(2, 9),
    ),
    _each(
        "halve-even",
        ("halve the even {v}, leaving the others", "divide all even {v} by two"),
        "$x // 2 if $x % 2 == 0 else $x",
        lambda x, k: x if x & 1 else x // 2,
    ),
    _each(
        "collatz",
        ("halve the even {v}, replacing each odd x by 3x + 1",),
        "$x // 2 if $x % 2 == 0 else 3 * $x + 1",
        lambda x, k: 3 * x + 1 if x & 1 else x // 2,
    ),
)

ITEM_STEPS = (*FILTERS, *MAPS)
