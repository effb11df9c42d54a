"""Families on a list of words."""

from collections import Counter

from hydragen_tiny.corpus.families.build import family

value = family("words", "int")
check = family("words", "bool")
text = family("words", "text")
listing = family("words", "list")
rows = family("words", "rows")

WORDS = (
    listing(
        "words-themselves",
        ("the words", "the resulting words", "the words that remain"),
        ("$w",),
        lambda w: w,
    ),
    value(
        "word-count",
        ("the number of words", "how many words there are"),
        ("len($w)",),
        lambda w: sum(1 for _ in w),
        fold=("0", "$r += 1"),
        least=0,
    ),
    value(
        "total-length",
        ("the total number of letters", "the sum of the lengths of the words"),
        ("sum(len($u) for $u in $w)", 'len("".join($w))'),
        lambda w: sum(map(len, w)),
        fold=("0", "$r += len($u)"),
        least=0,
    ),
    value(
        "different-words",
        ("the number of different words", "how many different words there are"),
        ("len(set($w))",),
        lambda w: len(Counter(w)),
        least=0,
    ),
    value(
        "longest-length",
        ("the length of the longest word", "how long the longest word is"),
        ("max(len($u) for $u in $w)", "max(map(len, $w))"),
        lambda w: sorted(len(u) for u in w)[-1],
    ),
    text(
        "longest-word",
        ("the first of the longest words", "the longest word (the first in a tie)"),
        (
            "max($w, key=len)",
            "best = $w[0]\nfor $u in $w:\n    if len($u) > len(best):\n        best = $u\n$r = best",
        ),
        lambda w: next(u for u in w if len(u) == max(map(len, w))),
    ),
    text(
        "shortest-word",
        ("the first of the shortest words", "the shortest word (the first in a tie)"),
        ("min($w, key=len)",),
        lambda w: next(u for u in w if len(u) == min(map(len, w))),
    ),
    text(
        "first-word",
        ("the word that comes first in the alphabet", "the alphabetically first word"),
        ("min($w)", "sorted($w)[0]"),
        lambda w: sorted(w)[0],
    ),
    text(
        "initials",
        ("the first letters of the words as one word", "the word made of all first letters"),
        (
            '"".join($u[0] for $u in $w)',
            '$r = ""\nfor $u in $w:\n    $r += $u[0]',
        ),
        lambda w: "".join(u[:1] for u in w),
    ),
    text(
        "joined",
        ("the words joined by hyphens", "the words with a hyphen between each two"),
        ('"-".join($w)',),
        lambda w: "".join(u if i == 0 else "-" + u for i, u in enumerate(w)),
    ),
    text(
        "commonest-word",
        ("the most frequent word (the alphabetically first in a tie)",),
        (
            "min($w, key=lambda $u: (-$w.count($u), $u))",
            "max(sorted(set($w)), key=$w.count)",
        ),
        lambda w: sorted(Counter(w).items(), key=lambda e: (-e[1], e[0]))[0][0],
    ),
    listing(
        "word-lengths",
        ("the lengths of the words", "the length of each word"),
        ("[len($u) for $u in $w]", "list(map(len, $w))"),
        lambda w: [sum(1 for _ in u) for u in w],
    ),
    listing(
        "repeated-words",
        ("the words that occur more than once, each once in sorted order (none: a line with -)",),
        ('sorted({$u for $u in $w if $w.count($u) > 1}) or ["-"]',),
        lambda w: sorted(u for u in set(w) if w.count(u) > 1) or ["-"],
    ),
    check(
        "chain",
        ("each word begins with the last letter of the word before", "the words form a chain"),
        (
            "all($w[i][0] == $w[i - 1][-1] for i in range(1, len($w)))",
            "$r = True\nfor i in range(1, len($w)):\n    if $w[i - 1][-1] != $w[i][0]:\n"
            "        $r = False",
        ),
        lambda w: not [1 for u, v in zip(w, w[1:], strict=False) if u[-1:] != v[:1]],
        least=0,
    ),
    check(
        "word-twice",
        ("some word occurs more than once", "two of the words are equal"),
        ("len(set($w)) < len($w)",),
        lambda w: any(w.count(u) > 1 for u in w),
        least=0,
    ),
    rows(
        "word-table",
        ("each different word with its number of occurrences, in sorted order",),
        (
            "[($u, $w.count($u)) for $u in sorted(set($w))]",
            "counts = {}\nfor $u in $w:\n    counts[$u] = counts.get($u, 0) + 1\n"
            "$r = sorted(counts.items())",
        ),
        lambda w: sorted(Counter(w).items()),
    ),
    value(
        "anagram-groups",
        ("the number of groups when anagrams are put together",),
        ('len({"".join(sorted($u)) for $u in $w})',),
        lambda w: len({tuple(sorted(Counter(u).items())) for u in w}),
        least=0,
    ),
)
