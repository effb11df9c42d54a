"""Families on pairs of integers and on intervals."""

from hydragen_tiny.corpus.families.build import family

value = family("pairs", "int")
rows = family("pairs", "rows")
span_value = family("intervals", "int")
span_check = family("intervals", "bool")
span_rows = family("intervals", "rows")

Pairs = list[tuple[int, int]]


def _covered(p: Pairs) -> list[int]:
    """The unit steps covered by at least one interval."""
    return sorted({t for x, y in p for t in range(x, y)})


def _most_disjoint(p: Pairs) -> int:
    best = {0: 0}  # time -> most intervals that end by then
    for x, y in sorted(p, key=lambda q: (q[1], q[0])):
        best[y] = max([best.get(y, 0)] + [n + 1 for t, n in best.items() if t <= x])
    return max(best.values())


def _merged(p: Pairs) -> Pairs:
    """Joins any two that touch until none do."""
    spans = sorted(set(p))
    for i, (x, y) in enumerate(spans):
        for j, (u, v) in enumerate(spans):
            if i != j and x <= v and u <= y:
                rest = [q for t, q in enumerate(spans) if t not in (i, j)]
                return _merged([*rest, (min(x, u), max(y, v))])
    return spans


PAIRS = (
    value(
        "pair-count",
        ("the number of pairs", "how many pairs there are"),
        ("len($p)",),
        lambda p: sum(1 for _ in p),
        fold=("0", "$r += 1"),
        least=0,
    ),
    value(
        "sum-of-products",
        ("the sum of the products x * y", "what the products x * y add up to"),
        (
            "sum($x * $y for $x, $y in $p)",
            "$r = 0\nfor $x, $y in $p:\n    $r += $x * $y",
        ),
        lambda p: sum(q[0] * q[1] for q in p),
        fold=("0", "$r += $x * $y"),
        least=0,
    ),
    value(
        "largest-pair-sum",
        ("the largest sum x + y", "the maximum of x + y over the pairs"),
        ("max($x + $y for $x, $y in $p)", "max(map(sum, $p))"),
        lambda p: sorted(sum(q) for q in p)[-1],
    ),
    value(
        "sum-of-larger",
        ("the sum of the larger number of each pair",),
        ("sum(max($x, $y) for $x, $y in $p)", "sum(map(max, $p))"),
        lambda p: sum(x if x > y else y for x, y in p),
        fold=("0", "$r += max($x, $y)"),
        least=0,
    ),
    value(
        "bounding-box",
        ("the area of the smallest upright box around the points (x, y)",),
        (
            "xs = [q[0] for q in $p]\nys = [q[1] for q in $p]\n"
            "$r = (max(xs) - min(xs)) * (max(ys) - min(ys))",
        ),
        lambda p: (
            max(abs(x - u) for x, _ in p for u, _ in p)
            * max(abs(y - v) for _, y in p for _, v in p)
        ),
    ),
    value(
        "undominated",
        ("the number of pairs that no other pair exceeds in both x and y",),
        ("sum(not any(u > $x and v > $y for u, v in $p) for $x, $y in $p)",),
        lambda p: len([1 for x, y in p if all(u <= x or v <= y for u, v in p)]),
        least=0,
    ),
    value(
        "nearest-point",
        ("the number (from 1) of the first point nearest to (0, 0), walking along the axes",),
        ("dist = [abs($x) + abs($y) for $x, $y in $p]\n$r = dist.index(min(dist)) + 1",),
        lambda p: min((abs(x) + abs(y), i) for i, (x, y) in enumerate(p, 1))[1],
    ),
    rows(
        "by-sum",
        ("the pairs sorted by x + y, keeping the order of ties",),
        ("sorted($p, key=sum)", "sorted($p, key=lambda q: q[0] + q[1])"),
        lambda p: [q for _, q in sorted(enumerate(p), key=lambda e: (e[1][0] + e[1][1], e[0]))],
    ),
    rows(
        "by-second",
        ("the pairs sorted by y from large to small, ties by x from small to large",),
        ("sorted($p, key=lambda q: (-q[1], q[0]))",),
        lambda p: [(x, -y) for y, x in sorted((-y, x) for x, y in p)],
    ),
    span_value(
        "covered-length",
        ("the total length covered by the intervals, each part counted once",),
        (
            "$r = 0\nend = -1\nfor $x, $y in sorted($p):\n    if $y > end:\n"
            "        $r += $y - max($x, end)\n        end = $y",
            "seen = set()\nfor $x, $y in $p:\n    seen.update(range($x, $y))\n$r = len(seen)",
        ),
        lambda p: len(_covered(p)),
    ),
    span_value(
        "most-at-once",
        ("the largest number of intervals that are open at once (an end frees its place)",),
        (
            "events = sorted([($x, 1) for $x, $y in $p] + [($y, -1) for $x, $y in $p])\n"
            "cur = $r = 0\nfor _, step in events:\n    cur += step\n    $r = max($r, cur)",
            "max(sum($x <= t < $y for $x, $y in $p) for t, _ in $p)",
        ),
        lambda p: max(sum(x <= t < y for x, y in p) for t in _covered(p)),
    ),
    span_value(
        "most-disjoint",
        (
            "the largest number of intervals that do not overlap (touching is allowed)",
            "how many of the time spans one person can attend, one after the other",
        ),
        (
            "$r = 0\nend = -1\nfor $x, $y in sorted($p, key=lambda q: q[1]):\n    if $x >= end:\n"
            "        $r += 1\n        end = $y",
        ),
        _most_disjoint,
    ),
    span_value(
        "longest-interval",
        ("the length of the longest interval", "how long the longest time span is"),
        ("max($y - $x for $x, $y in $p)",),
        lambda p: sorted(y - x for x, y in p)[-1],
    ),
    span_check(
        "all-disjoint",
        ("no two intervals overlap (touching is allowed)",),
        ("$p.sort()\n$r = all($p[i][0] >= $p[i - 1][1] for i in range(1, len($p)))",),
        lambda p: len(_covered(p)) == sum(y - x for x, y in p),
    ),
    span_rows(
        "merged-intervals",
        ("the intervals after merging those that overlap or touch, in ascending order",),
        (
            "$r = []\nfor $x, $y in sorted($p):\n    if $r and $x <= $r[-1][1]:\n"
            "        $r[-1][1] = max($r[-1][1], $y)\n    else:\n        $r.append([$x, $y])",
        ),
        _merged,
    ),
)
