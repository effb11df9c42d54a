"""Families on pairs of numbers that are jobs, boxes or points of a way."""

from itertools import combinations, pairwise, permutations
from math import dist

from hydragen_tiny.corpus.families.build import family

value = family("pairs", "int")
real = family("pairs", "real")
reals = family("pairs", "reals")
rows = family("pairs", "rows")

Pairs = list[tuple[int, int]]

JOBS = (
    "One machine has to do n jobs, one after the other. Job i takes x minutes and is worth y.",
    "A baker has n orders and bakes one at a time: order i needs x minutes, and its y is given.",
    "A washing line takes n loads, each after the one before; load i takes x minutes and has a y.",
)
BOXES = (
    "There are n cards, each with a width x and a height y.",
    "A shelf holds n boxes of width x and depth y.",
    "Out of wood n plates are cut; a plate has the sides x and y.",
)
WAYS = (
    "A path runs in straight lines through n points, in the given order.",
    "A snail creeps straight from each of n points to the next one.",
)
SIDES = "the width and the height of a card"
TIMES = "x_i and y_i"


def _natural(p: Pairs) -> Pairs:
    """The pairs, if no number is below 1."""
    if any(min(q) < 1 for q in p):
        raise ValueError
    return p


def _ends(p: Pairs) -> list[int]:
    """When each job is done."""
    _natural(p)
    return [sum(x for x, _ in p[: i + 1]) for i in range(len(p))]


def _cost(p: Pairs) -> int:
    return sum(end * y for end, (_, y) in zip(_ends(p), p, strict=True))


def _best_order(p: Pairs) -> int:
    if len(p) > 6:
        raise ValueError
    return min(sum(_ends(list(q))) for q in permutations(p))


def _least_late(p: Pairs) -> int:
    if len(p) > 6:
        raise ValueError
    orders = [list(q) for q in permutations(p)]
    return min(max(e - y for e, (_, y) in zip(_ends(q), q, strict=True)) for q in orders)


def _chain(p: Pairs) -> int:
    """The longest chain of boxes, by trying all that could stand in front."""
    best: dict[tuple[int, int], int] = {}
    for x, y in sorted(p):
        best[x, y] = 1 + max([0] + [n for (u, v), n in best.items() if u < x and v < y])
    return max(best.values())


def _legs(p: Pairs) -> list[float]:
    legs = [dist(a, b) for a, b in pairwise(p)]
    if len(p) < 2 or min(legs) == 0:
        raise ValueError
    return legs


def _along(p: Pairs, goal: float) -> list[float]:
    """The point of the way after `goal`, or its last one."""
    for (x, y), (u, v), leg in zip(p, p[1:], _legs(p), strict=False):
        if goal <= leg:
            return [x + (u - x) * goal / leg, y + (v - y) * goal / leg]
        goal -= leg
    return [float(c) for c in p[-1]]


WALK = """$r = [float($p[-1][0]), float($p[-1][1])]
for i in range(1, len($p)):
    (ax, ay), (bx, by) = $p[i - 1], $p[i]
    leg = math.hypot(bx - ax, by - ay)
    if rest <= leg:
        $r = [ax + (bx - ax) * rest / leg, ay + (by - ay) * rest / leg]
        break
    rest -= leg"""
LENGTH = """import math
total = 0
for i in range(1, len($p)):
    total += math.hypot($p[i][0] - $p[i - 1][0], $p[i][1] - $p[i - 1][1])
"""

