"""Families on maps of characters, moves of a robot and commands to a stack."""

from hydragen_tiny.corpus.families.build import family

value = family("grid", "int")
check = family("grid", "bool")
listing = family("grid", "list")
rows = family("grid", "rows")
moves = family("moves", "int")
moves_check = family("moves", "bool")
moves_list = family("moves", "list")
stack_list = family("commands", "list")
stack_value = family("commands", "int")

Cell = tuple[int, int]


def _cells(g: list[str], what: str) -> set[Cell]:
    return {(i, j) for i, row in enumerate(g) for j, c in enumerate(row) if c == what}


def _spread(start: Cell, cells: set[Cell]) -> list[set[Cell]]:
    """Cells by the number of steps from start, through `cells`."""
    layers = [{start} & cells]
    seen = set(layers[0])
    while layers[-1]:
        around = {
            (i + a, j + b) for i, j in layers[-1] for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
        }
        layers.append(around & cells - seen)
        seen |= layers[-1]
    return layers[:-1]


def areas(g: list[str], mark: str = "#") -> list[int]:
    """Sizes of the connected areas of cells with this mark."""
    cells = _cells(g, mark)
    return [len(part) for part in {frozenset().union(*_spread(c, cells)) for c in cells}]


def _way_out(g: list[str]) -> int:
    goal = (len(g) - 1, len(g[0]) - 1)
    steps = enumerate(_spread((0, 0), _cells(g, ".")))
    return next((d for d, layer in steps if goal in layer), -1)


def _ways(g: list[str], i: int, j: int) -> int:
    if i < 0 or j < 0 or g[i][j] == "#":
        return 0
    return 1 if i == j == 0 else _ways(g, i - 1, j) + _ways(g, i, j - 1)


def _count_ways(g: list[str]) -> int:
    if len(g) + len(g[0]) > 14:
        raise ValueError
    return _ways(g, len(g) - 1, len(g[0]) - 1)


def _places(s: str) -> list[Cell]:
    """Every place of the robot, the start included."""
    return [
        (s[:i].count("R") - s[:i].count("L"), s[:i].count("U") - s[:i].count("D"))
        for i in range(len(s) + 1)
    ]


def _stacks(q: list[list[str]]) -> list[list[int]]:
    """The stack before each command, and at the end."""
    history: list[list[int]] = [[]]
    for verb, *rest in q:
        *below, top = history[-1] or [0]
        change = {"push": [*history[-1], *map(int, rest)], "top": history[-1]}
        if history[-1]:
            change |= {"pop": below, "double": [*below, top * 2]}
        history.append(change.get(verb, history[-1]))
    return history


FLOOD = """seen = set()
sizes = []
for i in range(rows):
    for j in range(cols):
        if $g[i][j] == "#" and (i, j) not in seen:
            seen.add((i, j))
            stack = [(i, j)]
            size = 0
            while stack:
                x, y = stack.pop()
                size += 1
                for p in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
                    if 0 <= p[0] < rows and 0 <= p[1] < cols and p not in seen:
                        if $g[p[0]][p[1]] == "#":
                            seen.add(p)
                            stack.append(p)
            sizes.append(size)
"""
SINK = """rest = [list(row) for row in $g]
sizes = []
for i in range(rows):
    for j in range(cols):
        if rest[i][j] == "#":
            rest[i][j] = ""
            stack = [(i, j)]
            size = 0
            while stack:
                x, y = stack.pop()
                size += 1
                for a, b in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
                    if 0 <= a < rows and 0 <= b < cols and rest[a][b] == "#":
                        rest[a][b] = ""
                        stack.append((a, b))
            sizes.append(size)
"""


def flood(mark: str) -> tuple[str, str]:
    """Program texts that list the sizes of the connected areas of a mark."""
    return FLOOD.replace('"#"', f'"{mark}"'), SINK.replace('"#"', f'"{mark}"')


WALK = """x = y = 0
for $c in $s:
    if $c == "L":
        x -= 1
    elif $c == "R":
        x += 1
    elif $c == "U":
        y += 1
    else:
        y -= 1
"""
SHORT_WALK = """x = $s.count("R") - $s.count("L")
y = $s.count("U") - $s.count("D")
"""
STACK = """stack = []
shown = []
for c in $q:
    if c[0] == "push":
        stack.append(int(c[1]))
    elif stack and c[0] == "pop":
        stack.pop()
    elif stack and c[0] == "top":
        shown.append(stack[-1])
    elif stack:
        stack[-1] *= 2
"""

