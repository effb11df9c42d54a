"""Lists of LaTeX: what stands before each item."""

import re
from dataclasses import dataclass

_LABEL = re.compile(r"label\s*=\s*(\{(?:[^{}]|\{[^{}]*\})*\}|[^,]*)")
_COUNTER = re.compile(r"\\(alph|Alph|roman|Roman|arabic)\*?(?:\{enum\w*\}|\*)?")
_SHORT = re.compile(r"(\W*)([1aAiI])(\W*)")
_COUNTER_OF_SHORT = {"1": "arabic", "a": "alph", "A": "Alph", "i": "roman", "I": "Roman"}
_ROMAN = ((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


@dataclass(slots=True)
class OpenList:
    """A list whose items are being read.

    Args:
        counter: what its items are numbered with; empty for bullets.
        before: text before a number.
        after: text after it.
        number: the last one.
    """

    counter: str = ""
    before: str = ""
    after: str = "."
    number: int = 0

    def next_mark(self) -> str:
        """What stands before the next item."""
        self.number += 1
        if not self.counter:
            return "-"
        return f"{self.before}{_numbered(self.number, self.counter)}{self.after}"


def open_list(environment: str, options: str) -> OpenList:
    """A list as its environment and options say: `label=(\alph*)`, `start=0`, or just `(a)`."""
    if environment != "enumerate":
        return OpenList()
    found = OpenList("arabic")
    if label := _LABEL.search(options):
        if counter := _COUNTER.search(label.group(1)):
            parts = label.group(1)[: counter.start()], label.group(1)[counter.end() :]
            found.counter = counter.group(1)
            found.before, found.after = (re.sub(r"\\[A-Za-z]+ ?|[{}]", "", part) for part in parts)
    elif short := _SHORT.fullmatch(options.strip()):
        found.counter = _COUNTER_OF_SHORT[short.group(2)]
        found.before, found.after = (re.sub(r"[\\{}]", "", short.group(n)) for n in (1, 3))
    if start := re.search(r"start\s*=\s*(-?\d+)", options):
        found.number = int(start.group(1)) - 1
    return found


def _numbered(number: int, counter: str) -> str:
    text = str(number)
    if counter.lower() == "alph" and 1 <= number <= 26:
        text = chr(ord("a") + number - 1)
    elif counter.lower() == "roman" and 1 <= number < 40:
        text, rest = "", number
        for value, letters in _ROMAN:
            text += letters * (rest // value)
            rest %= value
    return text.upper() if counter[0].isupper() else text
