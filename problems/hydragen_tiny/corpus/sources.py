"""How lists of integers are read: plainly, or derived from something else that is read."""

from collections.abc import Callable
from random import Random

from hydragen_tiny.corpus.parts import Data, Scale, Source


def draw_ints(rng: Random, scale: Scale, least: int = 2) -> list[int]:
    """A list of integers; small ranges now and then, so that equal values occur."""
    count = rng.randint(least, max(scale.count, least))
    high = rng.choice((scale.high, scale.high, max(scale.low + 4, scale.high // 6)))
    return [rng.randint(scale.low, high) for _ in range(count)]


def joined(values: list[int], separator: str = " ") -> str:
    """Integers as one line of text."""
    return separator.join(map(str, values))


def _draw_plain(layout: Callable[[list[int]], list[str]]) -> Callable[[Random, Scale], Data]:
    def draw(rng: Random, scale: Scale) -> Data:
        values = draw_ints(rng, scale)
        return Data((values,), tuple(layout(values)))

    return draw


def _draw_until(rng: Random, scale: Scale) -> Data:
    values = [x or 1 for x in draw_ints(rng, scale)]
    return Data((values,), (*map(str, values), "0"))


def _draw_up_to(rng: Random, scale: Scale) -> Data:
    n = rng.randint(3, 3 * scale.count)
    return Data((list(range(1, n + 1)),), (str(n),))


def _draw_between(rng: Random, scale: Scale) -> Data:
    low = rng.randint(1, 60)
    high = low + rng.randint(2, 2 * scale.count)
    return Data((list(range(low, high + 1)),), (f"{low} {high}",))


def _draw_digits(rng: Random, scale: Scale) -> Data:
    digits = str(rng.randint(1, 9)) + "".join(
        str(rng.randint(0, 9)) for _ in range(rng.randint(2, max(3, scale.count)))
    )
    return Data(([int(d) for d in digits],), (digits,))


def draw_word(rng: Random, longest: int = 7, alphabet: str = "aabcdeeghiiklmnoprstuwyz") -> str:
    """A made-up word of 1 to `longest` letters."""
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, longest)))


def _draw_lengths(rng: Random, scale: Scale) -> Data:
    words = [draw_word(rng) for _ in range(rng.randint(2, scale.count))]
    return Data(([len(w) for w in words],), (" ".join(words),))


def _draw_letters(rng: Random, scale: Scale) -> Data:
    word = draw_word(rng, 2) + draw_word(rng, scale.count)
    return Data(([ord(c) - 96 for c in word],), (word,))