QUEUES = (
    value(
        "finish-sum",
        (
            "the sum of the minutes at which the jobs are done, in the given order",
            "what the ends of the jobs add up to if they are done in the given order",
        ),
        ("now = $r = 0\nfor $x, $y in $p:\n    now += $x\n    $r += now",),
        lambda p: sum(_ends(p)),
        natural_only=True,
        intros=JOBS,
        columns=TIMES,
    ),
    value(
        "weighted-ends",
        (
            "the total cost if each job costs y for every minute until it is done, in this order",
            "the sum of y times the minute at which the job is done, over all jobs in this order",
        ),
        (
            "now = $r = 0\nfor $x, $y in $p:\n    now += $x\n    $r += now * $y",
            "now = 0\ncost = 0\nfor $x, $y in $p:\n    now += $x\n    cost += now * $y\n$r = cost",
        ),
        _cost,
        natural_only=True,
        intros=JOBS,
        columns=TIMES,
        weight=2,
    ),
    value(
        "least-finish-sum",
        (
            "the smallest possible sum of the minutes at which the jobs are done, in the best order",
            "the least total waiting time when the order of the jobs may be chosen",
        ),
        (
            "$p.sort()\nnow = $r = 0\nfor $x, $y in $p:\n    now += $x\n    $r += now",
            "now = $r = 0\nfor $x, $y in sorted($p, key=lambda q: q[0]):\n    now += $x\n    $r += now",
        ),
        _best_order,
        natural_only=True,
        intros=JOBS,
        columns=TIMES,
        weight=2,
    ),
    value(
        "least-late",
        (
            "the smallest possible largest delay end - y of a job, in the best order",
            "how small the worst end - y can be made by the choice of the order",
        ),
        (
            "now = 0\n$r = None\nfor $x, $y in sorted($p, key=lambda q: q[1]):\n    now += $x\n"
            "    if $r is None or now - $y > $r:\n        $r = now - $y",
        ),
        _least_late,
        natural_only=True,
        intros=JOBS,
        columns=TIMES,
    ),
    value(
        "late-count",
        ("the number of jobs that are done after minute y, in the given order",),
        ("now = $r = 0\nfor $x, $y in $p:\n    now += $x\n    if now > $y:\n        $r += 1",),
        lambda p: sum(end > y for end, (_, y) in zip(_ends(p), p, strict=True)),
        natural_only=True,
        intros=JOBS,
        columns=TIMES,
    ),
    rows(
        "by-ratio",
        ("the pairs in the order of x / y, smallest first, keeping the order of ties",),
        ("sorted($p, key=lambda q: q[0] / q[1])",),
        lambda p: [p[i] for _, i in sorted((x / y, i) for i, (x, y) in enumerate(_natural(p)))],
        natural_only=True,
    ),
    value(
        "box-chain",
        (
            "the largest number of them that fit into one another (smaller in x and in y)",
            "the most pairs that can be chosen so that of any two one is smaller in both numbers",
            "the length of the longest chain in which both numbers rise",
        ),
        (
            "import bisect\nends = []\nfor $x, $y in sorted($p, key=lambda q: (q[0], -q[1])):\n"
            "    i = bisect.bisect_left(ends, $y)\n    ends[i:i + 1] = [$y]\n$r = len(ends)",
            "import bisect\n$p.sort(key=lambda q: (q[0], -q[1]))\nends = []\nfor $x, $y in $p:\n"
            "    i = bisect.bisect_left(ends, $y)\n    if i == len(ends):\n"
            "        ends.append($y)\n    else:\n        ends[i] = $y\n$r = len(ends)",
        ),
        _chain,
        intros=BOXES,
        columns=SIDES,
        weight=2,
    ),
    value(
        "different-boxes",
        ("the number of different ones", "how many different kinds of x and y there are"),
        ("len(set($p))",),
        lambda p: len(list(dict.fromkeys(p))),
        least=0,
        intros=BOXES,
        columns=SIDES,
    ),
    value(
        "through-slit",
        (
            "the number of those with x at most {k}",
            "how many of them have a first number of at most {k}",
        ),
        ("sum($x <= $k for $x, $y in $p)",),
        lambda p, k: len([1 for x, _ in p if not x > k]),
        k=(3, 15),
        least=0,
        intros=BOXES,
        columns=SIDES,
    ),
    value(
        "fitting-pairs",
        ("the number of pairs of them of which one is smaller than the other in x and in y",),
        (
            "$r = 0\nfor $x, $y in $p:\n    for u, v in $p:\n        if $x < u and $y < v:\n"
            "            $r += 1",
        ),
        lambda p: sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in combinations(p, 2)),
        least=0,
        intros=BOXES,
        columns=SIDES,
    ),
    real(
        "way-length",
        ("the length of the way from point to point", "how long the path is"),
        (LENGTH + "$r = total",),
        lambda p: sum(_legs(p)),
        intros=WAYS,
        columns="the integer coordinates x and y of a point",
    ),
    real(
        "longest-leg",
        ("the length of the longest straight piece of the way",),
        (
            "import math\n$r = max(math.hypot($p[i][0] - $p[i - 1][0], $p[i][1] - $p[i - 1][1])"
            " for i in range(1, len($p)))",
        ),
        lambda p: max(_legs(p)),
        intros=WAYS,
        columns="the integer coordinates x and y of a point",
    ),
    reals(
        "point-after",
        (
            "the coordinates of the point where {k} metres of the way are walked (or its last point)",
            "the x and y at which one is after {k} steps of length 1 (the last point if it is shorter)",
        ),
        ("import math\nrest = $k\n" + WALK,),
        lambda p, k: _along(p, k),
        k=(3, 20),
        intros=WAYS,
        columns="the integer coordinates x and y of a point",
    ),
    reals(
        "third-point",
        ("the coordinates of the point where exactly a third of the way has been walked",),
        (LENGTH + "rest = total / 3\n" + WALK,),
        lambda p: _along(p, sum(_legs(p)) / 3),
        intros=WAYS,
        columns="the integer coordinates x and y of a point",
    ),
    reals(
        "quarter-point",
        ("the coordinates of the place where exactly a quarter of the path has been walked",),
        (LENGTH + "rest = total / 4\n" + WALK,),
        lambda p: _along(p, sum(_legs(p)) / 4),
        intros=WAYS,
        columns="the integer coordinates x and y of a point",
    ),
)
