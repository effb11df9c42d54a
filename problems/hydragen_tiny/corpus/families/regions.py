"""Families on graphs by distance and kind of node, and on areas of maps."""

from collections.abc import Callable
from typing import Any

from hydragen_tiny.corpus.families.build import family
from hydragen_tiny.corpus.families.graphs import SEARCH, layers
from hydragen_tiny.corpus.families.worlds import areas, flood
from hydragen_tiny.corpus.parts import Family, KRange

value = family("graph", "int")
grid_value = family("grid", "int")
grid_list = family("grid", "list")

Adjacency = list[list[int]]
Holds = Callable[[int, int, int], bool]  # (node, number of its edges, k)

NODES: tuple[tuple[str, str, str, Holds, KRange | None], ...] = (
    ("leaf", "with exactly one {edge}", "len($adj[u]) == 1", lambda u, d, k: d == 1, None),
    ("pass", "with exactly two {edge}s", "len($adj[u]) == 2", lambda u, d, k: d == 2, None),
    ("hub", "with at least three {edge}s", "len($adj[u]) >= 3", lambda u, d, k: d > 2, None),
    ("even", "with an even number", "u % 2 == 0", lambda u, d, k: u % 2 == 0, None),
    (
        "even-degree",
        "with an even number of {edge}s",
        "len($adj[u]) % 2 == 0",
        lambda u, d, k: d % 2 == 0,
        None,
    ),
    ("late", "with a number above {k}", "u > $k", lambda u, d, k: u > k, (3, 5)),
)
DISTANCES: tuple[tuple[str, tuple[str, ...], str, Callable[[list[int]], int]], ...] = (
    (
        "nearest",
        (
            "the fewest {edge}s on a way from {node} 1 to a {N} other than {node} 1 (-1 if none can "
            "be reached)",
            "how many {edge}s lie between {node} 1 and the nearest other {N}, or -1",
        ),
        "min({F}, default=-1)",
        lambda found: min(found, default=-1),
    ),
    (
        "farthest",
        (
            "the distance from {node} 1 to the farthest other {N} that can be reached (-1 if there "
            "is none)",
        ),
        "max({F}, default=-1)",
        lambda found: max(found, default=-1),
    ),
    (
        "reached",
        ("the number of other {N}s that can be reached from {node} 1",),
        "len({F})",
        len,
    ),
    (
        "distances",
        ("the sum of the distances from {node} 1 to every other {N} that can be reached",),
        "sum({F})",
        sum,
    ),
)


def _journeys() -> list[Family]:
    built = []
    for kind, told, test, holds, k in NODES:
        for name, asks, code, pick in DISTANCES:
            # "the number of other nodes with one edge": the plural belongs to the noun.
            plain = tuple(
                ask.replace("{N}s", f"{{node}}s {told}").replace("{N}", f"{{node}} {told}")
                for ask in asks
            )
            termed = tuple(
                ask.replace("{N}s", "{term} {node}s").replace("{N}", "{term} {node}")
                for ask in asks
            )

            def spec(
                n: int,
                adj: Adjacency,
                k: int = 0,
                holds: Holds = holds,
                pick: Callable[[list[int]], int] = pick,
            ) -> int:
                return pick(
                    [
                        d
                        for d, layer in enumerate(layers(adj, 1))
                        for u in layer
                        if u != 1 and holds(u, len(adj[u]), k)
                    ]
                )

            found = f"[d for u, d in dist.items() if u != 1 and {test}]"
            has = told.replace("with", "if it has", 1)
            built.append(
                value(
                    f"{name}-{kind}",
                    plain,
                    (
                        SEARCH + f"found = {found}\n$r = {code.replace('{F}', 'found')}",
                        SEARCH + f"$r = {code.replace('{F}', found)}",
                    ),
                    spec,
                    k=k,
                    defined=tuple((f"A {{node}} is {{term}} {has}.", ask) for ask in termed),
                    weight=0.4,
                )
            )
    return built


