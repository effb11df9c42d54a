"""Families that ask how often values occur, of stretches and of lists that close to a ring."""

from collections import Counter
from collections.abc import Callable

from hydragen_tiny.corpus.families.build import family
from hydragen_tiny.corpus.parts import Family, KRange

value = family("ints", "int")
check = family("ints", "bool")
listing = family("ints", "list")

TALLY = "counts = {}\nfor $x in $a:\n    counts[$x] = counts.get($x, 0) + 1\n"
KIND_INTROS = (
    "Every bead in a jar has a number for its colour.",
    "Each stamp in an album has a number for its country.",
    "Every player of a game picks a number.",
)
TIMES: tuple[tuple[str, str, Callable[[int, int], bool], KRange | None], ...] = (
    ("an odd number of times", "counts[$x] % 2 == 1", lambda n, k: n % 2 == 1, None),
    ("an even number of times", "counts[$x] % 2 == 0", lambda n, k: n % 2 == 0, None),
    ("exactly once", "counts[$x] == 1", lambda n, k: n == 1, None),
    ("more than once", "counts[$x] > 1", lambda n, k: n > 1, None),
    ("at least {k} times", "counts[$x] >= $k", lambda n, k: n >= k, (2, 3)),
    ("exactly {k} times", "counts[$x] == $k", lambda n, k: n == k, (2, 3)),
)
PICKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], Callable[[list[int]], int]], ...] = (
    (
        "number",
        ("the number of different {v} that are there {T}", "how many different {v} occur {T}"),
        ("$r = sum({C} for $x in counts)", "$r = len([$x for $x in counts if {C}])"),
        len,
    ),
    (
        "largest",
        ("the largest of the {v} that occur {T} (0 if there is none)",),
        ("$r = max([$x for $x in counts if {C}], default=0)",),
        lambda found: max(found, default=0),
    ),
    (
        "smallest",
        ("the smallest of the {v} that are there {T} (0 if there is none)",),
        ("$r = min([$x for $x in counts if {C}], default=0)",),
        lambda found: min(found, default=0),
    ),
    (
        "first",
        ("which of the {v} is the first in the list that occurs {T} (0 if there is none)",),
        ("$r = 0\nfor $x in $a:\n    if {C}:\n        $r = $x\n        break",),
        lambda found: next(iter(found), 0),
    ),
    (
        "total",
        ("the sum of the different {v} that occur {T}",),
        ("$r = sum($x for $x in counts if {C})",),
        sum,
    ),
)


def _tallies() -> list[Family]:
    """Every way to pick among the values that occur so and so often."""
    built = []
    for number, (told, test, holds, k) in enumerate(TIMES):
        for name, asks, code, pick in PICKS:

            def spec(
                a: list[int],
                k: int = 0,
                holds: Callable[[int, int], bool] = holds,
                pick: Callable[[list[int]], int] = pick,
            ) -> int:
                return pick([x for x, n in Counter(a).items() if holds(n, k)])

            built.append(
                value(
                    f"tally-{name}-{number}",
                    tuple(ask.replace("{T}", told) for ask in asks),
                    tuple(TALLY + text.replace("{C}", test) for text in code),
                    spec,
                    k=k,
                    least=0,
                    intros=KIND_INTROS,
                    weight=0.3,
                )
            )
    return built


def _runs(a: list[int]) -> list[list[int]]:
    return [a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)]


def _round_runs(a: list[int]) -> list[list[int]]:
    return [(a + a)[i : i + n] for i in range(len(a)) for n in range(1, len(a) + 1)]


ROUND = (
    "The {v} stand in a circle: after the last one comes the first again.",
    "The list is closed to a ring, so that the first item follows the last.",
)
WINDOW = """count = {}
$r = left = 0
for i in range(len($a)):
    count[$a[i]] = count.get($a[i], 0) + 1
    while len(count) > $k:
        count[$a[left]] -= 1
        if count[$a[left]] == 0:
            del count[$a[left]]
        left += 1
    $r = max($r, i - left + 1)"""
