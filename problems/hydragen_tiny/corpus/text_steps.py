"""Steps on text and on lists of words."""

from collections.abc import Callable

from hydragen_tiny.corpus.parts import KRange, Step

VOWELS = "aeiou"


def _text(
    name: str,
    do: tuple[str, ...],
    code: tuple[str, ...],
    change: Callable[[str, int], str],
    k: KRange | None = None,
    shrinks: bool = False,
) -> Step:
    return Step(name, "text", do, change, code=code, k=k, shrinks=shrinks)


TEXT_STEPS = (
    _text(
        "text-lower",
        ("turn the text into lowercase", "replace capitals by small letters"),
        ("$s = $s.lower()",),
        lambda s, k: "".join(c.lower() for c in s),
    ),
    _text(
        "text-upper",
        ("turn the text into uppercase", "replace small letters by capitals"),
        ("$s = $s.upper()",),
        lambda s, k: "".join(c.upper() for c in s),
    ),
    _text(
        "text-reverse",
        ("reverse the text", "turn the text around"),
        ("$s = $s[::-1]", '$s = "".join(reversed($s))'),
        lambda s, k: "".join(s[-i - 1] for i in range(len(s))),
    ),
    _text(
        "text-swapcase",
        ("swap small letters and capitals",),
        ("$s = $s.swapcase()",),
        lambda s, k: "".join(c.lower() if c.isupper() else c.upper() for c in s),
    ),
    _text(
        "text-no-vowels",
        ("remove the vowels a, e, i, o, u", "drop all vowels"),
        (
            '$s = "".join($c for $c in $s if $c.lower() not in "aeiou")',
            '$s = "".join([$c for $c in $s if $c not in "aeiouAEIOU"])',
        ),
        lambda s, k: "".join(c for c in s if c.lower() not in VOWELS),
        shrinks=True,
    ),
    _text(
        "text-letters",
        ("keep only the letters", "drop everything that is not a letter"),
        (
            '$s = "".join($c for $c in $s if $c.isalpha())',
            'kept = ""\nfor $c in $s:\n    if $c.isalpha():\n        kept += $c\n$s = kept',
        ),
        lambda s, k: "".join(filter(str.isalpha, s)),
        shrinks=True,
    ),
    _text(
        "text-no-spaces",
        ("remove the spaces", "drop all spaces"),
        ('$s = $s.replace(" ", "")', '$s = "".join($s.split())'),
        lambda s, k: "".join(s.split(" ")),
    ),
    _text(
        "text-first-k",
        ("take the first {k} characters", "keep only the first {k} characters"),
        ("$s = $s[:$k]",),
        lambda s, k: "".join(c for i, c in enumerate(s) if i < k),
        k=(3, 9),
    ),
    _text(
        "text-every-second",
        (
            "keep only the first, third, fifth, ... character",
            "take every second character, beginning with the first",
        ),
        ("$s = $s[::2]",),
        lambda s, k: "".join(c for i, c in enumerate(s) if not i % 2),
    ),
    _text(
        "text-twice",
        ("write every character twice", "double every character"),
        ('$s = "".join($c * 2 for $c in $s)', '$s = "".join($c + $c for $c in $s)'),
        lambda s, k: "".join(c for c in s for _ in "ab"),
    ),
    _text(
        "text-squeeze",
        (
            "replace runs of one character by a single one",
            "drop each character equal to the one before it",
        ),
        (
            'kept = ""\nfor $c in $s:\n    if not kept or kept[-1] != $c:\n'
            "        kept += $c\n$s = kept",
        ),
        lambda s, k: "".join(c for i, c in enumerate(s) if i == 0 or s[i - 1] != c),
    ),
    _text(
        "text-sort",
        ("sort the characters", "put the characters in sorted order"),
        ('$s = "".join(sorted($s))',),
        lambda s, k: "".join(c * s.count(c) for c in sorted(set(s))),
    ),
)


def _moves(
    name: str,
    do: tuple[str, ...],
    code: tuple[str, ...],
    change: Callable[[str, int], str],
    k: KRange | None = None,
) -> Step:
    return Step(name, "moves", do, change, code=code, k=k)


