"""Families that turn a list of integers, or two, into a list."""

from collections import Counter

from hydragen_tiny.corpus.families.build import family

listing = family("ints", "list")
rows = family("ints", "rows")
both = family("lists", "int")
both_check = family("lists", "bool")
both_list = family("lists", "list")

SEQUENCES = (
    listing(
        "list-itself",
        ("the {v}", "the resulting list", "the {v} that remain"),
        ("$a",),
        lambda a: a,
    ),
    listing(
        "list-sorted",
        ("the {v} in ascending order", "the sorted {v}", "the {v} from smallest to largest"),
        (
            "sorted($a)",
            "for i in range(len($a)):\n    for j in range(i):\n        if $a[j] > $a[i]:\n"
            "            $a[i], $a[j] = $a[j], $a[i]\n$r = $a",
        ),
        lambda a: [x for x in sorted(set(a)) for _ in range(a.count(x))],
    ),
    listing(
        "list-ranks",
        (
            "the rank of each item (1 for the largest, equal items share a rank)",
            "for each item one more than the number of greater items",
        ),
        (
            "[1 + sum($y > $x for $y in $a) for $x in $a]",
            "order = sorted($a, reverse=True)\n$r = [order.index($x) + 1 for $x in $a]",
        ),
        lambda a: [len([y for y in a if y > x]) + 1 for x in a],
    ),
    listing(
        "next-greater",
        (
            "for each item the next greater item to its right (-1 if there is none)",
            "the first greater item after each item, or -1",
        ),
        (
            "$r = []\nfor i in range(len($a)):\n    found = -1\n    for j in range(i + 1, len($a)):\n"
            "        if $a[j] > $a[i]:\n            found = $a[j]\n            break\n"
            "    $r.append(found)",
            "[next(($y for $y in $a[i:] if $y > $a[i]), -1) for i in range(len($a))]",
        ),
        lambda a: [([y for y in a[i:] if y > x] or [-1])[0] for i, x in enumerate(a)],
    ),
    listing(
        "count-smaller",
        ("for each item how many items are smaller", "the number of smaller items for each item"),
        ("[sum($y < $x for $y in $a) for $x in $a]",),
        lambda a: [sorted(a).index(x) for x in a],
    ),
    listing(
        "even-then-odd",
        ("first the even and then the odd {v}, each in their order",),
        (
            "[$x for $x in $a if $x % 2 == 0] + [$x for $x in $a if $x % 2 == 1]",
            "sorted($a, key=lambda $x: $x % 2)",
        ),
        lambda a: [x for bit in (0, 1) for x in a if x & 1 == bit],
    ),
    listing(
        "from-both-ends",
        (
            "the {v} taken in turn from the front and the back",
            "the {v} from the outside in (first, last, second, last but one, ...)",
        ),
        (
            "$r = []\nwhile $a:\n    $r.append($a.pop(0))\n    if $a:\n        $r.append($a.pop())",
            "$r = []\ni, j = 0, len($a) - 1\nwhile i <= j:\n    $r.append($a[i])\n    if i < j:\n"
            "        $r.append($a[j])\n    i += 1\n    j -= 1",
        ),
        lambda a: [a[i // 2] if i % 2 == 0 else a[-1 - i // 2] for i in range(len(a))],
    ),
    listing(
        "positions-of-largest",
        ("all positions (from 1) of the largest item", "the places (from 1) where the maximum is"),
        ("[i + 1 for i in range(len($a)) if $a[i] == max($a)]",),
        lambda a: [i for i, x in enumerate(a, 1) if x == sorted(a)[-1]],
    ),
    rows(
        "frequency-table",
        (
            "each different item with its number of occurrences, in ascending order",
            "a table of the different items in ascending order and how often each occurs",
        ),
        (
            "[($x, $a.count($x)) for $x in sorted(set($a))]",
            "counts = {}\nfor $x in $a:\n    counts[$x] = counts.get($x, 0) + 1\n"
            "$r = sorted(counts.items())",
        ),
        lambda a: sorted(Counter(a).items()),
    ),
    rows(
        "run-table",
        ("each run of equal neighbours as item and length", "the run-length code (item, length)"),
        (
            "$r = []\nfor $x in $a:\n    if $r and $r[-1][0] == $x:\n        $r[-1][1] += 1\n"
            "    else:\n        $r.append([$x, 1])",
        ),
        lambda a: [
            (x, next((n for n in range(1, len(a) - i) if a[i + n] != x), len(a) - i))
            for i, x in enumerate(a)
            if i == 0 or a[i - 1] != x
        ],
    ),
    rows(
        "chunks",
        ("the {v} in rows of {k} (the last may be shorter)", "the list cut into rows of {k} items"),
        ("[$a[i:i + $k] for i in range(0, len($a), $k)]",),
        lambda a, k: [[x for j, x in enumerate(a) if j // k == i] for i in range(-(-len(a) // k))],
        k=(2, 4),
    ),
    both(
        "dot-product",
        ("the sum of the products of items in equal places", "the dot product of a and b"),
        (
            "sum($x * $y for $x, $y in zip($a, $b))",
            "$r = 0\nfor i in range(len($a)):\n    $r += $a[i] * $b[i]",
        ),
        lambda a, b: sum(a[i] * b[i] for i in range(len(a))),
    ),
    both(
        "places-equal",
        (
            "the number of places in which a and b agree",
            "how often a and b have equal items in place",
        ),
        (
            "sum($x == $y for $x, $y in zip($a, $b))",
            "$r = 0\nfor i in range(len($a)):\n    if $a[i] == $b[i]:\n        $r += 1",
        ),
        lambda a, b: len([i for i in range(len(a)) if a[i] == b[i]]),
    ),
    both(
        "common-count",
        ("how many different numbers are in both lists", "the size of the intersection of a and b"),
        ("len(set($a) & set($b))", "len([$x for $x in set($a) if $x in $b])"),
        lambda a, b: sum(b.count(x) > 0 for x in set(a)),
    ),
    both(
        "list-distance",
        ("the sum of the distances of items in equal places",),
        ("sum(abs($x - $y) for $x, $y in zip($a, $b))",),
        lambda a, b: sum(max(a[i], b[i]) - min(a[i], b[i]) for i in range(len(a))),
    ),
    both(
        "duel-wins",
        ("in how many places a is greater than b", "the number of rounds that a wins against b"),
        ("sum($x > $y for $x, $y in zip($a, $b))",),
        lambda a, b: len([i for i in range(len(a)) if b[i] < a[i]]),
    ),
    both_check(
        "same-items",
        ("a and b hold the same items in some order", "b is a rearrangement of a"),
        ("sorted($a) == sorted($b)",),
        lambda a, b: Counter(a) == Counter(b),
    ),
    both_list(
        "merged",
        ("all items of both lists in ascending order", "the sorted union of a and b with repeats"),
        (
            "sorted($a + $b)",
            "$r = []\n$a.sort()\n$b.sort()\nwhile $a or $b:\n"
            "    if not $b or $a and $a[0] <= $b[0]:\n        $r.append($a.pop(0))\n"
            "    else:\n        $r.append($b.pop(0))",
        ),
        lambda a, b: sorted([*b, *a]),
    ),
    both_list(
        "interleaved",
        ("the items of a and b in turn (a first)", "the lists interleaved, a first"),
        (
            "[$z for pair in zip($a, $b) for $z in pair]",
            "$r = []\nfor i in range(len($a)):\n    $r.append($a[i])\n    $r.append($b[i])",
        ),
        lambda a, b: [(a, b)[i % 2][i // 2] for i in range(2 * len(a))],
    ),
    both_list(
        "only-in-first",
        ("the items of a that are not in b", "what is in a but not in b, in order"),
        ("[$x for $x in $a if $x not in $b]",),
        lambda a, b: [x for x in a if b.count(x) == 0],
    ),
)
