"""The parts a task is composed of.

In program text `$name` is a role that `styles.py` replaces by a variable name, `$k` by the task's
parameter. In phrases `{v}` is the noun for the items ("values", "weights") and `{k}` the parameter,
`{e}` and `{u}` what the items belong to and their unit ("days", "loaves") and `{r}` what joins the
two (phrases with them are used in stories that have both), `{node}` and `{edge}` the nouns of a graph, and `{term}` a made-up
name for what is counted. A parameter is a number written into the task or read with the input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Result = Literal["int", "bool", "text", "list", "rows", "lines", "real", "reals"]
KRange = tuple[int, int]

MAIN_ROLES: dict[str, tuple[str, ...]] = {
    "ints": ("a",),
    "lists": ("a", "b"),
    "text": ("s",),
    "texts": ("s", "t"),
    "words": ("w",),
    "pairs": ("p",),
    "intervals": ("p",),
    "matrix": ("m",),
    "square": ("m",),
    "grid": ("g",),
    "graph": ("n", "adj"),
    "digraph": ("n", "adj"),
    "number": ("n",),
    "numbers": ("x", "y"),
    "commands": ("q",),
    "moves": ("s",),
    "brackets": ("s",),
}
"""For each kind of input the roles of its variables; steps change the first one."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the data of one test is: at most `count` items, integers in [low, high]."""

    count: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Data:
    """One test's data: the values by role order, and the lines of text they are read from."""

    values: tuple[Any, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """How the input is read.

    Args:
        name: unique name.
        kind: key of MAIN_ROLES.
        gives: sentences that introduce the data; `{v}` is the noun.
        layout: sentences that describe the lines of input.
        formal: the same with bounds, as contests have it: `{head}` is n and what else the first
            line holds, `{low}` and `{high}` bound the items, `{length}` bounds a length.
        code: program text that reads the data with `input()`.
        draw: random data.
        whole_code: the same reading all of standard input at once, if there is such a form.
        counted: the first line holds just the count n, so a parameter may follow it there.
        natural: never yields a negative integer, whatever the scale.
    """

    name: str
    kind: str
    gives: tuple[str, ...]
    layout: tuple[str, ...]
    code: tuple[str, ...]
    draw: Callable[[Random, Scale], Data]
    whole_code: str = ""
    counted: bool = False
    natural: bool = False
    formal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A change to the data before the question: a filter, a map of each item, or neither.

    Args:
        name: unique name.
        kind: the kind of input it applies to.
        do: verb phrases ("keep only the even {v}"); the first word is the verb.
        spec: (data, k) -> data.
        test: condition on an item, for a filter.
        item: expression of the new item, for a map.
        code: statements, for any other change.
        k: range of the parameter, if there is one.
        shrinks: the result may be shorter than the data.
        natural_only: has no meaning for negative integers.
        signed: may turn natural numbers into negative ones.
        needs_items: must not be given an empty list.
    """

    name: str
    kind: str
    do: tuple[str, ...]
    spec: Callable[[Any, int], Any]
    test: str = ""
    item: str = ""
    code: tuple[str, ...] = ()
    k: KRange | None = None
    shrinks: bool = False
    natural_only: bool = False
    signed: bool = False
    needs_items: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """What is asked.

    Args:
        name: unique name.
        kind: the kind of input.
        result: what kind of answer it gives.
        ask: noun phrases ("the sum of the {v}"), for "bool" clauses ("the {v} are sorted").
        code: expressions, or blocks (with a newline) that assign `$r`.
        spec: (*values[, k]) -> answer.
        fold: (start value, statement) for a loop over the items, where there is one.
        k: range of the parameter, if there is one.
        least: items needed for the answer to exist.
        natural_only: has no meaning for negative integers.
        intros: sentences that may introduce the data instead of the source's.
        defined: pairs of a sentence that defines a `{term}` and a noun phrase with it, which may
            stand for `ask`.
        columns: what the two numbers of a line are, where pairs are read.
        weight: how often it is drawn, relative to others of its kind.
    """

    name: str
    kind: str
    result: Result
    ask: tuple[str, ...]
    code: tuple[str, ...]
    spec: Callable[..., Any]
    fold: tuple[str, str] | None = None
    k: KRange | None = None
    least: int = 1
    natural_only: bool = False
    intros: tuple[str, ...] = ()
    defined: tuple[tuple[str, str], ...] = ()
    columns: str = "x and y"
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer is printed.

    Args:
        name: unique name; "plain" finishes do not count as part of a composition.
        result: the kind of answer it applies to.
        says: sentences with `{ask}`.
        expr: program text of the printed value, with `$r`.
        spec: (answer, k) -> the text printed.
        prints: statements that print it in other ways.
        k: range of the parameter, if there is one.
    """

    name: str
    result: Result
    says: tuple[str, ...]
    expr: str
    spec: Callable[[Any, int], str]
    prints: tuple[str, ...] = ()
    k: KRange | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the answer is printed as it is."""
        return self.name.startswith("plain")
