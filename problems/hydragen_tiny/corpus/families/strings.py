"""Families on one text or two."""

from collections import Counter
from itertools import groupby

from hydragen_tiny.corpus.families.build import family

value = family("text", "int")
check = family("text", "bool")
text = family("text", "text")
pair_value = family("texts", "int")
pair_check = family("texts", "bool")
pair_text = family("texts", "text")
bracket_value = family("brackets", "int")
bracket_check = family("brackets", "bool")


def _distance(s: str, t: str) -> int:
    """Edit distance by breadth-first search over the prefixes left."""
    frontier, steps, seen = {(0, 0)}, 0, set()
    while True:
        closed = set()
        while frontier:
            i, j = frontier.pop()
            while i < len(s) and j < len(t) and s[i] == t[j]:
                i, j = i + 1, j + 1
            closed.add((i, j))
        if (len(s), len(t)) in closed:
            return steps
        seen |= closed
        moves = {(i + a, j + b) for i, j in closed for a, b in ((1, 0), (0, 1), (1, 1))}
        frontier = {(i, j) for i, j in moves - seen if i <= len(s) and j <= len(t)}
        steps += 1


def _common(s: str, t: str) -> int:
    """Length of the longest common subsequence, through the edit distance without replacing."""
    best = {0: 0}  # end in t -> length, extended character by character of s
    for c in s:
        grown = dict(best)
        for end, length in best.items():
            place = t.find(c, end)
            if place >= 0:
                grown[place + 1] = max(grown.get(place + 1, 0), length + 1)
        best = grown
    return max(best.values())


def _substrings(s: str) -> set[str]:
    return {s[i:j] for i in range(len(s)) for j in range(i + 1, len(s) + 1)}


