"""Families that ask a yes-or-no question about a list of integers."""

from itertools import combinations

from hydragen_tiny.corpus.families.build import family

check = family("ints", "bool")


def _reaches(a: list[int], k: int) -> bool:
    """Whether some choice of items has the sum k, over all choices; refuses long lists."""
    if len(a) > 12:
        raise ValueError
    return any(sum(c) == k for size in range(len(a) + 1) for c in combinations(a, size))


QUESTIONS = (
    check(
        "is-sorted",
        (
            "the {v} never decrease",
            "the list is in ascending order",
            "no item is below the previous",
        ),
        ("$a == sorted($a)", "all($a[i] <= $a[i + 1] for i in range(len($a) - 1))"),
        lambda a: not any(x > y for x, y in zip(a, a[1:], strict=False)),
        least=0,
    ),
    check(
        "has-repeats",
        ("some of the {v} occur more than once", "two of the {v} are equal"),
        (
            "len(set($a)) < len($a)",
            "seen = set()\n$r = False\nfor $x in $a:\n    if $x in seen:\n        $r = True\n"
            "    seen.add($x)",
        ),
        lambda a: any(x == y for x, y in combinations(a, 2)),
        least=0,
    ),
    check(
        "is-mirrored",
        ("the list reads the same backwards", "the list is a palindrome"),
        ("$a == $a[::-1]",),
        lambda a: all(a[i] == a[-1 - i] for i in range(len(a))),
        least=0,
    ),
    check(
        "contains",
        ("{k} is among the {v}", "the list contains {k}"),
        ("$k in $a", "$a.count($k) > 0"),
        lambda a, k: any(x == k for x in a),
        k=(1, 12),
        least=0,
    ),
    check(
        "all-above",
        ("all {v} are greater than {k}", "each of the {v} exceeds {k}"),
        ("all($x > $k for $x in $a)", "min($a) > $k"),
        lambda a, k: not [x for x in a if x <= k],
        k=(0, 9),
    ),
    check(
        "pair-with-sum",
        (
            "there is a pair of {e} that has exactly {k} {u} together",
            "two {e} have exactly {k} {u} together",
            "two items at different places add up to {k}",
            "there is a pair of {v} that makes exactly {k} together",
            "some two of the items sum to {k}",
        ),
        (
            "seen = set()\n$r = False\nfor $x in $a:\n    if $k - $x in seen:\n        $r = True\n"
            "    seen.add($x)",
            "any($a[i] + $a[j] == $k for i in range(len($a)) for j in range(i))",
        ),
        lambda a, k: any(x + y == k for x, y in combinations(a, 2)),
        k=(5, 30),
        least=0,
    ),
    check(
        "has-majority",
        ("one value makes up more than half of the list", "some value fills over half of the list"),
        ("any(2 * $a.count($x) > len($a) for $x in $a)",),
        lambda a: a.count(sorted(a)[len(a) // 2]) > len(a) / 2,
    ),
    check(
        "balanced-cut",
        (
            "the list can be cut into two parts, not empty, with equal sums",
            "a cut somewhere leaves equal sums on both sides",
        ),
        (
            "any(sum($a[:i]) == sum($a[i:]) for i in range(1, len($a)))",
            "left, right = 0, sum($a)\n$r = False\nfor $x in $a[:-1]:\n    left += $x\n"
            "    right -= $x\n    if left == right:\n        $r = True",
        ),
        lambda a: any(2 * sum(a[:i]) == sum(a) for i in range(1, len(a))),
    ),
    check(
        "subset-with-sum",
        ("some of the {v} add up to exactly {k}", "a choice of the {v} has the sum {k}"),
        (
            "sums = {0}\nfor $x in $a:\n    sums |= {s + $x for s in sums}\n$r = $k in sums",
            "sums = {0}\nfor $x in $a:\n    for s in list(sums):\n        sums.add(s + $x)\n"
            "$r = $k in sums",
        ),
        _reaches,
        k=(8, 40),
        least=0,
        natural_only=True,
    ),
    check(
        "zigzag",
        ("the {v} go up and down in turn, up first", "the list rises and falls alternately"),
        (
            "$r = True\nfor i in range(1, len($a)):\n    if i % 2 == 1 and $a[i] <= $a[i - 1]:\n"
            "        $r = False\n    if i % 2 == 0 and $a[i] >= $a[i - 1]:\n        $r = False",
        ),
        lambda a: all((a[i] > a[i - 1]) if i % 2 else (a[i] < a[i - 1]) for i in range(1, len(a))),
        least=0,
    ),
    check(
        "evenly-spaced",
        ("neighbours always differ by the same step", "the {v} form an arithmetic progression"),
        ("len(set($a[i] - $a[i - 1] for i in range(1, len($a)))) <= 1",),
        lambda a: all(a[i] - 2 * a[i + 1] + a[i + 2] == 0 for i in range(len(a) - 2)),
        least=0,
    ),
)