ROUND_WINDOW = """n = len($a)
count = {}
$r = left = 0
for i in range(2 * n):
    $x = $a[i % n]
    count[$x] = count.get($x, 0) + 1
    while len(count) > $k or i - left + 1 > n:
        $y = $a[left % n]
        count[$y] -= 1
        if count[$y] == 0:
            del count[$y]
        left += 1
    $r = max($r, i - left + 1)"""
ROUND_BUDGET = """n = len($a)
$r = left = cur = 0
for i in range(2 * n):
    cur += $a[i % n]
    while cur > $k or i - left + 1 > n:
        cur -= $a[left % n]
        left += 1
    $r = max($r, i - left + 1)"""

STRETCHES = (
    value(
        "few-kinds",
        (
            "the length of the longest stretch of neighbours with at most {k} different {v}",
            "how long a run of neighbours with at most {k} kinds can be",
            "the largest number of items in a row that have at most {k} different {v}",
        ),
        (WINDOW,),
        lambda a, k: max(len(run) for run in _runs(a) if len(set(run)) <= k),
        k=(2, 4),
    ),
    value(
        "no-repeat",
        (
            "the length of the longest stretch of neighbours without equal {v}",
            "the largest number of items in a row that are all different",
        ),
        (
            "seen = {}\n$r = left = 0\nfor i in range(len($a)):\n"
            "    left = max(left, seen.get($a[i], -1) + 1)\n    seen[$a[i]] = i\n"
            "    $r = max($r, i - left + 1)",
        ),
        lambda a: max(len(run) for run in _runs(a) if len(set(run)) == len(run)),
    ),
    value(
        "round-few-kinds",
        ("the largest number of items that follow each other on the ring with at most {k} kinds",),
        (ROUND_WINDOW,),
        lambda a, k: max(len(run) for run in _round_runs(a) if len(set(run)) <= k),
        k=(2, 4),
        intros=ROUND,
    ),
    value(
        "round-budget",
        (
            "the length of the longest stretch on the ring with a sum of at most {k}",
            "how many items that follow each other on the ring fit into {k}, each at most once",
        ),
        (ROUND_BUDGET,),
        lambda a, k: max([0] + [len(run) for run in _round_runs(a) if sum(run) <= k]),
        k=(10, 60),
        natural_only=True,
        intros=ROUND,
    ),
    value(
        "round-window",
        (
            "the largest sum of {k} items that follow each other on the ring",
            "the best sum of {k} neighbours, where the first follows the last",
        ),
        (
            "twice = $a + $a\n$r = max(sum(twice[i:i + $k]) for i in range(len($a)))",
            "n = len($a)\n$r = max(sum($a[(i + j) % n] for j in range($k)) for i in range(n))",
        ),
        lambda a, k: max(sum(run) for run in _round_runs(a) if len(run) == k),
        k=(2, 3),
        least=3,
        intros=ROUND,
    ),
    value(
        "round-jump",
        ("the largest distance of items next to each other on the ring",),
        ("max(abs($a[i] - $a[i - 1]) for i in range(len($a)))",),
        lambda a: max(abs(x - y) for x, y in zip(a, [*a[1:], a[0]], strict=True)),
        intros=ROUND,
    ),
    value(
        "round-equal",
        ("the number of items equal to the one after them on the ring",),
        (
            "sum($a[i] == $a[i - 1] for i in range(len($a)))",
            "$r = 0\nfor i in range(len($a)):\n    if $a[i] == $a[(i + 1) % len($a)]:\n"
            "        $r += 1",
        ),
        lambda a: sum(x == y for x, y in zip(a, [*a[1:], a[0]], strict=True)),
        intros=ROUND,
    ),
    value(
        "smallest-jump",
        (
            "the smallest distance between neighbours of this list",
            "the smallest distance between neighbours",
            "the least change from an item to the next",
        ),
        (
            "min(abs($a[i] - $a[i - 1]) for i in range(1, len($a)))",
            "min(abs($x - $y) for $x, $y in zip($a, $a[1:]))",
        ),
        lambda a: sorted(abs(x - y) for x, y in zip(a, a[1:], strict=False))[0],
        least=2,
    ),
    value(
        "largest-rise",
        (
            "the largest rise between neighbours of this list (0 if there is none)",
            "the largest rise from an item to its neighbour (0 if there is none)",
        ),
        ("max([0] + [$y - $x for $x, $y in zip($a, $a[1:])])",),
        lambda a: max([0, *(y - x for x, y in zip(a, a[1:], strict=False))]),
    ),
    value(
        "window-low",
        ("the smallest sum of {k} neighbours in a row", "the least sum of a window of {k} items"),
        (
            "min(sum($a[i:i + $k]) for i in range(len($a) - $k + 1))",
            "cur = sum($a[:$k])\nlow = cur\nfor i in range($k, len($a)):\n"
            "    cur += $a[i] - $a[i - $k]\n    low = min(low, cur)\n$r = low",
        ),
        lambda a, k: min(sum(run) for run in _runs(a) if len(run) == k),
        k=(2, 3),
        least=3,
    ),
    value(
        "lowest-prefix",
        ("the smallest sum of some first items (at least one item)",),
        ("low = cur = $a[0]\nfor $x in $a[1:]:\n    cur += $x\n    low = min(low, cur)\n$r = low",),
        lambda a: min(sum(a[: i + 1]) for i in range(len(a))),
    ),
    value(
        "best-run-or-none",
        ("the largest sum of a run of neighbours (0 if all are negative)",),
        (
            "best = cur = 0\nfor $x in $a:\n    cur = max(0, cur + $x)\n    best = max(best, cur)\n$r = best",
        ),
        lambda a: max([0] + [sum(run) for run in _runs(a)]),
        least=0,
    ),
)
ARRANGED = (
    listing(
        "low-high",
        (
            "the {v} taken in turn from the small and the large end of their sorted list",
            "the {v} arranged so that small and large ones take turns, the smallest first",
            "the {v} in an order in which they rise and fall in turn, with the largest steps",
        ),
        (
            "$a.sort()\n$r = []\nwhile $a:\n    $r.append($a.pop(0))\n    if $a:\n"
            "        $r.append($a.pop())",
            "$a.sort()\nhalf = (len($a) + 1) // 2\n$r = []\nfor i in range(half):\n"
            "    $r.append($a[i])\n    if i < len($a) - half:\n        $r.append($a[-1 - i])",
        ),
        lambda a: [
            sorted(a)[i // 2] if i % 2 == 0 else sorted(a)[-1 - i // 2] for i in range(len(a))
        ],
    ),
    listing(
        "mountain",
        (
            "the {v} in an order that first rises and then falls, with the first, third, fifth ... "
            "of the sorted {v} on the way up",
        ),
        ("$a.sort()\n$r = $a[::2] + $a[1::2][::-1]",),
        lambda a: sorted(a)[::2] + sorted(a)[1::2][::-1],
    ),
    listing(
        "never-falling",
        ("the {v} in an order in which none is smaller than the one before it",),
        ("sorted($a)", "$a.sort()\n$r = $a"),
        lambda a: [x for x in sorted(set(a)) for _ in range(a.count(x))],
    ),
    listing(
        "falling",
        ("the {v} in an order in which every one is at most as large as the one before",),
        ("sorted($a, reverse=True)", "$a.sort(reverse=True)\n$r = $a"),
        lambda a: sorted(a)[::-1],
    ),
    check(
        "difference-there",
        (
            "there is a pair of {e} that differs by exactly {k} {u}",
            "two of the {v} differ by exactly {k}",
            "there are two items with a difference of {k}",
        ),
        (
            "seen = set()\n$r = False\nfor $x in $a:\n    if $x - $k in seen or $x + $k in seen:\n"
            "        $r = True\n    seen.add($x)",
            "seen = set($a)\n$r = any($x + $k in seen for $x in $a)",
        ),
        lambda a, k: any(abs(x - y) == k for i, x in enumerate(a) for y in a[:i]),
        k=(1, 12),
        least=0,
    ),
)
TALLIES = (*_tallies(), *STRETCHES, *ARRANGED)
