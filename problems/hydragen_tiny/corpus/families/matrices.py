"""Families on matrices."""

from hydragen_tiny.corpus.families.build import family
from hydragen_tiny.corpus.parts import Family

value = family("matrix", "int")
listing = family("matrix", "list")
rows = family("matrix", "rows")
square = family("square", "int")
square_check = family("square", "bool")
square_rows = family("square", "rows")

Matrix = list[list[int]]


def _rings(m: Matrix) -> list[int]:
    """The first row, and then the rest turned left, again."""
    return [*m[0], *_rings([list(c) for c in zip(*m[1:], strict=True)][::-1])] if m and m[0] else []


def _cheapest(m: Matrix, i: int, j: int) -> int:
    before = [_cheapest(m, i - 1, j)] if i else []
    before += [_cheapest(m, i, j - 1)] if j else []
    return m[i][j] + min(before, default=0)


def _path_cost(m: Matrix) -> int:
    if len(m) + len(m[0]) > 14:
        raise ValueError
    return _cheapest(m, len(m) - 1, len(m[0]) - 1)


MATRICES: tuple[Family, ...] = (
    rows("matrix-itself", ("the matrix", "the resulting matrix"), ("$m",), lambda m: m),
    value(
        "cell-sum",
        ("the sum of all cells", "what all cells add up to"),
        (
            "sum(sum(row) for row in $m)",
            "$r = 0\nfor row in $m:\n    for $x in row:\n        $r += $x",
        ),
        lambda m: sum(sum(m, start=[])),
    ),
    value(
        "largest-cell",
        ("the largest cell", "the maximum of all cells"),
        ("max(max(row) for row in $m)", "max(map(max, $m))"),
        lambda m: sorted(sum(m, start=[]))[-1],
    ),
    value(
        "smallest-cell",
        ("the smallest cell", "the minimum of all cells"),
        ("min(min(row) for row in $m)", "min(map(min, $m))"),
        lambda m: sorted(sum(m, start=[]))[0],
    ),
    listing(
        "column-minima",
        ("the smallest cell of each column",),
        ("[min(col) for col in zip(*$m)]",),
        lambda m: [sorted(row[j] for row in m)[0] for j in range(len(m[0]))],
    ),
    listing(
        "row-maxima",
        ("the largest cell of each row", "the maximum of every row"),
        ("[max(row) for row in $m]", "list(map(max, $m))"),
        lambda m: [sorted(row)[-1] for row in m],
    ),
    listing(
        "row-spreads",
        ("for each row the difference between its largest and its smallest cell",),
        ("[max(row) - min(row) for row in $m]",),
        lambda m: [sorted(row)[-1] - sorted(row)[0] for row in m],
    ),
    value(
        "best-row",
        ("the number (from 1) of the first row with the largest sum",),
        (
            "sums = [sum(row) for row in $m]\n$r = sums.index(max(sums)) + 1",
            "best = 0\nfor i in range(len($m)):\n    if sum($m[i]) > sum($m[best]):\n"
            "        best = i\n$r = best + 1",
        ),
        lambda m: min(i + 1 for i in range(len(m)) if all(sum(m[i]) >= sum(row) for row in m)),
    ),
    listing(
        "row-sums",
        ("the sums of the rows", "the sum of each row"),
        ("[sum(row) for row in $m]", "list(map(sum, $m))"),
        lambda m: [sum(row[j] for j in range(len(row))) for row in m],
    ),
    listing(
        "column-sums",
        ("the sums of the columns", "the sum of each column"),
        (
            "[sum(col) for col in zip(*$m)]",
            "[sum(row[j] for row in $m) for j in range(len($m[0]))]",
        ),
        lambda m: [sum(m[i][j] for i in range(len(m))) for j in range(len(m[0]))],
    ),
    listing(
        "column-maxima",
        ("the largest cell of each column",),
        ("[max(col) for col in zip(*$m)]",),
        lambda m: [sorted(row[j] for row in m)[-1] for j in range(len(m[0]))],
    ),
    listing(
        "row-minima",
        ("the smallest cell of each row", "the minimum of every row"),
        ("[min(row) for row in $m]",),
        lambda m: [sorted(row)[0] for row in m],
    ),
    rows(
        "transposed",
        ("the transposed matrix", "the matrix with rows and columns swapped"),
        (
            "list(zip(*$m))",
            "$r = []\nfor j in range(len($m[0])):\n    $r.append([row[j] for row in $m])",
        ),
        lambda m: [[row[j] for row in m] for j in range(len(m[0]))],
    ),
    rows(
        "quarter-turn",
        ("the matrix turned clockwise by 90 degrees",),
        ("[list(col)[::-1] for col in zip(*$m)]", "list(zip(*$m[::-1]))"),
        lambda m: [[m[-1 - i][j] for i in range(len(m))] for j in range(len(m[0]))],
    ),
    listing(
        "spiral",
        ("the cells in clockwise spiral order from the top left corner",),
        (
            "$r = []\nwhile $m:\n    $r += $m[0]\n"
            "    $m = [list(col) for col in zip(*$m[1:])][::-1]",
        ),
        _rings,
    ),
    value(
        "border-sum",
        ("the sum of the cells on the border", "what the outermost cells add up to"),
        (
            "h, w = len($m), len($m[0])\n$r = 0\nfor i in range(h):\n    for j in range(w):\n"
            "        if i in (0, h - 1) or j in (0, w - 1):\n            $r += $m[i][j]",
        ),
        lambda m: sum(map(sum, m)) - sum(sum(row[1:-1]) for row in m[1:-1]),
    ),
    value(
        "cheapest-path",
        ("the least sum of cells on a way from top left to bottom right, going right or down",),
        (
            "for i in range(len($m)):\n    for j in range(len($m[0])):\n        if i and j:\n"
            "            $m[i][j] += min($m[i - 1][j], $m[i][j - 1])\n        elif i:\n"
            "            $m[i][j] += $m[i - 1][j]\n        elif j:\n"
            "            $m[i][j] += $m[i][j - 1]\n$r = $m[-1][-1]",
        ),
        _path_cost,
    ),
    value(
        "hollows",
        ("the number of cells smaller than all their neighbours (up, down, left, right)",),
        (
            "h, w = len($m), len($m[0])\n$r = 0\nfor i in range(h):\n    for j in range(w):\n"
            "        low = True\n"
            "        for x, y in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):\n"
            "            if 0 <= x < h and 0 <= y < w and $m[x][y] <= $m[i][j]:\n"
            "                low = False\n        $r += low",
        ),
        lambda m: sum(
            all(
                m[x][y] > m[i][j]
                for x in range(len(m))
                for y in range(len(m[0]))
                if abs(x - i) + abs(y - j) == 1
            )
            for i in range(len(m))
            for j in range(len(m[0]))
        ),
    ),
    square(
        "trace",
        ("the sum of the main diagonal", "the trace of the matrix"),
        (
            "sum($m[i][i] for i in range(len($m)))",
            "$r = 0\nfor i in range($n):\n    $r += $m[i][i]",
        ),
        lambda m: sum(row[i] for i, row in enumerate(m)),
    ),
    square(
        "diagonal-gap",
        ("the distance between the sums of the two diagonals",),
        ("abs(sum($m[i][i] - $m[i][-1 - i] for i in range(len($m))))",),
        lambda m: abs(
            sum(row[i] for i, row in enumerate(m)) - sum(row[-i - 1] for i, row in enumerate(m))
        ),
    ),
    square(
        "below-diagonal",
        ("the sum of the cells below the main diagonal",),
        ("sum($m[i][j] for i in range(len($m)) for j in range(i))",),
        lambda m: sum(sum(row[:i]) for i, row in enumerate(m)),
    ),
    square_check(
        "symmetric",
        ("the matrix is symmetric", "the matrix equals its transposed matrix"),
        (
            "all($m[i][j] == $m[j][i] for i in range($n) for j in range($n))",
            "[list(col) for col in zip(*$m)] == $m",
        ),
        lambda m: all(row == [other[i] for other in m] for i, row in enumerate(m)),
    ),
    square_rows(
        "matrix-squared",
        ("the matrix multiplied by itself",),
        ("[[sum($m[i][t] * $m[t][j] for t in range($n)) for j in range($n)] for i in range($n)]",),
        lambda m: [
            [sum(x * y for x, y in zip(row, col, strict=True)) for col in zip(*m, strict=True)]
            for row in m
        ],
    ),
)