def _draw_rows(combine: Callable[[list[int]], int]) -> Callable[[Random, Scale], Data]:
    def draw(rng: Random, scale: Scale) -> Data:
        rows, columns = rng.randint(2, max(3, scale.count // 2)), rng.randint(2, 4)
        matrix = [[rng.randint(scale.low, scale.high) for _ in range(columns)] for _ in range(rows)]
        lines = (f"{rows} {columns}", *(joined(row) for row in matrix))
        return Data(([combine(row) for row in matrix],), lines)

    return draw


def _draw_from_pairs(combine: Callable[[int, int], int]) -> Callable[[Random, Scale], Data]:
    def draw(rng: Random, scale: Scale) -> Data:
        pairs = [
            (rng.randint(scale.low, scale.high), rng.randint(scale.low, scale.high))
            for _ in range(rng.randint(2, scale.count))
        ]
        lines = (str(len(pairs)), *(f"{x} {y}" for x, y in pairs))
        return Data(([combine(x, y) for x, y in pairs],), lines)

    return draw


def _draw_from_lists(combine: Callable[[int, int], int]) -> Callable[[Random, Scale], Data]:
    def draw(rng: Random, scale: Scale) -> Data:
        first = draw_ints(rng, scale)
        second = [rng.randint(scale.low, scale.high) for _ in first]
        both = [combine(x, y) for x, y in zip(first, second, strict=True)]
        return Data((both,), (joined(first), joined(second)))

    return draw


def _draw_recurrence(rng: Random, scale: Scale) -> Data:
    n, x = rng.randint(3, scale.count + 2), rng.randint(0, 20)
    p, q = rng.randint(2, 9), rng.randint(1, 30)
    values = [x]
    while len(values) < n:
        values.append((p * values[-1] + q) % 50)
    return Data((values,), (f"{n} {x} {p} {q}",))


TABLE_LAYOUT = (
    "The first line holds the numbers of rows and columns, then the rows follow.",
    "Input: r and c, then r lines with c integers each.",
)
TABLE_FORMAL = (
    "The first line holds the numbers of rows and columns (1 to {size} each), then the rows follow. "
    "The cells are from {low} to {high}.",
    "The first line contains the numbers of rows and columns, both between 1 and {size}. Each of the "
    "next lines contains one row of integers from {low} to {high}.",
)
INT_SOURCES = (
    Source(
        "count-line",
        "ints",
        ("You are given n {v}.", "There are n {v}.", "A list of n {v} is given."),
        (
            "The first line holds n, the second line the {v}.",
            "Input: n on the first line, then n integers on the second.",
            "Line 1 contains n. Line 2 contains the n integers.",
        ),
        (
            "$n = int(input())\n$a = list(map(int, input().split()))",
            "$n = int(input())\n$a = [int($x) for $x in input().split()]",
        ),
        _draw_plain(lambda a: [str(len(a)), joined(a)]),
        whole_code="data = list(map(int, sys.stdin.read().split()))\n$n = data[0]\n$a = data[1:]",
        counted=True,
        formal=(
            "The first line contains {head}. The second line contains n integers between {low} and {high}.",
            "The first line contains {head}. The second line contains n integers from {low} to {high}, the {v}.",
            "The first line holds {head}, the second line the {v}, each from {low} to {high}.",
            "The first line contains {head}. The second line contains the n {v}, integers between {low} and {high}.",
            "The first line holds {head}, the second line the {v}. The {v} are from {low} to {high}.",
        ),
    ),
    Source(
        "line",
        "ints",
        ("You are given some {v}.", "A list of {v} is given.", "Read a line of {v}."),
        (
            "The input is one line of integers.",
            "All {v} are on a single line.",
            "One line holds the {v}, separated by spaces.",
        ),
        (
            "$a = list(map(int, input().split()))",
            "$a = [int($x) for $x in input().split()]",
        ),
        _draw_plain(lambda a: [joined(a)]),
        whole_code="$a = list(map(int, sys.stdin.read().split()))",
        formal=(
            "The only line contains the {v}, integers between {low} and {high}.",
            "A single line holds the {v}, at most {length} integers, each from {low} to {high}.",
        ),
    ),
    Source(
        "count-lines",
        "ints",
        ("You are given n {v}.", "There are n {v}.", "A list of n {v} is given."),
        (
            "The first line holds n, each of the next n lines one integer.",
            "Input: n, then n lines with one integer each.",
            "After n on the first line, the {v} follow, one on each line.",
        ),
        (
            "$n = int(input())\n$a = [int(input()) for _ in range($n)]",
            "$n = int(input())\n$a = []\nfor _ in range($n):\n    $a.append(int(input()))",
        ),
        _draw_plain(lambda a: [str(len(a)), *map(str, a)]),
        whole_code="data = sys.stdin.read().split()\n$n = int(data[0])\n"
        "$a = [int($x) for $x in data[1:]]",
        counted=True,
        formal=(
            "The first line contains {head}. Each of the next n lines contains one integer between {low} and {high}.",
            "The first line holds {head}, then n lines follow with one of the {v} each, from {low} to {high}.",
        ),
    ),
    Source(
        "commas",
        "ints",
        ("You are given some {v}.", "A list of {v} is given."),
        ("The input is one line of integers separated by commas.", "The {v} are comma-separated."),
        (
            '$a = list(map(int, input().split(",")))',
            '$a = [int($x) for $x in input().split(",")]',
        ),
        _draw_plain(lambda a: [joined(a, ",")]),
    ),
    Source(
        "until-zero",
        "ints",
        ("You are given some {v}, none of them 0.", "A list of nonzero {v} is given."),
        (
            "One integer is on each line; a line with 0 ends the list.",
            "The {v} stand on lines of their own, and 0 marks the end.",
        ),
        (
            "$a = []\n$x = int(input())\nwhile $x != 0:\n    $a.append($x)\n    $x = int(input())",
            "$a = []\nwhile True:\n    $x = int(input())\n    if $x == 0:\n        break\n"
            "    $a.append($x)",
        ),
        _draw_until,
    ),
    Source(
        "up-to",
        "ints",
        ("Take the integers from 1 to n.", "Consider all integers from 1 to n."),
        ("The input is the number n.", "A single line holds n."),
        ("$n = int(input())\n$a = list(range(1, $n + 1))",),
        _draw_up_to,
        natural=True,
    ),
    Source(
        "between",
        "ints",
        ("Take all integers from l to r, both included.", "Consider the integers l, l+1, ..., r."),
        ("The input holds l and r.", "A single line holds the two numbers l and r."),
        ("lo, hi = map(int, input().split())\n$a = list(range(lo, hi + 1))",),
        _draw_between,
        natural=True,
    ),
    Source(
        "digits",
        "ints",
        ("Take the digits of a number.", "Look at the digits of the given number as a list."),
        ("The input is one number.", "A single line holds the number."),
        ("$a = [int($c) for $c in input().strip()]", "$a = list(map(int, input().strip()))"),
        _draw_digits,
        natural=True,
    ),
    Source(
        "lengths",
        "ints",
        ("Take the lengths of the given words.", "Write down the length of every given word."),
        ("The input is one line of words.", "All words are on a single line."),
        ("$a = [len($u) for $u in input().split()]", "$a = list(map(len, input().split()))"),
        _draw_lengths,
        natural=True,
    ),
    Source(
        "letters",
        "ints",
        (
            "Replace each letter of a word by its place in the alphabet (a is 1).",
            "Every letter of a word stands for a number: a is 1, b is 2, and so on.",
        ),
        ("The input is one lowercase word.", "A single line holds the word."),
        ("$a = [ord($c) - 96 for $c in input().strip()]",),
        _draw_letters,
        natural=True,
    ),
    Source(
        "row-sums",
        "ints",
        ("Take the sums of the rows of a matrix.", "Write down the sum of each row of a matrix."),
        (
            "The first line holds the numbers of rows and columns, then the rows follow.",
            "Input: r and c, then r lines with c integers each.",
        ),
        (
            "rows, cols = map(int, input().split())\n"
            "$a = [sum(map(int, input().split())) for _ in range(rows)]",
        ),
        _draw_rows(sum),
    ),
    Source(
        "row-maxima",
        "ints",
        (
            "There is a table of integers. Take the largest cell of each row, in order.",
            "Take the largest cell of each row of a table, in order.",
            "A table of integers is given. Write down the largest cell of each row.",
        ),
        TABLE_LAYOUT,
        (
            "rows, cols = map(int, input().split())\n"
            "$a = [max(map(int, input().split())) for _ in range(rows)]",
            "rows, cols = map(int, input().split())\n$a = []\nfor _ in range(rows):\n"
            "    $a.append(max(map(int, input().split())))",
        ),
        _draw_rows(max),
        formal=TABLE_FORMAL,
    ),
    Source(
        "row-firsts",
        "ints",
        (
            "There is a table of integers. Take the first cell of each row, in order.",
            "Take the first cell of each row of a table, in order.",
            "A table of integers is given. Write down the first cell of each row.",
        ),
        TABLE_LAYOUT,
        (
            "rows, cols = map(int, input().split())\n"
            "$a = [int(input().split()[0]) for _ in range(rows)]",
        ),
        _draw_rows(lambda row: row[0]),
        formal=TABLE_FORMAL,
    ),
    Source(
        "row-spreads",
        "ints",
        (
            "Take the difference of the largest and the smallest cell of each row of a table.",
            "A table of integers is given. In each row, subtract the smallest cell from the largest.",
        ),
        TABLE_LAYOUT,
        (
            "rows, cols = map(int, input().split())\n$a = []\nfor _ in range(rows):\n"
            "    row = list(map(int, input().split()))\n    $a.append(max(row) - min(row))",
        ),
        _draw_rows(lambda row: max(row) - min(row)),
        natural=True,
        formal=TABLE_FORMAL,
    ),
    Source(
        "products",
        "ints",
        (
            "Take the product x * y of each pair of numbers.",
            "Multiply the two numbers of each pair and write down the products.",
        ),
        ("The first line holds n, then n lines follow with x and y.",),
        (
            "$n = int(input())\n$a = []\nfor _ in range($n):\n"
            "    $x, $y = map(int, input().split())\n    $a.append($x * $y)",
        ),
        _draw_from_pairs(lambda x, y: x * y),
        counted=True,
    ),
    Source(
        "gaps",
        "ints",
        (
            "Take the distance |x - y| of each pair of numbers.",
            "For each pair of numbers write down how far apart they are.",
        ),
        ("The first line holds n, then n lines follow with x and y.",),
        (
            "$n = int(input())\n$a = []\nfor _ in range($n):\n"
            "    $x, $y = map(int, input().split())\n    $a.append(abs($x - $y))",
        ),
        _draw_from_pairs(lambda x, y: abs(x - y)),
        counted=True,
        natural=True,
    ),
    Source(
        "list-sums",
        "ints",
        (
            "Add two lists of equal length position by position.",
            "Two lists of equal length are given; take the sums of their items in equal places.",
        ),
        ("Each of the two lines holds one list.", "The lists stand on two lines."),
        (
            "$b = list(map(int, input().split()))\n$d = list(map(int, input().split()))\n"
            "$a = [$x + $y for $x, $y in zip($b, $d)]",
        ),
        _draw_from_lists(lambda x, y: x + y),
    ),
    Source(
        "list-maxima",
        "ints",
        (
            "Of two lists of equal length take the larger item in each place.",
            "Two lists of equal length are given; in every place the larger item counts.",
        ),
        ("Each of the two lines holds one list.", "The lists stand on two lines."),
        (
            "$b = list(map(int, input().split()))\n$d = list(map(int, input().split()))\n"
            "$a = [max($x, $y) for $x, $y in zip($b, $d)]",
        ),
        _draw_from_lists(max),
    ),
    Source(
        "recurrence",
        "ints",
        (
            "A sequence of n numbers starts with x; after a number v comes (p * v + q) mod 50.",
            "Build n numbers: the first is x, and each v is followed by (p * v + q) mod 50.",
        ),
        ("The input holds n, x, p and q.", "A single line holds n, x, p, q."),
        (
            "$n, $x, p, q = map(int, input().split())\n$a = []\nfor _ in range($n):\n"
            "    $a.append($x)\n    $x = (p * $x + q) % 50",
        ),
        _draw_recurrence,
        natural=True,
    ),
)