MOVE_STEPS = (
    _moves(
        "moves-reverse",
        (
            "turn the line of moves around",
            "reverse the moves",
            "take the moves from the last to the first",
        ),
        ("$s = $s[::-1]", '$s = "".join(reversed($s))'),
        lambda s, k: "".join(s[-i - 1] for i in range(len(s))),
    ),
    _moves(
        "moves-squeeze",
        (
            "drop each move equal to the one before it",
            "replace runs of one move by a single one",
        ),
        (
            'kept = ""\nfor $c in $s:\n    if not kept or kept[-1] != $c:\n'
            "        kept += $c\n$s = kept",
            'kept = ""\nfor $c in $s:\n    if kept[-1:] != $c:\n        kept += $c\n$s = kept',
        ),
        lambda s, k: "".join(c for i, c in enumerate(s) if i == 0 or s[i - 1] != c),
    ),
    _moves(
        "moves-first-k",
        ("keep only the first {k} moves", "take the first {k} moves"),
        ("$s = $s[:$k]",),
        lambda s, k: "".join(c for i, c in enumerate(s) if i < k),
        k=(3, 9),
    ),
    _moves(
        "moves-every-second",
        ("keep only the first, third, fifth, ... move", "leave out every second move"),
        ("$s = $s[::2]",),
        lambda s, k: "".join(c for i, c in enumerate(s) if not i % 2),
    ),
    _moves(
        "moves-mirror",
        ("replace each L by R and each R by L", "exchange left and right"),
        (
            '$s = $s.translate(str.maketrans("LR", "RL"))',
            '$s = $s.replace("L", "x").replace("R", "L").replace("x", "R")',
        ),
        lambda s, k: "".join({"L": "R", "R": "L"}.get(c, c) for c in s),
    ),
    _moves(
        "moves-twice",
        ("write every move twice", "double every move"),
        ('$s = "".join($c * 2 for $c in $s)',),
        lambda s, k: "".join(c for c in s for _ in "ab"),
    ),
    _moves(
        "moves-no-down",
        ("drop all moves D", "leave out the moves down"),
        ('$s = $s.replace("D", "")', '$s = "".join($c for $c in $s if $c != "D")'),
        lambda s, k: "".join(c for c in s if c in "LRU"),
    ),
)


def _keep_words(
    name: str,
    do: tuple[str, ...],
    test: str,
    holds: Callable[[str, int], bool],
    k: KRange | None = None,
) -> Step:
    return Step(
        name, "words", do, lambda w, k: [u for u in w if holds(u, k)], test=test, k=k, shrinks=True
    )


def _each_word(
    name: str, do: tuple[str, ...], item: str, change: Callable[[str, int], str]
) -> Step:
    return Step(name, "words", do, lambda w, k: [change(u, k) for u in w], item=item)


def _all_words(
    name: str,
    do: tuple[str, ...],
    code: tuple[str, ...],
    change: Callable[[list[str], int], list[str]],
    shrinks: bool = False,
) -> Step:
    return Step(name, "words", do, change, code=code, shrinks=shrinks)


WORD_STEPS = (
    _keep_words(
        "words-longer",
        ("keep only the words with more than {k} letters", "drop the words of at most {k} letters"),
        "len($u) > $k",
        lambda u, k: len(u[k:]) > 0,
        k=(2, 4),
    ),
    _keep_words(
        "words-shorter",
        (
            "keep only the words with fewer than {k} letters",
            "drop the words of {k} letters or more",
        ),
        "len($u) < $k",
        lambda u, k: not u[k - 1 :],
        k=(3, 6),
    ),
    _keep_words(
        "words-vowel-start",
        (
            "keep only the words that begin with a vowel",
            "drop the words that begin with a consonant",
        ),
        '$u[0] in "aeiou"',
        lambda u, k: u[:1] in set(VOWELS),
    ),
    _keep_words(
        "words-even-length",
        ("keep only the words of even length",),
        "len($u) % 2 == 0",
        lambda u, k: not len(u) & 1,
    ),
    _keep_words(
        "words-palindromes",
        (
            "keep only the palindromes among the words",
            "drop the words that do not read the same backwards",
        ),
        "$u == $u[::-1]",
        lambda u, k: list(u) == list(reversed(u)),
    ),
    _keep_words(
        "words-with-e",
        ("keep only the words with the letter e", "drop words without an e"),
        '"e" in $u',
        lambda u, k: u.count("e") > 0,
    ),
    _each_word(
        "words-upper",
        ("write all words in capitals", "turn the words into uppercase"),
        "$u.upper()",
        lambda u, k: "".join(c.upper() for c in u),
    ),
    _each_word(
        "words-backwards",
        ("reverse every word", "write each of the words backwards"),
        "$u[::-1]",
        lambda u, k: "".join(reversed(u)),
    ),
    _each_word(
        "words-capitalise",
        ("capitalise every word", "start each word with a capital"),
        "$u.capitalize()",
        lambda u, k: u[0].upper() + u[1:].lower(),
    ),
    _each_word(
        "words-no-last",
        ("drop the last letter of the words that have several",),
        "$u[:-1] if len($u) > 1 else $u",
        lambda u, k: u[: max(1, len(u) - 1)],
    ),
    _each_word(
        "words-ends",
        ("replace every word by its first and last letter",),
        "$u[0] + $u[-1]",
        lambda u, k: "".join((u[:1], u[len(u) - 1 :])),
    ),
    _all_words(
        "words-sort",
        ("sort the words alphabetically", "put the words in sorted order"),
        ("$w.sort()", "$w = sorted($w)"),
        lambda w, k: sorted(w),
    ),
    _all_words(
        "words-by-length",
        ("sort the words by length, keeping the order of ties",),
        ("$w.sort(key=len)", "$w = sorted($w, key=len)"),
        lambda w, k: [u for n in range(99) for u in w if len(u) == n],
    ),
    _all_words(
        "words-reverse",
        ("reverse the order of the words", "turn the list of words around"),
        ("$w = $w[::-1]", "$w.reverse()"),
        lambda w, k: list(reversed(w)),
    ),
    _all_words(
        "words-unique",
        ("keep only the first of equal words", "drop repeated words"),
        ("$w = list(dict.fromkeys($w))",),
        lambda w, k: [u for i, u in enumerate(w) if u not in w[:i]],
        shrinks=True,
    ),
)
