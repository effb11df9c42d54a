"""How everything but lists of integers is read: text, words, pairs, matrices, grids, graphs."""

from hydragen_tiny.corpus import shape_data as data
from hydragen_tiny.corpus.parts import Source

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
        data.draw_text,
        formal=(
            "The only line contains a string of 1 to {length} characters.",
            "A single line holds the text, at most {length} characters.",
        ),
    ),
    Source(
        "single-word",
        "text",
        ("You are given a word.", "Read a word of lowercase letters."),
        ("The input is one word.", "A single line holds the word."),
        ("$s = input().strip()",),
        data.draw_single_word,
        whole_code="$s = sys.stdin.read().strip()",
        formal=(
            "The only line contains a string of 1 to {length} small letters.",
            "A single line holds the word, 1 to {length} small letters.",
            "The only line contains a word of at most {length} small letters, one letter for each place.",
        ),
    ),
    Source(
        "two-words",
        "texts",
        ("You are given two words s and t.", "Read two words s and t."),
        ("The first line holds s, the second line t.", "The words are on two lines."),
        ("$s = input().strip()\n$t = input().strip()",),
        data.draw_texts,
        whole_code="$s, $t = sys.stdin.read().split()",
        formal=(
            "The first line contains s, the second line t, both of 1 to {length} small letters.",
        ),
    ),
    Source(
        "two-words-line",
        "texts",
        ("You are given two words s and t.", "Read two words s and t."),
        ("One line holds s and t.", "Both words are on one line."),
        ("$s, $t = input().split()",),
        data.draw_texts_line,
    ),
    Source(
        "words",
        "words",
        ("You are given some words.", "A line of words is given.", "Read a list of words."),
        ("The input is one line of words.", "All words are on a single line."),
        ("$w = input().split()",),
        data.draw_words,
        whole_code="$w = sys.stdin.read().split()",
        formal=("The only line contains the words, at most {length} of them, in small letters.",),
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
        data.draw_words_lines,
        whole_code="$w = sys.stdin.read().split()[1:]",
        counted=True,
        formal=(
            "The first line contains {head}. Each of the next n lines contains one word of 1 to {size} small letters.",
            "The first line holds {head}, each of the next n lines one word. The words are of small letters.",
            "The first line contains {head}. Each of the next n lines contains one name of small letters.",
        ),
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
        data.draw_pairs,
        counted=True,
        formal=(
            "The first line contains {head}. Each of the next n lines contains {columns}, integers between {low} and {high}.",
            "The first line contains {head}. Each of the next n lines contains two integers x and y ({low} <= x, y <= {high}).",
            "The first line holds {head}, then n lines follow with {columns}, from {low} to {high}.",
        ),
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
        data.draw_intervals,
        counted=True,
        formal=(
            "The first line contains {head}. Each of the next n lines contains {columns}, integers between {low} and {high}.",
            "The first line contains {head}. Each of the next n lines contains two integers x and y ({low} <= x, y <= {high}).",
            "The first line holds {head}, then n lines follow with {columns}, from {low} to {high}.",
        ),
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
        data.draw_matrix,
        formal=(
            "The first line contains the numbers of rows and columns, both between 1 and {size}. Each of the next lines contains one row of integers from {low} to {high}.",
            "The first line holds the numbers of rows and columns (1 to {size} each), then the rows follow. The cells are from {low} to {high}.",
        ),
    ),
    Source(
        "square",
        "square",
        ("You are given a square matrix.", "There is a matrix with n rows and n columns."),
        ("The first line holds n, then n rows follow.",),
        ("$n = int(input())\n$m = [list(map(int, input().split())) for _ in range($n)]",),
        data.draw_square,
        counted=True,
        formal=(
            "The first line contains {head}. Each of the next n lines contains n integers between {low} and {high}.",
        ),
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
        data.draw_grid,
        formal=(
            "The first line contains the number of rows and of columns, both between 1 and {size}. Each of the next lines contains one row of the map.",
            "The first line contains the number of rows and the number of columns. The rows of the map follow, one on each line.",
        ),
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
        data.draw_graph,
        formal=(
            "The first line contains n and m (2 <= n <= {length}, 1 <= m <= {length}). Each of the next m lines contains two integers u and v (1 <= u, v <= n).",
            "The first line holds n and m (2 <= n <= {length}, 1 <= m <= {length}), then m lines follow with u and v.",
        ),
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
        data.draw_digraph,
        formal=(
            "The first line contains n and m (2 <= n <= {length}, 1 <= m <= {length}). Each of the next m lines contains two integers u and v (1 <= u, v <= n).",
            "The first line holds n and m (2 <= n <= {length}, 1 <= m <= {length}), then m lines follow with u and v.",
        ),
    ),
    Source(
        "number",
        "number",
        ("You are given an integer n.", "Read an integer n.", "There is a positive integer n."),
        ("The input is the number n.", "A single line holds n."),
        ("$n = int(input())",),
        data.draw_number,
        whole_code="$n = int(sys.stdin.read())",
        counted=True,
        formal=(
            "The only line contains {head}.",
            "A single line holds {head}.",
        ),
    ),
    Source(
        "numbers",
        "numbers",
        ("You are given two positive integers x and y.", "Read two positive integers x and y."),
        ("One line holds x and y.", "The input is x and y on one line."),
        ("$x, $y = map(int, input().split())",),
        data.draw_numbers,
        whole_code="$x, $y = map(int, sys.stdin.read().split())",
        formal=("The only line contains x and y (1 <= x, y <= {length}).",),
    ),
    Source(
        "numbers-lines",
        "numbers",
        ("You are given two positive integers x and y.", "Read two positive integers x and y."),
        ("The first line holds x, the second y.", "x and y are on separate lines."),
        ("$x = int(input())\n$y = int(input())",),
        data.draw_numbers_lines,
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
        data.draw_lists,
        formal=(
            "The first line contains the items of a, the second line those of b, integers between {low} and {high}.",
        ),
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
        data.draw_commands,
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
        data.draw_moves,
        formal=(
            "The only line contains the moves, 1 to {length} letters.",
            "The input is one line of at most {length} moves.",
            "A single line holds the moves, at most {length} of them.",
        ),
    ),
    Source(
        "brackets",
        "brackets",
        ("You are given a string of ( and ).", "Read a string of round brackets."),
        ("The input is one line.", "A single line holds the string."),
        ("$s = input().strip()",),
        data.draw_brackets,
        formal=(
            "The only line contains the string, 1 to {length} brackets.",
            "The only line contains a string of 1 to {length} brackets.",
        ),
    ),
)
