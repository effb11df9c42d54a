"""Families that turn a list of integers into one number."""

from collections import Counter
from functools import reduce
from math import gcd, prod

from hydragen_tiny.corpus.families.build import family

value = family("ints", "int")

REDUCTIONS = (
    value(
        "sum",
        ("the sum of the {v}", "the total of all {v}", "what the {v} add up to"),
        ("sum($a)", "total = 0\nfor $x in $a:\n    total += $x\n$r = total"),
        lambda a: sum(a),
        fold=("0", "$r += $x"),
        least=0,
    ),
    value(
        "count",
        ("the number of {v}", "how many {v} there are"),
        ("len($a)",),
        lambda a: sum(1 for _ in a),
        fold=("0", "$r += 1"),
        least=0,
    ),
    value(
        "maximum",
        ("the largest of the {v}", "the maximum of the {v}", "the greatest of all {v}"),
        ("max($a)", "best = $a[0]\nfor $x in $a:\n    if $x > best:\n        best = $x\n$r = best"),
        lambda a: sorted(a)[-1],
    ),
    value(
        "minimum",
        ("the smallest of the {v}", "the minimum of the {v}"),
        ("min($a)", "best = $a[0]\nfor $x in $a:\n    if $x < best:\n        best = $x\n$r = best"),
        lambda a: sorted(a)[0],
    ),
    value(
        "spread",
        (
            "the difference between the largest and the smallest of the {v}",
            "how far apart the largest and the smallest of the {v} are",
        ),
        ("max($a) - min($a)", "$a = sorted($a)\n$r = $a[-1] - $a[0]"),
        lambda a: max(x - y for x in a for y in a),
    ),
    value(
        "product",
        ("the product of the {v} modulo 1000", "the last three digits of the product as a number"),
        ("$r = 1\nfor $x in $a:\n    $r = $r * $x % 1000",),
        lambda a: prod(a) % 1000,
        least=0,
        natural_only=True,
    ),
    value(
        "mean",
        ("the mean of the {v}, rounded down", "the average of the {v}, rounded down"),
        ("sum($a) // len($a)",),
        lambda a: divmod(sum(a), len(a))[0],
    ),
    value(
        "median",
        ("the lower median of the {v}", "the middle one of the sorted {v} (the lower of two)"),
        ("sorted($a)[(len($a) - 1) // 2]", "$a.sort()\n$r = $a[(len($a) - 1) // 2]"),
        lambda a: next(
            x
            for x in sorted(a)
            if sum(y <= x for y in a) * 2 >= len(a) and sum(y < x for y in a) * 2 < len(a)
        ),
    ),
    value(
        "mode",
        (
            "the most frequent of the {v} (the smallest if several are)",
            "which of the {v} occurs most often (the smallest in a tie)",
        ),
        (
            "min($a, key=lambda $x: (-$a.count($x), $x))",
            "best = None\nfor $x in sorted($a):\n"
            "    if best is None or $a.count($x) > $a.count(best):\n        best = $x\n$r = best",
        ),
        lambda a: sorted(Counter(a).items(), key=lambda e: (-e[1], e[0]))[0][0],
    ),
    value(
        "distinct",
        ("the number of different {v}", "how many different {v} there are"),
        ("len(set($a))", "seen = set()\nfor $x in $a:\n    seen.add($x)\n$r = len(seen)"),
        lambda a: len(Counter(a)),
        least=0,
    ),
    value(
        "gcd",
        ("the greatest common divisor of the {v}", "the largest number that divides all {v}"),
        (
            "g = 0\nfor $x in $a:\n    while $x:\n        g, $x = $x, g % $x\n$r = g",
            "import math\n$r = 0\nfor $x in $a:\n    $r = math.gcd($r, $x)",
        ),
        lambda a: reduce(gcd, a),
        natural_only=True,
    ),
    value(
        "xor",
        ("the bitwise exclusive or of the {v}", "the xor of all {v}"),
        ("$r = 0\nfor $x in $a:\n    $r ^= $x",),
        lambda a: reduce(lambda x, y: x ^ y, a, 0),
        fold=("0", "$r ^= $x"),
        least=0,
        natural_only=True,
    ),
    value(
        "argmax",
        (
            "the position (from 1) of the first largest item",
            "where the maximum first stands (from 1)",
        ),
        ("$a.index(max($a)) + 1",),
        lambda a: next(i for i, x in enumerate(a, 1) if all(x >= y for y in a)),
    ),
    value(
        "argmin",
        (
            "the position (from 1) of the last smallest item",
            "where the minimum last stands (from 1)",
        ),
        (
            "low = min($a)\nfor i in range(len($a)):\n    if $a[i] == low:\n        $r = i + 1",
            "max(i for i in range(len($a)) if $a[i] == min($a)) + 1",
        ),
        lambda a: len(a) - a[::-1].index(min(a)),
    ),
    value(
        "second-largest",
        ("the second largest item (equal items count twice)", "the largest item but one"),
        ("sorted($a)[-2]", "$a.sort()\n$r = $a[-2]"),
        lambda a: max(min(a[i], a[j]) for i in range(len(a)) for j in range(i)),
        least=2,
    ),
    value(
        "kth-smallest",
        (
            "the item number {k} in ascending order",
            "the item at place {k} (from 1) of the sorted list",
        ),
        ("sorted($a)[$k - 1]", "$a.sort()\n$r = $a[$k - 1]"),
        lambda a, k: next(x for x in sorted(a) if sum(y <= x for y in a) >= k),
        k=(1, 3),
        least=3,
    ),
    value(
        "top-sum",
        ("the sum of the {k} largest items", "what the {k} largest items add up to"),
        ("sum(sorted($a)[-$k:])", "sum(sorted($a, reverse=True)[:$k])"),
        lambda a, k: sum(sorted(a, key=lambda x: -x)[i] for i in range(min(k, len(a)))),
        k=(2, 4),
    ),
    value(
        "occurrences",
        ("how often {k} occurs", "the number of times {k} occurs"),
        ("$a.count($k)", "$r = 0\nfor $x in $a:\n    if $x == $k:\n        $r += 1"),
        lambda a, k: sum(x == k for x in a),
        k=(1, 9),
        least=0,
    ),
    value(
        "longest-equal-run",
        ("the length of the longest run of equal neighbours", "how long the longest equal run is"),
        (
            "best = cur = 1\nfor i in range(1, len($a)):\n"
            "    cur = cur + 1 if $a[i] == $a[i - 1] else 1\n    best = max(best, cur)\n$r = best",
        ),
        lambda a: max(
            j - i for i in range(len(a)) for j in range(i + 1, len(a) + 1) if len(set(a[i:j])) == 1
        ),
    ),
    value(
        "longest-rising-run",
        (
            "the length of the longest run of neighbours that rise strictly",
            "how long the longest strictly rising stretch is",
        ),
        (
            "best = cur = 1\nfor i in range(1, len($a)):\n    if $a[i] > $a[i - 1]:\n"
            "        cur += 1\n    else:\n        cur = 1\n    best = max(best, cur)\n$r = best",
        ),
        lambda a: max(
            j - i
            for i in range(len(a))
            for j in range(i + 1, len(a) + 1)
            if all(a[t] < a[t + 1] for t in range(i, j - 1))
        ),
    ),
    value(
        "alternating-sum",
        ("the alternating sum (first minus second plus third and so on)",),
        (
            "sum($a[::2]) - sum($a[1::2])",
            "$r = 0\nfor i in range(len($a)):\n    if i % 2 == 0:\n        $r += $a[i]\n"
            "    else:\n        $r -= $a[i]",
        ),
        lambda a: sum(x * (-1) ** i for i, x in enumerate(a)),
        least=0,
    ),
    value(
        "travel",
        (
            "the sum of the distances between neighbours",
            "how far one walks from the first item to the last, item by item",
        ),
        (
            "sum(abs($a[i] - $a[i - 1]) for i in range(1, len($a)))",
            "$r = 0\nfor i in range(1, len($a)):\n    $r += abs($a[i] - $a[i - 1])",
        ),
        lambda a: sum(max(x, y) - min(x, y) for x, y in zip(a, a[1:], strict=False)),
        least=0,
    ),
    value(
        "largest-jump",
        ("the largest distance between neighbours", "the biggest change from one item to the next"),
        ("max(abs($a[i] - $a[i - 1]) for i in range(1, len($a)))",),
        lambda a: sorted(abs(x - y) for x, y in zip(a, a[1:], strict=False))[-1],
        least=2,
    ),
    value(
        "peaks",
        ("the number of items greater than both neighbours", "how many inner items are peaks"),
        (
            "$r = 0\nfor i in range(1, len($a) - 1):\n"
            "    if $a[i] > $a[i - 1] and $a[i] > $a[i + 1]:\n        $r += 1",
            "sum($a[i - 1] < $a[i] > $a[i + 1] for i in range(1, len($a) - 1))",
        ),
        lambda a: sum(max(x, z) < y for x, y, z in zip(a, a[1:], a[2:], strict=False)),
        least=0,
    ),
    value(
        "records",
        (
            "the number of items greater than all before them (the first one counts)",
            "how many records there are (items above all earlier ones, the first included)",
        ),
        (
            "$r = 0\nbest = None\nfor $x in $a:\n    if best is None or $x > best:\n"
            "        best = $x\n        $r += 1",
            "sum(all($y < $a[i] for $y in $a[:i]) for i in range(len($a)))",
        ),
        lambda a: len({max(a[: i + 1]) for i in range(len(a))}),
        least=0,
    ),
    value(
        "missing",
        (
            "the smallest positive integer that is not in the list",
            "the least missing positive integer",
        ),
        ("$r = 1\nwhile $r in $a:\n    $r += 1",),
        lambda a: min(set(range(1, len(a) + 2)) - set(a)),
        least=0,
    ),
    value(
        "rises",
        ("the number of items greater than the one before", "how often the {v} go up"),
        (
            "sum($x < $y for $x, $y in zip($a, $a[1:]))",
            "$r = 0\nfor i in range(1, len($a)):\n    if $a[i] > $a[i - 1]:\n        $r += 1",
        ),
        lambda a: sum(a[i] < a[i + 1] for i in range(len(a) - 1)),
        least=0,
    ),
)
