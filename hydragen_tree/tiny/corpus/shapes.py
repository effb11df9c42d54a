"""How everything but lists of integers is read: text, words, pairs, matrices, grids, graphs."""

from random import Random

from hydragen_tree.tiny.corpus.parts import Data, Scale, Source
from hydragen_tree.tiny.corpus.sources import draw_ints, draw_word, joined

LETTERS = "aabbcdeeimnorst"


def _draw_text(rng: Random, scale: Scale) -> Data:
    pieces = []
    for _ in range(rng.randint(1, max(1, scale.count // 3))):
        word = draw_word(rng, 6, LETTERS)
        pieces.append(rng.choice((word, word, word.capitalize(), word + str(rng.randint(0, 99)))))
    text = " ".join(pieces)
    if rng.random() < 0.25:
        half = pieces[0].lower()
        text = half + half[::-1]
    return Data((text,), (text,))


def _draw_single_word(rng: Random, scale: Scale) -> Data:
    word = draw_word(rng, 4, rng.choice((LETTERS, "abc"))) + draw_word(
        rng, max(1, scale.count - 2), rng.choice((LETTERS, "abc"))
    )
    if rng.random() < 0.25:
        word += word[::-1]
    return Data((word,), (word,))


def _two_words(rng: Random, scale: Scale) -> tuple[str, str]:
    alphabet = rng.choice(("abc", "abcde", LETTERS))
    first = draw_word(rng, 3, alphabet) + draw_word(rng, scale.count, alphabet)
    second = draw_word(rng, 3, alphabet) + draw_word(rng, scale.count, alphabet)
    kind = rng.random()
    if kind < 0.2:
        second = "".join(rng.sample(first, len(first)))
    elif kind < 0.4:
        second = "".join(c for c in first if rng.random() < 0.6) or first
    elif kind < 0.55:
        second = first[: rng.randint(1, len(first))] + second
    elif kind < 0.65:
        turn = rng.randrange(len(first))
        second = first[turn:] + first[:turn]
    return first, second


def _draw_texts(rng: Random, scale: Scale) -> Data:
    first, second = _two_words(rng, scale)
    return Data((first, second), (first, second))


def _draw_texts_line(rng: Random, scale: Scale) -> Data:
    first, second = _two_words(rng, scale)
    return Data((first, second), (f"{first} {second}",))


def _words(rng: Random, scale: Scale) -> list[str]:
    words = [draw_word(rng, 6, LETTERS) for _ in range(rng.randint(2, max(3, scale.count)))]
    if rng.random() < 0.5:
        words += [rng.choice(words) for _ in range(2)]
        rng.shuffle(words)
    if rng.random() < 0.3:
        short = draw_word(rng, 2, LETTERS)
        words.append(short + short[::-1])
    return words


def _draw_words(rng: Random, scale: Scale) -> Data:
    words = _words(rng, scale)
    return Data((words,), (" ".join(words),))


def _draw_words_lines(rng: Random, scale: Scale) -> Data:
    words = _words(rng, scale)
    return Data((words,), (str(len(words)), *words))


def _draw_pairs(rng: Random, scale: Scale) -> Data:
    pairs = []
    for _ in range(rng.randint(2, max(3, scale.count))):
        x = rng.randint(scale.low, scale.high // 2)
        y = rng.randint(scale.low, scale.high // 2)
        pairs.append((x, y))
    return Data((pairs,), (str(len(pairs)), *(f"{x} {y}" for x, y in pairs)))


def _draw_intervals(rng: Random, scale: Scale) -> Data:
    pairs = []
    for _ in range(rng.randint(2, max(3, scale.count))):
        x = rng.randint(0, 30)
        pairs.append((x, x + rng.randint(1, 12)))
    return Data((pairs,), (str(len(pairs)), *(f"{x} {y}" for x, y in pairs)))


def _draw_matrix(rng: Random, scale: Scale) -> Data:
    rows, columns = rng.randint(2, 2 + scale.count // 3), rng.randint(2, 2 + scale.count // 3)
    matrix = [
        [rng.randint(scale.low, min(scale.high, 20)) for _ in range(columns)] for _ in range(rows)
    ]
    return Data((matrix,), (f"{rows} {columns}", *(joined(row) for row in matrix)))


def _draw_square(rng: Random, scale: Scale) -> Data:
    n = rng.randint(2, 2 + scale.count // 4)
    matrix = [[rng.randint(scale.low, min(scale.high, 12)) for _ in range(n)] for _ in range(n)]
    if rng.random() < 0.35:
        matrix = [[matrix[min(i, j)][max(i, j)] for j in range(n)] for i in range(n)]
    return Data((matrix,), (str(n), *(joined(row) for row in matrix)))


def _draw_grid(rng: Random, scale: Scale) -> Data:
    rows, columns = rng.randint(2, 3 + scale.count // 3), rng.randint(2, 3 + scale.count // 3)
    share = rng.choice((0.2, 0.35, 0.5))
    grid = [
        "".join("#" if rng.random() < share else "." for _ in range(columns)) for _ in range(rows)
    ]
    return Data((grid,), (f"{rows} {columns}", *grid))


def _edges(rng: Random, scale: Scale) -> tuple[int, list[tuple[int, int]]]:
    """A simple graph: often a tree, sometimes a forest, sometimes with cycles."""
    n = rng.randint(3, max(4, scale.count))
    edges = {(rng.randint(1, v - 1), v) for v in range(2, n + 1) if rng.random() < 0.85}
    if rng.random() < 0.25:
        edges = {(rng.randint(1, v - 1), v) for v in range(2, n + 1)}
    elif rng.random() < 0.7:
        for _ in range(rng.randint(1, n)):
            u, v = rng.sample(range(1, n + 1), 2)
            edges.add((min(u, v), max(u, v)))
    chosen = sorted(edges) or [(1, 2)]
    rng.shuffle(chosen)
    return n, chosen


def _draw_graph(rng: Random, scale: Scale) -> Data:
    n, edges = _edges(rng, scale)
    edges = [e if rng.random() < 0.5 else (e[1], e[0]) for e in edges]
    adj: list[list[int]] = [[] for _ in range(n + 1)]
    for u, v in edges:
        adj[u].append(v)
        adj[v].append(u)
    return Data((n, adj), (f"{n} {len(edges)}", *(f"{u} {v}" for u, v in edges)))


def _draw_digraph(rng: Random, scale: Scale) -> Data:
    n, edges = _edges(rng, scale)
    backwards = rng.choice((0.0, 0.3))
    edges = [(v, u) if rng.random() < backwards else (u, v) for u, v in edges]
    adj: list[list[int]] = [[] for _ in range(n + 1)]
    for u, v in edges:
        adj[u].append(v)
    return Data((n, adj), (f"{n} {len(edges)}", *(f"{u} {v}" for u, v in edges)))


def _draw_number(rng: Random, scale: Scale) -> Data:
    n = rng.choice((rng.randint(1, 30), rng.randint(1, 30), rng.randint(10, 400)))
    if rng.random() < 0.2:
        n = rng.choice((n * n, 2 ** (n % 9), n * 11))
    n = min(n, 900)
    return Data((n,), (str(n),))


def _draw_numbers(rng: Random, scale: Scale) -> Data:
    unit = rng.choice((1, 1, 2, 3, 6))
    x, y = unit * rng.randint(1, 30), unit * rng.randint(1, 30)
    return Data((x, y), (f"{x} {y}",))


def _draw_numbers_lines(rng: Random, scale: Scale) -> Data:
    x, y = _draw_numbers(rng, scale).values
    return Data((x, y), (str(x), str(y)))


def _draw_lists(rng: Random, scale: Scale) -> Data:
    a = draw_ints(rng, scale)
    b = [rng.choice((rng.randint(scale.low, scale.high), rng.choice(a))) for _ in a]
    return Data((a, b), (joined(a), joined(b)))


def _draw_commands(rng: Random, scale: Scale) -> Data:
    verbs = ("push", "push", "pop", "top", "double")
    commands = []
    for _ in range(rng.randint(3, max(4, scale.count))):
        verb = rng.choice(verbs)
        commands.append([verb, str(rng.randint(1, 20))] if verb == "push" else [verb])
    return Data((commands,), (str(len(commands)), *(" ".join(c) for c in commands)))


def _draw_moves(rng: Random, scale: Scale) -> Data:
    text = "".join(rng.choice("LRUD") for _ in range(rng.randint(2, max(4, scale.count))))
    return Data((text,), (text,))


def _draw_brackets(rng: Random, scale: Scale) -> Data:
    text, depth = "", 0
    for _ in range(rng.randint(1, max(3, scale.count // 2))):
        if depth and rng.random() < 0.5:
            text, depth = text + ")", depth - 1
        else:
            text, depth = text + "(", depth + 1
    text += ")" * (depth if rng.random() < 0.75 else rng.randint(0, depth + 1))
    return Data((text,), (text,))


READ_EDGES = """$n, m = map(int, input().split())
$adj = [[] for _ in range($n + 1)]
for _ in range(m):
    u, v = map(int, input().split())
    $adj[u].append(v)
"""

SHAPE_SOURCES = (
    Source(
        "text",
        "text",
        ("You are given a line of text.", "Read a line of text.", "There is one line of text."),
        ("The input is one line.", "A single line holds the text."),
        ("$s = input()",),
        _draw_text,
    ),
    Source(
        "single-word",
        "text",
        ("You are given a word.", "Read a word of lowercase letters."),
        ("The input is one word.", "A single line holds the word."),
        ("$s = input().strip()",),
        _draw_single_word,
        whole_code="$s = sys.stdin.read().strip()",
    ),
    Source(
        "two-words",
        "texts",
        ("You are given two words s and t.", "Read two words s and t."),
        ("The first line holds s, the second line t.", "The words are on two lines."),
        ("$s = input().strip()\n$t = input().strip()",),
        _draw_texts,
        whole_code="$s, $t = sys.stdin.read().split()",
    ),
    Source(
        "two-words-line",
        "texts",
        ("You are given two words s and t.", "Read two words s and t."),
        ("One line holds s and t.", "Both words are on one line."),
        ("$s, $t = input().split()",),
        _draw_texts_line,
    ),
    Source(
        "words",
        "words",
        ("You are given some words.", "A line of words is given.", "Read a list of words."),
        ("The input is one line of words.", "All words are on a single line."),
        ("$w = input().split()",),
        _draw_words,
        whole_code="$w = sys.stdin.read().split()",
    ),
    Source(
        "words-lines",
        "words",
        ("You are given n words.", "There are n words."),
        ("The first line holds n, each of the next n lines one word.",),
        (
            "$n = int(input())\n$w = [input().strip() for _ in range($n)]",
            "$n = int(input())\n$w = []\nfor _ in range($n):\n    $w.append(input().strip())",
        ),
        _draw_words_lines,
        whole_code="$w = sys.stdin.read().split()[1:]",
        counted=True,
    ),
    Source(
        "pairs",
        "pairs",
        ("You are given n pairs of integers x and y.", "There are n pairs (x, y)."),
        ("The first line holds n, then n lines follow with x and y.",),
        (
            "$n = int(input())\n$p = [tuple(map(int, input().split())) for _ in range($n)]",
            "$n = int(input())\n$p = []\nfor _ in range($n):\n"
            "    $x, $y = map(int, input().split())\n    $p.append(($x, $y))",
        ),
        _draw_pairs,
        counted=True,
    ),
    Source(
        "intervals",
        "intervals",
        ("You are given n intervals from x to y.", "There are n time spans, each from x to y."),
        ("The first line holds n, then n lines follow with x and y.",),
        (
            "$n = int(input())\n$p = [tuple(map(int, input().split())) for _ in range($n)]",
            "$n = int(input())\n$p = []\nfor _ in range($n):\n"
            "    $x, $y = map(int, input().split())\n    $p.append(($x, $y))",
        ),
        _draw_intervals,
        counted=True,
    ),
    Source(
        "matrix",
        "matrix",
        ("You are given a matrix of integers.", "There is a table of integers."),
        (
            "The first line holds the numbers of rows and columns, then the rows follow.",
            "Input: r and c, then r lines with c integers each.",
        ),
        (
            "rows, cols = map(int, input().split())\n"
            "$m = [list(map(int, input().split())) for _ in range(rows)]",
            "rows, cols = map(int, input().split())\n$m = []\nfor _ in range(rows):\n"
            "    $m.append(list(map(int, input().split())))",
        ),
        _draw_matrix,
    ),
    Source(
        "square",
        "square",
        ("You are given a square matrix.", "There is a matrix with n rows and n columns."),
        ("The first line holds n, then n rows follow.",),
        ("$n = int(input())\n$m = [list(map(int, input().split())) for _ in range($n)]",),
        _draw_square,
        counted=True,
    ),
    Source(
        "grid",
        "grid",
        (
            "A map consists of free cells (.) and walls (#).",
            "You are given a grid of the characters . (free) and # (wall).",
        ),
        (
            "The first line holds the numbers of rows and columns, then the rows follow.",
            "Input: r and c, then r lines of c characters.",
        ),
        ("rows, cols = map(int, input().split())\n$g = [input().strip() for _ in range(rows)]",),
        _draw_grid,
    ),
    Source(
        "graph",
        "graph",
        (
            "A graph has n nodes (1 to n) and m undirected edges.",
            "There are n towns, numbered from 1, and m roads between them.",
        ),
        ("The first line holds n and m, then m lines follow with u and v.",),
        (READ_EDGES + "    $adj[v].append(u)",),
        _draw_graph,
    ),
    Source(
        "digraph",
        "digraph",
        (
            "A graph has n nodes (1 to n) and m directed edges u -> v.",
            "There are n pages, numbered from 1, and m links, each from page u to page v.",
        ),
        ("The first line holds n and m, then m lines follow with u and v.",),
        (READ_EDGES.rstrip(),),
        _draw_digraph,
    ),
    Source(
        "number",
        "number",
        ("You are given an integer n.", "Read an integer n.", "There is a positive integer n."),
        ("The input is the number n.", "A single line holds n."),
        ("$n = int(input())",),
        _draw_number,
        whole_code="$n = int(sys.stdin.read())",
        counted=True,
    ),
    Source(
        "numbers",
        "numbers",
        ("You are given two positive integers x and y.", "Read two positive integers x and y."),
        ("One line holds x and y.", "The input is x and y on one line."),
        ("$x, $y = map(int, input().split())",),
        _draw_numbers,
        whole_code="$x, $y = map(int, sys.stdin.read().split())",
    ),
    Source(
        "numbers-lines",
        "numbers",
        ("You are given two positive integers x and y.", "Read two positive integers x and y."),
        ("The first line holds x, the second y.", "x and y are on separate lines."),
        ("$x = int(input())\n$y = int(input())",),
        _draw_numbers_lines,
    ),
    Source(
        "two-lists",
        "lists",
        ("You are given two lists a and b of equal length.", "Read two lists a and b."),
        ("The first line holds a, the second line b.", "Each list is on its own line."),
        (
            "$a = list(map(int, input().split()))\n$b = list(map(int, input().split()))",
            "$a = [int($x) for $x in input().split()]\n$b = [int($x) for $x in input().split()]",
        ),
        _draw_lists,
    ),
    Source(
        "commands",
        "commands",
        (
            'A stack starts empty and gets n commands: "push v", "pop" (drop the top), "top" '
            '(print the top) and "double" (double the top). On an empty stack only push works.',
        ),
        ("The first line holds n, each of the next n lines one command.",),
        ("$n = int(input())\n$q = [input().split() for _ in range($n)]",),
        _draw_commands,
        counted=True,
    ),
    Source(
        "moves",
        "moves",
        (
            "A robot starts at (0, 0). L and R change x by -1 and +1, D and U change y by -1, +1.",
            "A robot at (0, 0) gets moves: L is x-1, R is x+1, D is y-1, U is y+1.",
        ),
        ("The input is one line of moves.", "A single line holds the moves."),
        ("$s = input().strip()",),
        _draw_moves,
    ),
    Source(
        "brackets",
        "brackets",
        ("You are given a string of ( and ).", "Read a string of round brackets."),
        ("The input is one line.", "A single line holds the string."),
        ("$s = input().strip()",),
        _draw_brackets,
    ),
)
