"""Random text, words, pairs, matrices, grids, graphs, and the lines they are read from."""

from random import Random

from hydragen_tiny.corpus.parts import Data, Scale
from hydragen_tiny.corpus.sources import draw_ints, draw_word, joined

LETTERS = "aabbcdeeimnorst"


def draw_text(rng: Random, scale: Scale) -> Data:
    pieces = []
    for _ in range(rng.randint(1, max(1, scale.count // 3))):
        word = draw_word(rng, 6, LETTERS)
        pieces.append(rng.choice((word, word, word.capitalize(), word + str(rng.randint(0, 99)))))
    text = " ".join(pieces)
    if rng.random() < 0.25:
        half = pieces[0].lower()
        text = half + half[::-1]
    return Data((text,), (text,))


def draw_single_word(rng: Random, scale: Scale) -> Data:
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


def draw_texts(rng: Random, scale: Scale) -> Data:
    first, second = _two_words(rng, scale)
    return Data((first, second), (first, second))


def draw_texts_line(rng: Random, scale: Scale) -> Data:
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


def draw_words(rng: Random, scale: Scale) -> Data:
    words = _words(rng, scale)
    return Data((words,), (" ".join(words),))


def draw_words_lines(rng: Random, scale: Scale) -> Data:
    words = _words(rng, scale)
    return Data((words,), (str(len(words)), *words))


def draw_pairs(rng: Random, scale: Scale) -> Data:
    pairs = []
    for _ in range(rng.randint(2, max(3, scale.count))):
        x = rng.randint(scale.low, scale.high // 2)
        y = rng.randint(scale.low, scale.high // 2)
        pairs.append((x, y))
    return Data((pairs,), (str(len(pairs)), *(f"{x} {y}" for x, y in pairs)))


def draw_intervals(rng: Random, scale: Scale) -> Data:
    pairs = []
    for _ in range(rng.randint(2, max(3, scale.count))):
        x = rng.randint(0, 30)
        pairs.append((x, x + rng.randint(1, 12)))
    return Data((pairs,), (str(len(pairs)), *(f"{x} {y}" for x, y in pairs)))


def draw_matrix(rng: Random, scale: Scale) -> Data:
    rows, columns = rng.randint(2, 2 + scale.count // 3), rng.randint(2, 2 + scale.count // 3)
    matrix = [
        [rng.randint(scale.low, min(scale.high, 20)) for _ in range(columns)] for _ in range(rows)
    ]
    return Data((matrix,), (f"{rows} {columns}", *(joined(row) for row in matrix)))


def draw_square(rng: Random, scale: Scale) -> Data:
    n = rng.randint(2, 2 + scale.count // 4)
    matrix = [[rng.randint(scale.low, min(scale.high, 12)) for _ in range(n)] for _ in range(n)]
    if rng.random() < 0.35:
        matrix = [[matrix[min(i, j)][max(i, j)] for j in range(n)] for i in range(n)]
    return Data((matrix,), (str(n), *(joined(row) for row in matrix)))


def draw_grid(rng: Random, scale: Scale) -> Data:
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


def draw_graph(rng: Random, scale: Scale) -> Data:
    n, edges = _edges(rng, scale)
    edges = [e if rng.random() < 0.5 else (e[1], e[0]) for e in edges]
    adj: list[list[int]] = [[] for _ in range(n + 1)]
    for u, v in edges:
        adj[u].append(v)
        adj[v].append(u)
    return Data((n, adj), (f"{n} {len(edges)}", *(f"{u} {v}" for u, v in edges)))


def draw_digraph(rng: Random, scale: Scale) -> Data:
    n, edges = _edges(rng, scale)
    backwards = rng.choice((0.0, 0.3))
    edges = [(v, u) if rng.random() < backwards else (u, v) for u, v in edges]
    adj: list[list[int]] = [[] for _ in range(n + 1)]
    for u, v in edges:
        adj[u].append(v)
    return Data((n, adj), (f"{n} {len(edges)}", *(f"{u} {v}" for u, v in edges)))


def draw_number(rng: Random, scale: Scale) -> Data:
    n = rng.choice((rng.randint(1, 30), rng.randint(1, 30), rng.randint(10, 400)))
    if rng.random() < 0.2:
        n = rng.choice((n * n, 2 ** (n % 9), n * 11))
    n = min(n, 900)
    return Data((n,), (str(n),))


def draw_numbers(rng: Random, scale: Scale) -> Data:
    unit = rng.choice((1, 1, 2, 3, 6))
    x, y = unit * rng.randint(1, 30), unit * rng.randint(1, 30)
    return Data((x, y), (f"{x} {y}",))


def draw_numbers_lines(rng: Random, scale: Scale) -> Data:
    x, y = draw_numbers(rng, scale).values
    return Data((x, y), (str(x), str(y)))


def draw_lists(rng: Random, scale: Scale) -> Data:
    a = draw_ints(rng, scale)
    b = [rng.choice((rng.randint(scale.low, scale.high), rng.choice(a))) for _ in a]
    return Data((a, b), (joined(a), joined(b)))


def draw_commands(rng: Random, scale: Scale) -> Data:
    verbs = ("push", "push", "pop", "top", "double")
    commands = []
    for _ in range(rng.randint(3, max(4, scale.count))):
        verb = rng.choice(verbs)
        commands.append([verb, str(rng.randint(1, 20))] if verb == "push" else [verb])
    return Data((commands,), (str(len(commands)), *(" ".join(c) for c in commands)))


def draw_moves(rng: Random, scale: Scale) -> Data:
    text = "".join(rng.choice("LRUD") for _ in range(rng.randint(2, max(4, scale.count))))
    return Data((text,), (text,))


def draw_brackets(rng: Random, scale: Scale) -> Data:
    text, depth = "", 0
    for _ in range(rng.randint(1, max(3, scale.count // 2))):
        if depth and rng.random() < 0.5:
            text, depth = text + ")", depth - 1
        else:
            text, depth = text + "(", depth + 1
    text += ")" * (depth if rng.random() < 0.75 else rng.randint(0, depth + 1))
    return Data((text,), (text,))
