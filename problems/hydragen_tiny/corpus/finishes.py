"""How an answer is printed."""

from collections.abc import Callable
from typing import Any

from hydragen_tiny.corpus.parts import Finish

YES_NO = (("YES", "NO"), ("Yes", "No"), ("yes", "no"), ("true", "false"), ("1", "0"))


def _by_parity(
    name: str, even: str, odd: str, texts: tuple[str, str], change: Callable[[int], int]
) -> Finish:
    """Prints one expression of r if r is even and another one if it is odd."""
    return Finish(
        name,
        "int",
        (
            f"Let r be {{ask}}. Print {even} if r is even and {odd} if it is odd.".replace(
                "Print r if r is even", "Print r if it is even"
            ),
            f"Compute {{ask}}. If this number r is odd, print {odd}, otherwise {even}.",
        ),
        f"{texts[0]} if $r % 2 == 0 else {texts[1]}",
        lambda r, k: str(change(r)),
        prints=(f"if $r % 2 == 0:\n    print({texts[0]})\nelse:\n    print({texts[1]})",),
    )


PARITIES = (
    _by_parity("int-even-up", "r", "r + 1", ("$r", "$r + 1"), lambda r: r + (r & 1)),
    _by_parity("int-even-down", "r", "r - 1", ("$r", "$r - 1"), lambda r: r - (r & 1)),
    _by_parity("int-odd-up", "r + 1", "r", ("$r + 1", "$r"), lambda r: r | 1),
    _by_parity("int-even-double", "2 * r", "r", ("2 * $r", "$r"), lambda r: r if r & 1 else 2 * r),
    _by_parity("int-odd-triple", "r", "3 * r", ("$r", "3 * $r"), lambda r: 3 * r if r & 1 else r),
    _by_parity("int-even-zero", "0", "r", ("0", "$r"), lambda r: r if r & 1 else 0),
)
INT_FINISHES = (
    *PARITIES,
    Finish(
        "plain-int",
        "int",
        (
            "Print {ask}.",
            "What is {ask}?",
            "Find {ask}.",
            "Output {ask}.",
            "Compute {ask}.",
            "Print one integer: {ask}.",
            "Report {ask}.",
        ),
        "$r",
        lambda r, k: str(r),
    ),
    Finish(
        "int-modulo",
        "int",
        (
            "Let r be {ask}. Print r modulo {k}.",
            "Print the remainder of {ask} when divided by {k}.",
            "Compute {ask} and print it modulo {k}.",
        ),
        "$r % $k",
        lambda r, k: str(r - r // k * k),
        k=(3, 11),
    ),
    Finish(
        "int-exceeds",
        "int",
        (
            "Print YES if {ask} is greater than {k}, otherwise NO.",
            "Let r be {ask}. If r exceeds {k}, print YES, else print NO.",
            "Is {ask} more than {k}? Answer YES or NO.",
        ),
        '"YES" if $r > $k else "NO"',
        lambda r, k: "YES" if k < r else "NO",
        prints=('if $r > $k:\n    print("YES")\nelse:\n    print("NO")',),
        k=(2, 30),
    ),
    Finish(
        "int-parity",
        "int",
        (
            "Print even or odd, as {ask} is.",
            "Let r be {ask}. Print even if r is even and odd if it is odd.",
            "Tell whether {ask} is even or odd.",
        ),
        '"even" if $r % 2 == 0 else "odd"',
        lambda r, k: ("even", "odd")[r & 1],
        prints=('if $r % 2 == 0:\n    print("even")\nelse:\n    print("odd")',),
    ),
    Finish(
        "int-label",
        "int",
        ('Print "Answer:" and then {ask}.', 'After the word "Answer:" print {ask}.'),
        'f"Answer: {$r}"',
        lambda r, k: f"Answer: {r}",
        prints=('print("Answer:", $r)',),
    ),
    Finish(
        "int-twice",
        "int",
        ("Print twice {ask}.", "Compute {ask} and print it multiplied by two."),
        "2 * $r",
        lambda r, k: str(r + r),
        prints=("print($r * 2)",),
    ),
    Finish(
        "int-distance",
        "int",
        ("Let r be {ask}. Print |r - {k}|.", "Print how far {ask} is from {k}."),
        "abs($r - $k)",
        lambda r, k: str(max(r - k, k - r)),
        k=(5, 40),
    ),
    Finish(
        "int-cap",
        "int",
        ("Print {ask}, but {k} if it is more.", "Print the smaller of {k} and {ask}."),
        "min($r, $k)",
        lambda r, k: str(r if r < k else k),
        k=(5, 40),
    ),
    Finish(
        "int-square",
        "int",
        ("Print the square of {ask}.", "Let r be {ask}. Print r * r."),
        "$r * $r",
        lambda r, k: str(r**2),
        prints=("print($r ** 2)",),
    ),
)


def _yes_no(number: int, yes: str, no: str) -> Finish:
    def spec(r: Any, k: int) -> str:
        return yes if r else no

    return Finish(
        f"plain-bool-{number}",
        "bool",
        (
            f"Print {yes} if {{ask}}, otherwise {no}.",
            f"If {{ask}}, print {yes}, else print {no}.",
            f"Check whether {{ask}}. Print {yes} or {no}.",
            f"Is it true that {{ask}}? Answer {yes} or {no}.",
        ),
        f'"{yes}" if $r else "{no}"',
        spec,
        prints=(f'if $r:\n    print("{yes}")\nelse:\n    print("{no}")',),
    )


BOOL_FINISHES = tuple(_yes_no(i, yes, no) for i, (yes, no) in enumerate(YES_NO))

LIST_FINISHES = (
    Finish(
        "plain-list",
        "list",
        (
            "Print {ask}, separated by spaces.",
            "Print {ask} on one line.",
            "Output {ask}, with spaces between them.",
        ),
        '" ".join(map(str, $r))',
        lambda r, k: " ".join(str(x) for x in r),
        prints=("print(*$r)", "print(*$r)"),
    ),
    Finish(
        "list-lines",
        "list",
        ("Print {ask}, one per line.", "Print {ask}, each on its own line."),
        '"\\n".join(map(str, $r))',
        lambda r, k: "\n".join(str(x) for x in r),
        prints=("for item in $r:\n    print(item)", 'print(*$r, sep="\\n")'),
    ),
    Finish(
        "list-commas",
        "list",
        ("Print {ask}, separated by commas.", "Print {ask} with commas between them."),
        '",".join(map(str, $r))',
        lambda r, k: ",".join(str(x) for x in r),
        prints=('print(*$r, sep=",")',),
    ),
    Finish(
        "list-backwards",
        "list",
        ("Print {ask} in reverse order.", "Print {ask}, last one first."),
        '" ".join(map(str, $r[::-1]))',
        lambda r, k: " ".join(str(x) for x in reversed(r)),
        prints=("print(*$r[::-1])",),
    ),
)

TEXT_FINISHES = (
    Finish(
        "plain-text",
        "text",
        ("Print {ask}.", "Output {ask}.", "Find {ask}.", "Give {ask}."),
        "$r",
        lambda r, k: str(r),
    ),
    Finish(
        "text-capitals",
        "text",
        ("Print {ask} in capitals.", "Print {ask}, in uppercase letters."),
        "$r.upper()",
        lambda r, k: "".join(c.upper() for c in r),
    ),
    Finish(
        "text-mirrored",
        "text",
        ("Print {ask} backwards.", "Print {ask} in reverse."),
        "$r[::-1]",
        lambda r, k: "".join(reversed(r)),
    ),
    Finish(
        "text-quoted",
        "text",
        ("Print {ask} between square brackets.",),
        'f"[{$r}]"',
        lambda r, k: "[" + r + "]",
        prints=('print("[" + $r + "]")',),
    ),
    Finish(
        "text-length",
        "text",
        ("Print {ask}, a space and its length.",),
        'f"{$r} {len($r)}"',
        lambda r, k: f"{r} {len(r)}",
        prints=("print($r, len($r))",),
    ),
)

OTHER_FINISHES = (
    Finish(
        "plain-lines",
        "lines",
        (
            "Print {ask}, one on each line.",
            "Print {ask}, each on its own line.",
            "Output {ask}, line by line.",
        ),
        '"\\n".join($r)',
        lambda r, k: "\n".join(r),
        prints=("for item in $r:\n    print(item)", 'print(*$r, sep="\\n")'),
    ),
    Finish(
        "plain-real",
        "real",
        ("Print {ask} with six decimals.", "Print {ask}, rounded to six places after the point."),
        'f"{$r:.6f}"',
        lambda r, k: f"{r:.6f}",
        prints=('print("%.6f" % $r)',),
    ),
    Finish(
        "plain-reals",
        "reals",
        ("Print {ask} with six decimals each.", "Print {ask}, two numbers with six decimals."),
        '" ".join(f"{v:.6f}" for v in $r)',
        lambda r, k: " ".join(f"{v:.6f}" for v in r),
        prints=('print(f"{$r[0]:.6f} {$r[1]:.6f}")', 'print(*("%.6f" % v for v in $r))'),
    ),
)

ROWS_FINISHES = (
    Finish(
        "plain-rows",
        "rows",
        ("Print {ask}, row by row.", "Print {ask}, one row per line."),
        '"\\n".join(" ".join(map(str, row)) for row in $r)',
        lambda r, k: "\n".join(" ".join(str(x) for x in row) for row in r),
        prints=("for row in $r:\n    print(*row)", "for row in $r:\n    print(*row)"),
    ),
)

FINISHES = (
    *INT_FINISHES,
    *BOOL_FINISHES,
    *LIST_FINISHES,
    *TEXT_FINISHES,
    *ROWS_FINISHES,
    *OTHER_FINISHES,
)
