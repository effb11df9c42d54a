"""Families on a list of integers that take a table, a window, two pointers or greed."""

from itertools import combinations

from hydragen_tiny.corpus.families.build import family

value = family("ints", "int")


def _runs(a: list[int]) -> list[list[int]]:
    return [a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)]


def _subsets(a: list[int]) -> list[tuple[int, ...]]:
    """All choices of positions, as tuples; refuses lists too long for that."""
    if len(a) > 12:
        raise ValueError
    return [c for size in range(len(a) + 1) for c in combinations(range(len(a)), size)]


def _most_apart(a: list[int]) -> int:
    """Best sum of items no two of which are neighbours, over all choices."""
    return max(
        sum(a[i] for i in c)
        for c in _subsets(a)
        if all(j - i > 1 for i, j in zip(c, c[1:], strict=False))
    )


def _fewest_coins(a: list[int], k: int) -> int:
    if min(a, default=1) < 1:
        raise ValueError
    reached, coins = {0}, 0
    while k not in reached:
        grown = reached | {s + x for s in reached for x in a if s + x <= k}
        if grown == reached:
            return -1
        reached, coins = grown, coins + 1
    return coins


def _ways(a: list[int], k: int) -> int:
    if min(a, default=1) < 1:
        raise ValueError
    if k == 0:
        return 1
    if k < 0 or not a:
        return 0
    return _ways(a, k - a[0]) + _ways(a[1:], k)


def _boats(a: list[int], k: int) -> int:
    """Gives the heaviest the heaviest partner that fits, again and again."""
    if max(a, default=0) > k:
        raise ValueError
    boats, waiting = 0, sorted(a)
    while waiting:
        heaviest = waiting.pop()
        partners = [x for x in waiting if x + heaviest <= k]
        if partners:
            waiting.remove(partners[-1])
        boats += 1
    return boats