STRINGS = (
    text("text-itself", ("the text", "the resulting text"), ("$s",), lambda s: s),
    value(
        "length",
        ("the number of characters", "the length of the text"),
        ("len($s)",),
        lambda s: sum(1 for _ in s),
        least=0,
    ),
    value(
        "vowels",
        ("the number of vowels (a, e, i, o, u)", "how many vowels there are"),
        (
            'sum($c in "aeiouAEIOU" for $c in $s)',
            '$r = 0\nfor $c in $s:\n    if $c.lower() in "aeiou":\n        $r += 1',
        ),
        lambda s: sum(s.lower().count(v) for v in "aeiou"),
        least=0,
    ),
    value(
        "capitals",
        ("the number of capital letters", "how many capitals there are"),
        ("sum($c.isupper() for $c in $s)", "len([$c for $c in $s if $c.isupper()])"),
        lambda s: len([c for c in s if "A" <= c <= "Z"]),
        least=0,
    ),
    value(
        "digits-in-text",
        ("the sum of the digits in the text", "what the digits of the text add up to"),
        ("sum(int($c) for $c in $s if $c.isdigit())",),
        lambda s: sum("0123456789".find(c) for c in s if c in "0123456789"),
        least=0,
    ),
    value(
        "different-letters",
        ("the number of different characters", "how many different characters occur"),
        ("len(set($s))",),
        lambda s: len(Counter(s)),
        least=0,
    ),
    value(
        "longest-run",
        ("the length of the longest run of one character", "how long the longest run is"),
        (
            "best = cur = 1\nfor i in range(1, len($s)):\n"
            "    cur = cur + 1 if $s[i] == $s[i - 1] else 1\n    best = max(best, cur)\n$r = best",
        ),
        lambda s: max(len(list(run)) for _, run in groupby(s)),
    ),
    value(
        "runs",
        ("the number of runs of equal characters", "into how many equal runs the text falls"),
        ("1 + sum($s[i] != $s[i - 1] for i in range(1, len($s)))",),
        lambda s: len(list(groupby(s))),
    ),
    value(
        "unlike-substrings",
        ("the number of different non-empty substrings", "how many different substrings there are"),
        ("len({$s[i:j] for i in range(len($s)) for j in range(i + 1, len($s) + 1)})",),
        lambda s: len(_substrings(s)),
        least=0,
    ),
    value(
        "longest-palindrome",
        ("the length of the longest palindromic substring",),
        (
            "best = 0\nfor i in range(len($s)):\n    for j in range(i + 1, len($s) + 1):\n"
            "        if $s[i:j] == $s[i:j][::-1]:\n            best = max(best, j - i)\n$r = best",
        ),
        lambda s: max(len(p) for p in _substrings(s) if p == p[::-1]),
    ),
    check(
        "palindrome",
        ("the text is a palindrome", "the text reads the same backwards"),
        ("$s == $s[::-1]", "all($s[i] == $s[-1 - i] for i in range(len($s)))"),
        lambda s: list(s) == list(reversed(s)),
        least=0,
    ),
    check(
        "all-different",
        ("no character occurs twice", "all characters are different"),
        ("len(set($s)) == len($s)",),
        lambda s: max(Counter(s).values(), default=0) < 2,
        least=0,
    ),
    check(
        "palindrome-possible",
        ("the characters can be rearranged into a palindrome",),
        ("sum($s.count($c) % 2 for $c in set($s)) <= 1",),
        lambda s: sum(n & 1 for n in Counter(s).values()) < 2,
        least=0,
    ),
    text(
        "commonest-character",
        ("the most frequent character (the first in sorted order if several are)",),
        ("max(sorted(set($s)), key=$s.count)",),
        lambda s: sorted(Counter(s).items(), key=lambda e: (-e[1], e[0]))[0][0],
    ),
    text(
        "first-single",
        ("the first character that occurs only once (- if there is none)",),
        (
            'next(($c for $c in $s if $s.count($c) == 1), "-")',
            '$r = "-"\nfor $c in $s:\n    if $s.count($c) == 1:\n        $r = $c\n        break',
        ),
        lambda s: ([c for c in s if Counter(s)[c] == 1] or ["-"])[0],
        least=0,
    ),
    text(
        "run-length-code",
        ("the run-length code of the text (each character and the length of its run)",),
        (
            '$r = ""\ni = 0\nwhile i < len($s):\n    j = i\n    while j < len($s) and $s[j] == $s[i]:\n'
            "        j += 1\n    $r += $s[i] + str(j - i)\n    i = j",
            'import itertools\n$r = ""\nfor $c, run in itertools.groupby($s):\n'
            "    $r += $c + str(len(list(run)))",
        ),
        lambda s: "".join(f"{c}{len(list(run))}" for c, run in groupby(s)),
    ),
    text(
        "caesar",
        ("the text with each small letter moved {k} places on in the alphabet (after z comes a)",),
        (
            '$r = ""\nfor $c in $s:\n    if "a" <= $c <= "z":\n'
            "        $c = chr((ord($c) - 97 + $k) % 26 + 97)\n    $r += $c",
        ),
        lambda s, k: s.translate(
            {97 + i: "abcdefghijklmnopqrstuvwxyz"[(i + k) % 26] for i in range(26)}
        ),
        k=(2, 12),
    ),
    value(
        "border",
        (
            "the length of the longest proper beginning of the text that is also its end (0 if "
            "there is none)",
            "how many characters, at most, stand both at the front and at the end of the text, the "
            "whole text not counted",
        ),
        (
            "$r = len($s) - 1\nwhile $s[:$r] != $s[len($s) - $r:]:\n    $r -= 1",
            "$r = 0\nfor i in range(1, len($s)):\n    if $s[:i] == $s[-i:]:\n        $r = i",
        ),
        lambda s: max(i for i in range(len(s)) if s.startswith(s[len(s) - i :])),
    ),
    value(
        "whole-pattern",
        (
            "the length of the shortest pattern that gives the text when it is repeated a whole "
            "number of times",
            "the length of the shortest piece of which the text is made by writing it again and "
            "again, never cut off",
        ),
        (
            "n = len($s)\nfor i in range(1, n + 1):\n    if n % i == 0 and $s[:i] * (n // i) == $s:\n"
            "        $r = i\n        break",
            "$r = 1\nwhile len($s) % $r or $s[:$r] * (len($s) // $r) != $s:\n    $r += 1",
        ),
        lambda s: next(i for i in range(1, len(s) + 1) if not s.replace(s[:i], "")),
    ),
    check(
        "pattern-of-k",
        (
            "the text can come from a pattern of {k} characters that is repeated and cut off anywhere",
            "every character equals the one {k} places before it, where there is one",
        ),
        (
            "all($s[i] == $s[i - $k] for i in range($k, len($s)))",
            "($s[:$k] * len($s))[:len($s)] == $s",
        ),
        lambda s, k: s[k:] == s[: len(s) - k] or len(s) <= k,
        k=(2, 4),
        least=0,
    ),
    text(
        "pattern-repeated",
        (
            "the first {k} characters of the text repeated over and over",
            "what comes of writing the text again and again and cutting it off after {k} characters",
        ),
        ("($s * $k)[:$k]", '"".join($s[i % len($s)] for i in range($k))'),
        lambda s, k: "".join((list(s) * k)[:k]),
        k=(5, 20),
    ),
    value(
        "palindrome-end",
        ("the fewest characters to write behind the text so that it becomes a palindrome",),
        (
            "for i in range(len($s)):\n    if $s[i:] == $s[i:][::-1]:\n        $r = i\n"
            "        break",
        ),
        lambda s: next(i for i in range(len(s)) if s[i:] == "".join(reversed(s[i:]))),
    ),
    pair_check(
        "anagram",
        ("s and t are anagrams", "t is a rearrangement of s"),
        ("sorted($s) == sorted($t)",),
        lambda s, t: Counter(s) == Counter(t),
    ),
    pair_check(
        "subsequence",
        ("t is a subsequence of s", "t can be made by deleting characters of s"),
        (
            "i = 0\nfor $c in $s:\n    if i < len($t) and $c == $t[i]:\n        i += 1\n"
            "$r = i == len($t)",
        ),
        lambda s, t: _common(s, t) == len(t),
    ),
    pair_check(
        "turned",
        ("t is a rotation of s", "t is s with some first characters moved to the end"),
        ("len($s) == len($t) and $t in $s + $s",),
        lambda s, t: any(s[i:] + s[:i] == t for i in range(len(s))),
    ),
    pair_value(
        "common-prefix",
        ("the length of the longest common prefix of s and t", "how many first characters agree"),
        (
            "$r = 0\nwhile $r < len($s) and $r < len($t) and $s[$r] == $t[$r]:\n    $r += 1",
            "$r = 0\nfor x, y in zip($s, $t):\n    if x != y:\n        break\n    $r += 1",
        ),
        lambda s, t: max(i for i in range(min(len(s), len(t)) + 1) if s[:i] == t[:i]),
    ),
    pair_value(
        "common-subsequence",
        ("the length of the longest common subsequence of s and t",),
        (
            "dp = [[0] * (len($t) + 1) for _ in range(len($s) + 1)]\nfor i in range(len($s)):\n"
            "    for j in range(len($t)):\n        if $s[i] == $t[j]:\n"
            "            dp[i + 1][j + 1] = dp[i][j] + 1\n        else:\n"
            "            dp[i + 1][j + 1] = max(dp[i][j + 1], dp[i + 1][j])\n$r = dp[-1][-1]",
        ),
        _common,
    ),
    pair_value(
        "edit-distance",
        (
            "the edit distance of s and t",
            "the fewest insertions, deletions and changes from s to t",
        ),
        (
            "dp = list(range(len($t) + 1))\nfor i in range(len($s)):\n    old = dp\n"
            "    dp = [i + 1]\n    for j in range(len($t)):\n"
            "        dp.append(min(old[j] + ($s[i] != $t[j]), old[j + 1] + 1, dp[j] + 1))\n"
            "$r = dp[-1]",
        ),
        _distance,
    ),
    pair_value(
        "common-substring",
        ("the length of the longest substring that is in both s and t",),
        (
            "best = 0\nfor i in range(len($s)):\n    for j in range(i + 1, len($s) + 1):\n"
            "        if $s[i:j] in $t:\n            best = max(best, j - i)\n$r = best",
        ),
        lambda s, t: max([0] + [len(p) for p in _substrings(s) & _substrings(t)]),
    ),
    pair_value(
        "occurrences-of-word",
        ("how often t occurs in s (overlaps count)", "the number of places in s where t begins"),
        ("sum($s[i:i + len($t)] == $t for i in range(len($s)))",),
        lambda s, t: sum(s.startswith(t, i) for i in range(len(s))),
    ),
    pair_text(
        "shuffled",
        ("the characters of s and t in turn, then the rest of the longer one",),
        ('$r = ""\nfor i in range(max(len($s), len($t))):\n    $r += $s[i:i + 1] + $t[i:i + 1]',),
        lambda s, t: "".join(
            c for i in range(len(s + t)) for c in (s[i : i + 1], t[i : i + 1]) if c
        ),
    ),
    pair_text(
        "shared-letters",
        ("the sorted different characters that s and t share (- if there are none)",),
        ('"".join(sorted(set($s) & set($t))) or "-"',),
        lambda s, t: "".join(c for c in sorted(set(s)) if t.count(c)) or "-",
    ),
    bracket_check(
        "balanced",
        ("the brackets are balanced", "every bracket has its partner"),
        (
            'depth = 0\n$r = True\nfor $c in $s:\n    depth += 1 if $c == "(" else -1\n'
            "    if depth < 0:\n        $r = False\nif depth != 0:\n    $r = False",
            'while "()" in $s:\n    $s = $s.replace("()", "")\n$r = $s == ""',
        ),
        lambda s: _reduced(s) == "",
    ),
    bracket_value(
        "brackets-missing",
        ("the fewest brackets to add so that the string is balanced",),
        (
            'need = $r = 0\nfor $c in $s:\n    if $c == "(":\n        need += 1\n'
            "    elif need > 0:\n        need -= 1\n    else:\n        $r += 1\n$r += need",
        ),
        lambda s: len(_reduced(s)),
    ),
    bracket_value(
        "bracket-depth",
        ("the greatest number of brackets open at once", "the greatest depth that is reached"),
        (
            'depth = $r = 0\nfor $c in $s:\n    depth += 1 if $c == "(" else -1\n'
            "    $r = max($r, depth)",
        ),
        lambda s: max(s[:i].count("(") - s[:i].count(")") for i in range(len(s) + 1)),
    ),
)


def _reduced(s: str) -> str:
    """What is left when matching neighbours are struck out one by one."""
    place = s.find("()")
    return s if place < 0 else _reduced(s[:place] + s[place + 2 :])
