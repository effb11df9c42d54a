"""Families on one integer or two."""

from math import comb, factorial, gcd, isqrt

from hydragen_tiny.corpus.families.build import family

value = family("number", "int")
check = family("number", "bool")
text = family("number", "text")
listing = family("number", "list")
rows = family("number", "rows")
two = family("numbers", "int")
two_check = family("numbers", "bool")


def _divisors(n: int) -> list[int]:
    low = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)})


def _factors(n: int) -> list[int]:
    if n == 1:
        return []
    smallest = _divisors(n)[1]
    return [smallest, *_factors(n // smallest)]


def _collatz(n: int) -> list[int]:
    return [1] if n == 1 else [n, *_collatz(n // 2 if n % 2 == 0 else 3 * n + 1)]


def _fibonacci(n: int) -> int:
    """By binomials, the diagonal sums of Pascal's triangle."""
    return sum(comb(n - 1 - i, i) for i in range((n + 1) // 2))


def _in_base(n: int, base: int) -> str:
    return str(n) if n < base else _in_base(n // base, base) + str(n % base)


NUMBERS = (
    value(
        "number-digit-sum",
        ("the sum of the digits of n", "the digit sum of n"),
        (
            "sum(map(int, str($n)))",
            "$r = 0\nwhile $n > 0:\n    $r += $n % 10\n    $n //= 10",
        ),
        lambda n: sum(n // 10**i % 10 for i in range(9)),
    ),
    value(
        "divisor-count",
        ("the number of divisors of n", "how many divisors n has"),
        (
            "sum($n % d == 0 for d in range(1, $n + 1))",
            "$r = 0\nfor d in range(1, $n + 1):\n    if $n % d == 0:\n        $r += 1",
        ),
        lambda n: len(_divisors(n)),
    ),
    value(
        "divisor-sum",
        ("the sum of the divisors of n", "what the divisors of n add up to"),
        ("sum(d for d in range(1, $n + 1) if $n % d == 0)",),
        lambda n: sum(_divisors(n)),
    ),
    listing(
        "divisors",
        ("all divisors of n in ascending order", "the divisors of n"),
        ("[d for d in range(1, $n + 1) if $n % d == 0]",),
        _divisors,
    ),
    listing(
        "prime-factors",
        ("the prime factors of n in ascending order, with repeats",),
        (
            "$r = []\nd = 2\nwhile $n > 1:\n    while $n % d == 0:\n        $r.append(d)\n"
            "        $n //= d\n    d += 1",
        ),
        _factors,
    ),
    listing(
        "primes-up-to",
        ("all primes up to n", "the prime numbers that are at most n"),
        ("[x for x in range(2, $n + 1) if all(x % d for d in range(2, x))]",),
        lambda n: [x for x in range(2, n + 1) if len(_divisors(x)) == 2],
    ),
    check(
        "prime",
        ("n is a prime number", "n is prime"),
        (
            "$n > 1 and all($n % d for d in range(2, $n))",
            "$r = $n > 1\nfor d in range(2, $n):\n    if $n % d == 0:\n        $r = False",
        ),
        lambda n: len(_divisors(n)) == 2,
    ),
    check(
        "perfect",
        ("n equals the sum of its divisors below n", "n is a perfect number"),
        ("sum(d for d in range(1, $n) if $n % d == 0) == $n",),
        lambda n: sum(_divisors(n)) == 2 * n,
    ),
    check(
        "square-number",
        ("n is a perfect square", "n is the square of an integer"),
        ("int($n ** 0.5) ** 2 == $n", "any(i * i == $n for i in range($n + 1))"),
        lambda n: isqrt(n) ** 2 == n,
    ),
    check(
        "number-palindrome",
        ("n reads the same backwards", "n is a palindrome"),
        ("str($n) == str($n)[::-1]",),
        lambda n: list(str(n)) == list(reversed(str(n))),
    ),
    check(
        "happy",
        (
            "n leads to 1 when it is replaced by the sum of the squares of its digits again and again",
        ),
        (
            "seen = set()\nwhile $n not in seen:\n    seen.add($n)\n"
            "    $n = sum(int(d) ** 2 for d in str($n))\n$r = $n == 1",
        ),
        lambda n: _ends_in_one(n, 100),
    ),
    value(
        "collatz-steps",
        (
            "how many steps lead from n to 1, if even n are halved and odd n become 3n + 1",
            "the number of Collatz steps (halve if even, else 3n + 1) until n is 1",
        ),
        (
            "$r = 0\nwhile $n != 1:\n    $n = $n // 2 if $n % 2 == 0 else 3 * $n + 1\n    $r += 1",
            "$r = 0\nwhile $n > 1:\n    if $n % 2 == 0:\n        $n //= 2\n    else:\n"
            "        $n = 3 * $n + 1\n    $r += 1",
        ),
        lambda n: len(_collatz(n)) - 1,
    ),
    listing(
        "collatz-path",
        ("all numbers from n to 1, if even n are halved and odd n become 3n + 1",),
        (
            "$r = [$n]\nwhile $n != 1:\n    $n = $n // 2 if $n % 2 == 0 else 3 * $n + 1\n"
            "    $r.append($n)",
        ),
        _collatz,
    ),
    value(
        "fibonacci",
        ("the n-th Fibonacci number (1, 1, 2, 3, ...) modulo 1000",),
        ("x, y = 0, 1\nfor _ in range($n):\n    x, y = y, (x + y) % 1000\n$r = x",),
        lambda n: _fibonacci(n) % 1000,
    ),
    value(
        "factorial-zeros",
        ("the number of zeros at the end of n factorial", "how many zeros n! ends with"),
        ("$r = 0\nwhile $n > 0:\n    $n //= 5\n    $r += $n",),
        lambda n: (s := str(factorial(n))).__len__() - len(s.rstrip("0")),
    ),
    value(
        "triangular",
        ("the sum 1 + 2 + ... + n", "the sum of all integers from 1 to n"),
        ("$n * ($n + 1) // 2", "sum(range(1, $n + 1))"),
        lambda n: comb(n + 1, 2),
    ),
    value(
        "sum-of-multiples",
        ("the sum of the multiples of {k} that are at most n",),
        ("sum(range($k, $n + 1, $k))", "sum(x for x in range(1, $n + 1) if x % $k == 0)"),
        lambda n, k: k * comb(n // k + 1, 2),
        k=(2, 9),
    ),
    value(
        "one-bits",
        ("the number of ones in the binary form of n", "how many binary digits of n are 1"),
        ('bin($n).count("1")', "$r = 0\nwhile $n > 0:\n    $r += $n % 2\n    $n //= 2"),
        lambda n: n.bit_count(),
    ),
    text(
        "binary",
        ("the binary form of n", "n written in binary"),
        ("bin($n)[2:]", '$r = ""\nwhile $n > 0:\n    $r = str($n % 2) + $r\n    $n //= 2'),
        lambda n: f"{n:b}",
    ),
    text(
        "in-base",
        ("n written in base {k}", "the digits of n in base {k}"),
        ('$r = ""\nwhile $n > 0:\n    $r = str($n % $k) + $r\n    $n //= $k',),
        _in_base,
        k=(3, 9),
    ),
    value(
        "digital-root",
        ("the digital root of n (the digit sum, taken again until one digit is left)",),
        ("while $n > 9:\n    $n = sum(map(int, str($n)))\n$r = $n", "1 + ($n - 1) % 9"),
        lambda n: n % 9 or 9,
    ),
    value(
        "stairs",
        ("the number of ways to climb n steps, 1 or 2 at a time, modulo 1000",),
        ("x = y = 1\nfor _ in range($n):\n    x, y = y, (x + y) % 1000\n$r = x",),
        lambda n: sum(comb(n - i, i) for i in range(n // 2 + 1)) % 1000,
    ),
    value(
        "josephus",
        (
            "the last of n people in a circle (numbered from 1), if counting to {k} again and "
            "again takes out the one it ends at",
        ),
        (
            "ring = list(range(1, $n + 1))\ni = 0\nwhile len(ring) > 1:\n"
            "    i = (i + $k - 1) % len(ring)\n    ring.pop(i)\n$r = ring[0]",
            "$r = 0\nfor i in range(2, $n + 1):\n    $r = ($r + $k) % i\n$r += 1",
        ),
        lambda n, k: _last_in_ring(list(range(1, n + 1)), k),
        k=(2, 5),
    ),
    value(
        "reduce-to-one",
        ("the fewest steps from n to 1, if a step subtracts 1, halves or divides by 3 exactly",),
        (
            "dp = [0, 0]\nfor i in range(2, $n + 1):\n    best = dp[i - 1]\n    if i % 2 == 0:\n"
            "        best = min(best, dp[i // 2])\n    if i % 3 == 0:\n"
            "        best = min(best, dp[i // 3])\n    dp.append(best + 1)\n$r = dp[$n]",
        ),
        lambda n: _steps_to_one(n),
    ),
    rows(
        "star-triangle",
        ("a triangle of n modulo 8 rows, the i-th with the numbers from 1 to i",),
        ("[list(range(1, i + 1)) for i in range(1, $n % 8 + 1)]",),
        lambda n: [[j + 1 for j in range(i + 1)] for i in range(n % 8)],
    ),
    listing(
        "fizz",
        ("the numbers from 1 to n modulo 20, with each multiple of {k} replaced by x",),
        (
            '["x" if i % $k == 0 else i for i in range(1, $n % 20 + 1)]',
            "$r = []\nfor i in range(1, $n % 20 + 1):\n    if i % $k == 0:\n"
            '        $r.append("x")\n    else:\n        $r.append(i)',
        ),
        lambda n, k: [i if i % k else "x" for i in range(1, n % 20 + 1)],
        k=(2, 6),
    ),
    two(
        "gcd-of-two",
        ("the greatest common divisor of x and y", "the largest number that divides x and y"),
        ("while $y:\n    $x, $y = $y, $x % $y\n$r = $x", "import math\n$r = math.gcd($x, $y)"),
        lambda x, y: max(d for d in _divisors(x) if y % d == 0),
    ),
    two(
        "lcm-of-two",
        ("the least common multiple of x and y", "the smallest number that x and y divide"),
        ("import math\n$r = $x * $y // math.gcd($x, $y)", "$r = $x\nwhile $r % $y:\n    $r += $x"),
        lambda x, y: x * y // gcd(x, y),
    ),
    two(
        "power",
        ("the last two digits of x to the power y, as a number", "x to the power y modulo 100"),
        ("pow($x, $y, 100)", "$r = 1\nfor _ in range($y):\n    $r = $r * $x % 100"),
        lambda x, y: x**y % 100,
    ),
    two(
        "binomial",
        ("the number of ways to walk x steps right and y steps up, modulo 1000",),
        (
            "dp = [1] * ($x + 1)\nfor _ in range($y):\n    for i in range(1, $x + 1):\n"
            "        dp[i] = (dp[i] + dp[i - 1]) % 1000\n$r = dp[$x]",
            "import math\n$r = math.comb($x + $y, $x) % 1000",
        ),
        lambda x, y: comb(x + y, y) % 1000,
    ),
    two(
        "squares-in-rectangle",
        ("the fewest squares cut from an x by y sheet, the largest possible each time",),
        (
            "$r = 0\nwhile $x and $y:\n    if $x < $y:\n        $x, $y = $y, $x\n"
            "    $r += $x // $y\n    $x %= $y",
        ),
        lambda x, y: _squares(x, y),
    ),
    two(
        "differing-bits",
        ("the number of binary digits in which x and y differ",),
        ('bin($x ^ $y).count("1")',),
        lambda x, y: sum((x >> i ^ y >> i) & 1 for i in range(12)),
    ),
    two_check(
        "coprime",
        ("x and y have no common divisor but 1", "x and y are coprime"),
        ("import math\n$r = math.gcd($x, $y) == 1",),
        lambda x, y: not set(_divisors(x)) & set(_divisors(y)) - {1},
    ),
    two_check(
        "divides",
        ("one of x and y divides the other", "x is a multiple of y or y of x"),
        ("$x % $y == 0 or $y % $x == 0",),
        lambda x, y: min(x, y) in _divisors(max(x, y)),
    ),
)


def _ends_in_one(n: int, patience: int) -> bool:
    if n == 1 or patience == 0:
        return n == 1
    return _ends_in_one(sum(int(c) * int(c) for c in str(n)), patience - 1)


def _last_in_ring(ring: list[int], k: int) -> int:
    while len(ring) > 1:
        turn = (k - 1) % len(ring)
        ring = ring[turn + 1 :] + ring[:turn]
    return ring[0]


def _steps_to_one(n: int) -> int:
    reached, steps = {n}, 0
    while 1 not in reached:
        reached |= {x - 1 for x in reached if x > 1}.union(
            *({x // d for x in reached if x % d == 0} for d in (2, 3))
        )
        steps += 1
    return steps


def _squares(x: int, y: int) -> int:
    if x == y:
        return 1
    return 1 + _squares(max(x, y) - min(x, y), min(x, y))