DYNAMIC = (
    value(
        "best-run",
        (
            "the largest sum of a run of neighbours (at least one item)",
            "the best sum of a contiguous part of the list (not empty)",
        ),
        (
            "best = cur = $a[0]\nfor $x in $a[1:]:\n    cur = max($x, cur + $x)\n"
            "    best = max(best, cur)\n$r = best",
            "best = $a[0]\ncur = 0\nfor $x in $a:\n    cur += $x\n    best = max(best, cur)\n"
            "    if cur < 0:\n        cur = 0\n$r = best",
        ),
        lambda a: max(sum(run) for run in _runs(a)),
    ),
    value(
        "worst-run",
        ("the smallest sum of a run of neighbours (at least one item)",),
        (
            "low = cur = $a[0]\nfor $x in $a[1:]:\n    cur = min($x, cur + $x)\n"
            "    low = min(low, cur)\n$r = low",
        ),
        lambda a: min(sum(run) for run in _runs(a)),
    ),
    value(
        "rising-subsequence",
        (
            "the length of the longest strictly increasing subsequence",
            "how many items the longest strictly increasing choice (in order) has",
        ),
        (
            "dp = [1] * len($a)\nfor i in range(len($a)):\n    for j in range(i):\n"
            "        if $a[j] < $a[i]:\n            dp[i] = max(dp[i], dp[j] + 1)\n$r = max(dp)",
            "import bisect\ntails = []\nfor $x in $a:\n    i = bisect.bisect_left(tails, $x)\n"
            "    tails[i:i + 1] = [$x]\n$r = len(tails)",
        ),
        lambda a: max(
            len(c) for c in _subsets(a) if all(a[i] < a[j] for i, j in zip(c, c[1:], strict=False))
        ),
    ),
    value(
        "no-neighbours",
        (
            "the largest sum of items no two of which are neighbours",
            "the best total when no two chosen items stand side by side",
        ),
        (
            "take = skip = 0\nfor $x in $a:\n    take, skip = skip + $x, max(take, skip)\n"
            "$r = max(take, skip)",
            "dp = [0, 0]\nfor $x in $a:\n    dp.append(max(dp[-1], dp[-2] + $x))\n$r = dp[-1]",
        ),
        _most_apart,
        natural_only=True,
    ),
    value(
        "inversions",
        (
            "the number of pairs in which the earlier item is greater",
            "the number of inversions of the list",
        ),
        (
            "$r = 0\nfor i in range(len($a)):\n    for j in range(i):\n        if $a[j] > $a[i]:\n"
            "            $r += 1",
            "sum($a[j] > $a[i] for i in range(len($a)) for j in range(i))",
        ),
        lambda a: sum(x > y for x, y in combinations(a, 2)),
        least=0,
    ),
    value(
        "pairs-with-sum",
        ("the number of pairs of items with the sum {k}", "how many pairs of items add up to {k}"),
        (
            "$r = 0\nfor i in range(len($a)):\n    for j in range(i):\n"
            "        if $a[i] + $a[j] == $k:\n            $r += 1",
            "seen = {}\n$r = 0\nfor $x in $a:\n    $r += seen.get($k - $x, 0)\n"
            "    seen[$x] = seen.get($x, 0) + 1",
        ),
        lambda a, k: sum(x + y == k for x, y in combinations(a, 2)),
        k=(5, 25),
        least=0,
    ),
    value(
        "pairs-with-difference",
        ("the number of pairs of items that differ by {k}", "how many pairs are exactly {k} apart"),
        (
            "$r = 0\nfor i in range(len($a)):\n    for j in range(i):\n"
            "        if abs($a[i] - $a[j]) == $k:\n            $r += 1",
        ),
        lambda a, k: sum(x - y in (k, -k) for x, y in combinations(a, 2)),
        k=(1, 8),
        least=0,
    ),
    value(
        "best-trade",
        (
            "the largest gain from an earlier to a later item (0 if there is none)",
            "the best profit of buying at one item and selling at a later one (or 0)",
        ),
        ("low = $a[0]\n$r = 0\nfor $x in $a:\n    low = min(low, $x)\n    $r = max($r, $x - low)",),
        lambda a: max([0] + [y - x for x, y in combinations(a, 2)]),
    ),
    value(
        "window-sum",
        ("the largest sum of {k} neighbours in a row", "the best sum of a window of {k} items"),
        (
            "max(sum($a[i:i + $k]) for i in range(len($a) - $k + 1))",
            "cur = sum($a[:$k])\nbest = cur\nfor i in range($k, len($a)):\n"
            "    cur += $a[i] - $a[i - $k]\n    best = max(best, cur)\n$r = best",
        ),
        lambda a, k: max(sum(run) for run in _runs(a) if len(run) == k),
        k=(2, 3),
        least=3,
    ),
    value(
        "runs-with-sum",
        (
            "the number of runs of neighbours with the sum {k}",
            "how many contiguous parts sum to {k}",
        ),
        (
            "$r = 0\nfor i in range(len($a)):\n    cur = 0\n    for j in range(i, len($a)):\n"
            "        cur += $a[j]\n        if cur == $k:\n            $r += 1",
        ),
        lambda a, k: sum(sum(run) == k for run in _runs(a)),
        k=(3, 20),
        least=0,
    ),
    value(
        "longest-cheap-run",
        (
            "the length of the longest run of neighbours with a sum of at most {k}",
            "how many neighbours in a row fit into a budget of {k}",
        ),
        (
            "$r = left = cur = 0\nfor i in range(len($a)):\n    cur += $a[i]\n"
            "    while cur > $k:\n        cur -= $a[left]\n        left += 1\n"
            "    $r = max($r, i - left + 1)",
        ),
        lambda a, k: max([0] + [len(run) for run in _runs(a) if sum(run) <= k]),
        k=(10, 50),
        least=0,
        natural_only=True,
    ),
    value(
        "coin-ways",
        (
            "the number of ways to pay {k} with coins of these values (each any number of times)",
            "in how many ways coins of the different values make {k}",
        ),
        (
            "ways = [1] + [0] * $k\nfor $x in set($a):\n    for i in range($x, $k + 1):\n"
            "        ways[i] += ways[i - $x]\n$r = ways[$k]",
        ),
        lambda a, k: _ways(sorted(set(a)), k),
        k=(6, 20),
        least=0,
    ),
    value(
        "fewest-coins",
        (
            "the fewest coins of these values that make {k} (-1 if it cannot be done)",
            "how few coins of the given values pay {k} (-1 if none do)",
        ),
        (
            "dp = [0] + [999] * $k\nfor i in range(1, $k + 1):\n    for $x in $a:\n"
            "        if $x <= i:\n            dp[i] = min(dp[i], dp[i - $x] + 1)\n"
            "$r = dp[$k] if dp[$k] < 999 else -1",
        ),
        _fewest_coins,
        k=(8, 30),
        least=0,
    ),
    value(
        "greedy-pack",
        (
            "how many items fit into a bag of size {k}, smallest first",
            "the largest number of items with a sum of at most {k}",
        ),
        (
            "cur = $r = 0\nfor $x in sorted($a):\n    if cur + $x > $k:\n        break\n"
            "    cur += $x\n    $r += 1",
        ),
        lambda a, k: max(len(c) for c in _subsets(a) if sum(a[i] for i in c) <= k),
        k=(15, 60),
        least=0,
        natural_only=True,
    ),
    value(
        "boats",
        (
            "the fewest boats if each carries at most two items and a weight of {k}, none heavier",
            "how few boats of capacity {k} carry all items, at most two in each",
        ),
        (
            "$a.sort()\n$r = i = 0\nj = len($a) - 1\nwhile i <= j:\n    if $a[i] + $a[j] <= $k:\n"
            "        i += 1\n    j -= 1\n    $r += 1",
        ),
        _boats,
        k=(60, 90),
        least=0,
        natural_only=True,
    ),
    value(
        "smallest-gap",
        (
            "the smallest difference between two {e} in {u}",
            "the smallest distance between two of the items",
            "the smallest difference between two of the {v}",
            "how close the two closest items are",
        ),
        (
            "$a.sort()\n$r = min($a[i] - $a[i - 1] for i in range(1, len($a)))",
            "min(abs($a[i] - $a[j]) for i in range(len($a)) for j in range(i))",
        ),
        lambda a: min(abs(x - y) for x, y in combinations(a, 2)),
        least=2,
    ),
    value(
        "levelling",
        (
            "the fewest steps of 1 up or down that make all items equal",
            "the least total change that makes all {v} the same",
        ),
        (
            "mid = sorted($a)[len($a) // 2]\n$r = sum(abs($x - mid) for $x in $a)",
            "min(sum(abs($x - $y) for $y in $a) for $x in $a)",
        ),
        lambda a: min(sum(abs(x - t) for x in a) for t in a),
    ),
    value(
        "best-product",
        ("the largest product of two items", "the greatest product of two of the {v}"),
        (
            "$a.sort()\n$r = max($a[0] * $a[1], $a[-1] * $a[-2])",
            "max($a[i] * $a[j] for i in range(len($a)) for j in range(i))",
        ),
        lambda a: max(x * y for x, y in combinations(a, 2)),
        least=2,
    ),
    value(
        "water",
        (
            "how much rain stays between walls of these heights",
            "the water held by bars of these heights and width 1",
        ),
        ("$r = 0\nfor i in range(len($a)):\n    $r += min(max($a[:i + 1]), max($a[i:])) - $a[i]",),
        lambda a: sum(
            sum(1 for h in range(x, max(a)) if max(a[:i] or [0]) > h < max(a[i + 1 :] or [0]))
            for i, x in enumerate(a)
        ),
        least=0,
        natural_only=True,
    ),
)