WORLDS = (
    value(
        "walls",
        ("the number of walls", "how many cells are walls"),
        ('sum(row.count("#") for row in $g)', '"".join($g).count("#")'),
        lambda g: len(_cells(g, "#")),
    ),
    value(
        "fullest-row",
        ("the number (from 1) of the first row with the most walls",),
        ('counts = [row.count("#") for row in $g]\n$r = counts.index(max(counts)) + 1',),
        lambda g: min((-row.count("#"), i) for i, row in enumerate(g, 1))[1],
    ),
    value(
        "islands",
        (
            "the number of connected areas of walls (side by side)",
            "how many islands of # there are",
        ),
        (FLOOD + "$r = len(sizes)",),
        lambda g: len(areas(g)),
    ),
    value(
        "largest-island",
        ("the size of the largest connected area of walls (0 if there is none)",),
        (FLOOD + "$r = max(sizes, default=0)",),
        lambda g: max(areas(g), default=0),
    ),
    value(
        "way-out",
        ("the fewest steps over free cells from the top left to the bottom right (-1 if none)",),
        (
            'dist = {}\nqueue = []\nif $g[0][0] == ".":\n    dist[0, 0] = 0\n'
            "    queue.append((0, 0))\nfor i, j in queue:\n"
            "    for x, y in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):\n"
            "        if 0 <= x < rows and 0 <= y < cols and (x, y) not in dist:\n"
            '            if $g[x][y] == ".":\n                dist[x, y] = dist[i, j] + 1\n'
            "                queue.append((x, y))\n$r = dist.get((rows - 1, cols - 1), -1)",
        ),
        _way_out,
    ),
    value(
        "ways-through",
        ("the number of ways from top left to bottom right over free cells, going right or down",),
        (
            "dp = [[0] * (cols + 1) for _ in range(rows + 1)]\nfor i in range(rows):\n"
            '    for j in range(cols):\n        if $g[i][j] == ".":\n            if i + j == 0:\n'
            "                dp[1][1] = 1\n            else:\n"
            "                dp[i + 1][j + 1] = dp[i][j + 1] + dp[i + 1][j]\n$r = dp[rows][cols]",
        ),
        _count_ways,
    ),
    value(
        "free-next-to-wall",
        ("the number of free cells with a wall right next to them (up, down, left, right)",),
        (
            "$r = 0\nfor i in range(rows):\n    for j in range(cols):\n        near = False\n"
            "        for x, y in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):\n"
            '            if 0 <= x < rows and 0 <= y < cols and $g[x][y] == "#":\n'
            '                near = True\n        if near and $g[i][j] == ".":\n            $r += 1',
        ),
        lambda g: len(
            {
                (i, j)
                for i, j in _cells(g, ".")
                for x, y in _cells(g, "#")
                if abs(x - i) + abs(y - j) == 1
            }
        ),
    ),
    check(
        "free-column",
        ("some column has no wall", "there is a column of free cells only"),
        ('any("#" not in col for col in zip(*$g))',),
        lambda g: len({j for _, j in _cells(g, "#")}) < len(g[0]),
    ),
    listing(
        "walls-by-row",
        ("the number of walls in each row", "how many walls each row has"),
        ('[row.count("#") for row in $g]',),
        lambda g: [sum(i == t for i, _ in _cells(g, "#")) for t in range(len(g))],
    ),
    moves(
        "home-distance",
        (
            "how many steps the robot is from its start at the end",
            "the value of |x| + |y| at the end",
        ),
        (WALK + "$r = abs(x) + abs(y)", SHORT_WALK + "$r = abs(x) + abs(y)"),
        lambda s: sum(map(abs, _places(s)[-1])),
    ),
    moves(
        "places-visited",
        ("the number of different places visited, the start included",),
        (
            "x = y = 0\nseen = {(0, 0)}\nfor $c in $s:\n"
            '    x += ($c == "R") - ($c == "L")\n    y += ($c == "U") - ($c == "D")\n'
            "    seen.add((x, y))\n$r = len(seen)",
        ),
        lambda s: len(set(_places(s))),
    ),
    moves(
        "highest-place",
        ("the largest y on the way, the start included", "how high the robot gets (y)"),
        (
            'y = $r = 0\nfor $c in $s:\n    if $c == "U":\n        y += 1\n'
            '    if $c == "D":\n        y -= 1\n    $r = max($r, y)',
        ),
        lambda s: max(y for _, y in _places(s)),
    ),
    moves(
        "lowest-place",
        ("the smallest y on the way, the start included", "how low the robot gets (y)"),
        (
            'y = $r = 0\nfor $c in $s:\n    if $c == "U":\n        y += 1\n'
            '    if $c == "D":\n        y -= 1\n    $r = min($r, y)',
            'y = low = 0\nfor $c in $s:\n    y += ($c == "U") - ($c == "D")\n'
            "    low = min(low, y)\n$r = low",
        ),
        lambda s: min(y for _, y in _places(s)),
    ),
    moves(
        "rightmost-place",
        (
            "how far right the robot gets, that is the largest x on the way, the start included",
            "the largest x on the way, the start included",
        ),
        (
            'x = $r = 0\nfor $c in $s:\n    if $c == "R":\n        x += 1\n'
            '    if $c == "L":\n        x -= 1\n    $r = max($r, x)',
            'x = best = 0\nfor $c in $s:\n    x += ($c == "R") - ($c == "L")\n'
            "    best = max(best, x)\n$r = best",
        ),
        lambda s: max(x for x, _ in _places(s)),
    ),
    moves(
        "leftmost-place",
        ("the smallest x on the way, the start included", "how far left the robot gets (x)"),
        (
            'x = low = 0\nfor $c in $s:\n    x += ($c == "R") - ($c == "L")\n'
            "    low = min(low, x)\n$r = low",
        ),
        lambda s: min(x for x, _ in _places(s)),
    ),
    moves(
        "farthest-place",
        ("the largest |x| + |y| on the way", "how far from its start the robot gets (in steps)"),
        (
            'x = y = best = 0\nfor $c in $s:\n    x += ($c == "R") - ($c == "L")\n'
            '    y += ($c == "U") - ($c == "D")\n    best = max(best, abs(x) + abs(y))\n$r = best',
        ),
        lambda s: max(abs(x) + abs(y) for x, y in _places(s)),
    ),
    moves(
        "times-at-height",
        ("how often the robot is at y = 0 after a move", "the number of moves that end at y = 0"),
        (
            'y = $r = 0\nfor $c in $s:\n    y += ($c == "U") - ($c == "D")\n'
            "    if y == 0:\n        $r += 1",
        ),
        lambda s: sum(y == 0 for _, y in _places(s)[1:]),
    ),
    moves(
        "turns",
        ("the number of moves that differ from the move before", "how often the robot turns"),
        ("sum($s[i] != $s[i - 1] for i in range(1, len($s)))",),
        lambda s: sum(a != b for a, b in zip(s, s[1:], strict=False)),
    ),
    moves_check(
        "comes-home",
        ("the robot ends where it started", "the robot is at (0, 0) at the end"),
        (
            WALK + "$r = x == 0 and y == 0",
            '$s.count("L") == $s.count("R") and $s.count("U") == $s.count("D")',
        ),
        lambda s: _places(s)[-1] == (0, 0),
    ),
    moves_list(
        "last-place",
        ("x and y of the robot at the end", "the coordinates x and y where the robot ends"),
        (WALK + "$r = [x, y]", SHORT_WALK + "$r = [x, y]"),
        lambda s: list(_places(s)[-1]),
    ),
    stack_list(
        "stack-shown",
        ('what the commands print, then "end"', 'all printed numbers and after them "end"'),
        (STACK + '$r = shown + ["end"]',),
        lambda q: [
            *(
                stack[-1]
                for stack, (verb, *_) in zip(_stacks(q), q, strict=False)
                if stack and verb == "top"
            ),
            "end",
        ],
    ),
    stack_value(
        "stack-size",
        ("the size of the stack at the end", "how many numbers are left on the stack"),
        (STACK + "$r = len(stack)",),
        lambda q: len(_stacks(q)[-1]),
    ),
    stack_value(
        "stack-sum",
        ("the sum of the stack at the end", "what the numbers left on the stack add up to"),
        (STACK + "$r = sum(stack)",),
        lambda q: sum(_stacks(q)[-1]),
    ),
)