SEAS = {
    "#": (
        "On the map of a sea, # is land and . is water.",
        "A photograph shows ink (#) on paper (.).",
        "The map of a wood has # for trees and . for grass.",
    ),
    ".": (
        "In the plan of a garden, # is hedge and . is grass.",
        "A board has full squares (#) and empty ones (.).",
        "The drawing of a cave shows rock as # and air as dots.",
    ),
}
COUNTS: tuple[tuple[str, str, tuple[str, ...], Callable[[list[int]], Any]], ...] = (
    (
        "areas",
        "int",
        ("the number of connected areas of {C} (cells that share a side)",),
        lambda sizes: len(sizes),
    ),
    (
        "largest-area",
        "int",
        ("the number of cells in the largest connected area of {C} (0 if there is none)",),
        lambda sizes: max(sizes, default=0),
    ),
    (
        "smallest-area",
        "int",
        ("the number of cells in the smallest connected area of {C} (0 if there is none)",),
        lambda sizes: min(sizes, default=0),
    ),
    (
        "single-areas",
        "int",
        ("the number of cells of {C} without another one at a side",),
        lambda sizes: sum(size == 1 for size in sizes),
    ),
    (
        "areas-and-largest",
        "list",
        (
            "two numbers: how many connected areas of {C} there are, and the size of the largest "
            "(0 if there is none)",
        ),
        lambda sizes: [len(sizes), max(sizes, default=0)],
    ),
    (
        "areas-and-smallest",
        "list",
        (
            "two numbers: how many connected areas of {C} there are, and the size of the smallest "
            "(0 if there is none)",
        ),
        lambda sizes: [len(sizes), min(sizes, default=0)],
    ),
    (
        "largest-and-singles",
        "list",
        (
            "the size of the largest connected area of {C} (0 if there is none), and how many areas "
            "are single cells",
        ),
        lambda sizes: [max(sizes, default=0), sum(size == 1 for size in sizes)],
    ),
)
ANSWERS = {
    "areas": "len(sizes)",
    "largest-area": "max(sizes, default=0)",
    "smallest-area": "min(sizes, default=0)",
    "single-areas": "sizes.count(1)",
    "areas-and-largest": "[len(sizes), max(sizes, default=0)]",
    "areas-and-smallest": "[len(sizes), min(sizes, default=0)]",
    "largest-and-singles": "[max(sizes, default=0), sizes.count(1)]",
}
MEETING = (
    "Two {C} cells that share a side belong to the same {term} field; corners do not count.",
    "Cells of {C} side by side make a {term} field.",
)
FIELD_ASKS = {
    "areas": "the number of {term} fields",
    "largest-area": "the size of the largest {term} field (0 if there is none)",
    "smallest-area": "the size of the smallest {term} field (0 if there is none)",
    "areas-and-largest": "the number of {term} fields and the size of the largest one",
    "areas-and-smallest": "the number of {term} fields and the size of the smallest one",
}


def _areas() -> list[Family]:
    built = []
    for mark, sea in SEAS.items():
        for name, result, asks, pick in COUNTS:
            make = grid_list if result == "list" else grid_value
            told = FIELD_ASKS.get(name)

            def spec(g: list[str], mark: str = mark, pick: Callable[[Any], Any] = pick) -> Any:
                return pick(areas(g, mark))

            built.append(
                make(
                    f"{name}-of-{'wall' if mark == '#' else 'free'}",
                    tuple(ask.replace("{C}", mark) for ask in asks),
                    tuple(text + f"$r = {ANSWERS[name]}" for text in flood(mark)),
                    spec,
                    intros=sea,
                    defined=tuple((d.replace("{C}", mark), told) for d in MEETING) if told else (),
                    weight=0.6,
                )
            )
    return built


REGIONS = (*_journeys(), *_areas())
