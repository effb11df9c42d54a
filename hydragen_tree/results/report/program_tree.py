"""The trie of a problem's programs, cut to what a page has room for.

A node is the text that all programs below it have in common from where they part from the others,
and the texts on the way to a leaf are its program. A big run has far more branches than anyone
reads, so nodes are taken one by one, those with most samples first and right samples counting
twice, until the room is used; of the others a node says how many it lacks.
"""

import heapq
import json
import re
from collections.abc import Collection
from itertools import accumulate, count
from typing import Any

from hydragen_tree.results.report.drawn import DrawnProgram

_UNIT = re.compile(r"\w+|\n|[^\S\n]+|[^\w\s]")  # programs part between words, not within them

Node = dict[str, Any]


class _Programs:
    """Programs in the order of their texts, so that those below any node are a range."""

    def __init__(self, programs: Collection[DrawnProgram]) -> None:
        found = sorted(((_UNIT.findall(p.text), p) for p in programs), key=lambda pair: pair[0])
        self.units = [units for units, _ in found]
        self.programs = [program for _, program in found]
        self._samples = [0, *accumulate(p.samples for p in self.programs)]
        self._solved = [0, *accumulate(p.verdicts["AC"] for p in self.programs)]

    def samples(self, first: int, end: int) -> int:
        """Samples of a range of programs."""
        return self._samples[end] - self._samples[first]

    def solved(self, first: int, end: int) -> int:
        """Right samples of a range of programs."""
        return self._solved[end] - self._solved[first]

    def common(self, first: int, end: int) -> int:
        """How many units the programs of a range begin with in common."""
        one, other = self.units[first], self.units[end - 1]  # of sorted texts the ends differ most
        shortest = min(len(one), len(other))
        return next((i for i in range(shortest) if one[i] != other[i]), shortest)

    def parts(self, first: int, end: int, depth: int) -> list[tuple[int, int]]:
        """The ranges within a range that part after `depth` units; what ends there is one each."""
        parts, start = [], first
        for i in range(first + 1, end + 1):
            one, other = self.units[start], self.units[i] if i < end else []
            if len(one) <= depth or len(other) <= depth or one[depth] != other[depth]:
                parts.append((start, i))
                start = i
        return parts


def program_tree(programs: Collection[DrawnProgram], room_bytes: int) -> Node | None:
    """The trie of the programs of one problem, as plain JSON types.

    Args:
        programs: of one problem.
        room_bytes: of JSON that the nodes may take, the root apart, which always has a place.

    Returns:
        The root; None without programs. A node has `t` its text, `n` samples and `s` right ones;
        `c` its branches, most samples first; `more` what of them is left out, as (branches,
        samples, right ones); where a program ends, `p`, its `DrawnProgram.to_json`.
    """
    if not programs:
        return None
    sorted_programs = _Programs(programs)
    holder: Node = {"c": []}
    number = count()  # among equals the first found comes first, and dicts are never compared
    waiting = [(0, next(number), 0, len(programs), 0, holder)]
    used = 0
    while waiting and (used < room_bytes or not holder["c"]):
        _, _, first, end, depth, parent = heapq.heappop(waiting)
        node, after = _node(sorted_programs, first, end, depth)
        used += len(json.dumps(node)) if parent is not holder else 0
        parent["c"].append(node)
        if end - first == 1:
            continue
        node["c"] = []
        for start, stop in sorted_programs.parts(first, end, after):
            weight = sorted_programs.samples(start, stop) + sorted_programs.solved(start, stop)
            heapq.heappush(waiting, (-weight, next(number), start, stop, after, node))
    for _, _, first, end, _, parent in waiting:
        branches, samples, solved = parent.get("more", (0, 0, 0))
        parent["more"] = (
            branches + 1,
            samples + sorted_programs.samples(first, end),
            solved + sorted_programs.solved(first, end),
        )
    root: Node = holder["c"][0]
    _order(root)
    return root


def _node(programs: _Programs, first: int, end: int, depth: int) -> tuple[Node, int]:
    """A node without its branches, and the unit after which they part."""
    is_program = end - first == 1
    after = len(programs.units[first]) if is_program else programs.common(first, end)
    node: Node = {
        "t": "".join(programs.units[first][depth:after]),
        "n": programs.samples(first, end),
    }
    if solved := programs.solved(first, end):
        node["s"] = solved
    if is_program:
        node["p"] = programs.programs[first].to_json()
    return node, after


def _order(root: Node) -> None:
    """Branches with most samples first, all the way down."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if "c" in node:
            node["c"].sort(key=lambda child: -child["n"])
            nodes += node["c"]
