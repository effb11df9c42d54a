"""Steps on pairs of integers and on matrices."""

from collections.abc import Callable
from typing import Any

from hydragen_tiny.corpus.parts import KRange, Step


def _keep_pairs(
    name: str,
    do: tuple[str, ...],
    test: str,
    holds: Callable[[int, int, int], bool],
    k: KRange | None = None,
) -> Step:
    return Step(
        name,
        "pairs",
        do,
        lambda p, k: [(x, y) for x, y in p if holds(x, y, k)],
        test=test,
        k=k,
        shrinks=True,
    )


def _by_ratio(p: Any, k: int) -> Any:
    if any(y < 1 for _, y in p):
        raise ValueError
    return sorted(p, key=lambda q: q[0] / q[1])


PAIR_STEPS = (
    _keep_pairs(
        "pairs-rising",
        ("keep only the pairs with x < y", "drop the pairs with x >= y"),
        "$x < $y",
        lambda x, y, k: y - x > 0,
    ),
    _keep_pairs(
        "pairs-even-sum",
        ("keep only the pairs with an even sum x + y",),
        "($x + $y) % 2 == 0",
        lambda x, y, k: x % 2 == y % 2,
    ),
    _keep_pairs(
        "pairs-near",
        ("keep only the pairs with x and y at most {k} apart",),
        "abs($x - $y) <= $k",
        lambda x, y, k: -k <= x - y <= k,
        k=(3, 9),
    ),
    _keep_pairs(
        "pairs-big",
        ("keep only the pairs whose sum exceeds {k}", "drop the pairs with x + y at most {k}"),
        "$x + $y > $k",
        lambda x, y, k: x > k - y,
        k=(5, 25),
    ),
    Step(
        "pairs-swap",
        "pairs",
        ("swap x and y in each pair", "exchange x and y everywhere"),
        lambda p, k: [(y, x) for x, y in p],
        item="($y, $x)",
    ),
    Step(
        "pairs-sort",
        "pairs",
        ("sort the pairs by y, keeping the order of ties",),
        lambda p, k: [q for y in sorted({q[1] for q in p}) for q in p if q[1] == y],
        code=("$p.sort(key=lambda q: q[1])", "$p = sorted($p, key=lambda q: q[1])"),
    ),
    Step(
        "pairs-turn",
        "pairs",
        (
            "swap the two numbers of each pair in which the first is the larger",
            "turn each pair so that its smaller number comes first",
            "turn each pair by a quarter where that puts the smaller number in front",
        ),
        lambda p, k: [(min(q), max(q)) for q in p],
        item="(min($x, $y), max($x, $y))",
    ),
    Step(
        "pairs-by-first",
        "pairs",
        ("sort the pairs by x, keeping the order of ties", "put the pairs in the order of x"),
        lambda p, k: [q for x in sorted({q[0] for q in p}) for q in p if q[0] == x],
        code=("$p.sort(key=lambda q: q[0])", "$p = sorted($p, key=lambda q: q[0])"),
    ),
    Step(
        "pairs-by-ratio",
        "pairs",
        (
            "sort the pairs by x / y, keeping the order of ties",
            "put the pairs in the order of x divided by y, smallest first",
        ),
        _by_ratio,
        code=("$p.sort(key=lambda q: q[0] / q[1])", "$p = sorted($p, key=lambda q: q[0] / q[1])"),
    ),
    Step(
        "pairs-reverse",
        "pairs",
        ("reverse the order of the pairs", "take the pairs from the last to the first"),
        lambda p, k: list(reversed(p)),
        code=("$p = $p[::-1]", "$p.reverse()"),
    ),
    Step(
        "pairs-double",
        "pairs",
        ("double x in each pair", "multiply every x by two"),
        lambda p, k: [(x + x, y) for x, y in p],
        item="(2 * $x, $y)",
    ),
)


def _cells(
    name: str,
    do: tuple[str, ...],
    cell: str,
    change: Callable[[int, int], int],
    k: KRange | None = None,
    signed: bool = False,
) -> tuple[Step, Step]:
    """The same map of all cells, for matrices and for square matrices."""
    code = (
        f"$m = [[{cell} for $x in row] for row in $m]",
        f"for row in $m:\n    for j in range(len(row)):\n        $x = row[j]\n"
        f"        row[j] = {cell}",
    )

    def spec(m: Any, k: int) -> Any:
        return [[change(x, k) for x in row] for row in m]

    matrix, square = (
        Step(f"{kind}-{name}", kind, do, spec, code=code, k=k, signed=signed)
        for kind in ("matrix", "square")
    )
    return matrix, square


MATRIX_STEPS = (
    *_cells(
        "double", ("double every cell", "multiply all cells by two"), "2 * $x", lambda x, k: x + x
    ),
    *_cells(
        "square",
        ("square every cell", "replace every cell by its square"),
        "$x * $x",
        lambda x, k: x**2,
    ),
    *_cells(
        "modulo",
        ("take every cell modulo {k}", "replace cells by their remainder modulo {k}"),
        "$x % $k",
        lambda x, k: x - x // k * k,
        k=(2, 7),
    ),
    *_cells(
        "cap",
        ("replace all cells above {k} by {k}", "lower cells greater than {k} to {k}"),
        "min($x, $k)",
        lambda x, k: x if x < k else k,
        k=(5, 15),
    ),
    *_cells(
        "subtract",
        ("subtract {k} from every cell", "lower all cells by {k}"),
        "$x - $k",
        lambda x, k: -(k - x),
        k=(1, 9),
        signed=True,
    ),
    *_cells(
        "zero-odd",
        ("replace odd cells by 0", "set all odd cells to zero"),
        "$x if $x % 2 == 0 else 0",
        lambda x, k: 0 if x & 1 else x,
    ),
    Step(
        "matrix-flip",
        "matrix",
        ("reverse every row", "mirror the rows"),
        lambda m, k: [list(reversed(row)) for row in m],
        code=("$m = [row[::-1] for row in $m]",),
    ),
    Step(
        "matrix-upside-down",
        "matrix",
        ("reverse the order of the rows",),
        lambda m, k: list(reversed(m)),
        code=("$m = $m[::-1]", "$m.reverse()"),
    ),
    Step(
        "matrix-sort-rows",
        "matrix",
        ("sort each row in ascending order", "sort every row"),
        lambda m, k: [sorted(row) for row in m],
        code=("$m = [sorted(row) for row in $m]", "for row in $m:\n    row.sort()"),
    ),
    Step(
        "matrix-transpose",
        "matrix",
        ("transpose the matrix", "swap rows and columns"),
        lambda m, k: [[row[j] for row in m] for j in range(len(m[0]))],
        code=("$m = [list(row) for row in zip(*$m)]",),
    ),
)
