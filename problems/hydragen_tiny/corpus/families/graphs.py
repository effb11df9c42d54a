"""Families on graphs, undirected and directed."""

from itertools import combinations

from hydragen_tiny.corpus.families.build import family

value = family("graph", "int")
check = family("graph", "bool")
listing = family("graph", "list")
arrows = family("digraph", "int")
arrows_check = family("digraph", "bool")
arrows_list = family("digraph", "list")

Adjacency = list[list[int]]

SEARCH = """dist = {1: 0}
queue = [1]
for u in queue:
    for v in $adj[u]:
        if v not in dist:
            dist[v] = dist[u] + 1
            queue.append(v)
"""
VISIT = """seen = {1}
stack = [1]
while stack:
    u = stack.pop()
    for v in $adj[u]:
        if v not in seen:
            seen.add(v)
            stack.append(v)
"""


def layers(adj: Adjacency, start: int) -> list[set[int]]:
    """Nodes by distance from start."""
    layers, seen = [{start}], {start}
    while layers[-1]:
        layers.append({v for u in layers[-1] for v in adj[u]} - seen)
        seen |= layers[-1]
    return layers[:-1]


def _reached(adj: Adjacency, start: int) -> set[int]:
    return set().union(*layers(adj, start))


def _components(n: int, adj: Adjacency) -> set[frozenset[int]]:
    return {frozenset(_reached(adj, u)) for u in range(1, n + 1)}


def _two_colours(n: int, adj: Adjacency) -> bool:
    for part in _components(n, adj):
        around = layers(adj, min(part))
        even = set().union(*around[::2])
        if any((u in even) == (v in even) for u in part for v in adj[u]):
            return False
    return True


def _goes_round(n: int, adj: Adjacency) -> bool:
    return any(u in _reached(adj, v) for u in range(1, n + 1) for v in adj[u])


def _first_order(n: int, adj: Adjacency) -> list[int]:
    if _goes_round(n, adj):
        return [-1]
    order: list[int] = []
    while len(order) < n:
        left = [u for u in range(1, n + 1) if u not in order]
        order.append(next(u for u in left if all(u not in adj[v] for v in left)))
    return order


GRAPHS = (
    value(
        "components",
        ("the number of connected components", "how many separate groups of nodes there are"),
        (
            "seen = set()\n$r = 0\nfor i in range(1, $n + 1):\n    if i not in seen:\n"
            "        $r += 1\n        stack = [i]\n        seen.add(i)\n        while stack:\n"
            "            u = stack.pop()\n            for v in $adj[u]:\n"
            "                if v not in seen:\n                    seen.add(v)\n"
            "                    stack.append(v)",
        ),
        lambda n, adj: len(_components(n, adj)),
    ),
    value(
        "largest-degree",
        ("the largest number of edges at one node", "the largest degree"),
        ("max(len(e) for e in $adj)", "max(map(len, $adj))"),
        lambda n, adj: sorted(len(adj[u]) for u in range(1, n + 1))[-1],
    ),
    value(
        "leaves",
        ("the number of nodes with exactly one edge", "how many nodes have degree 1"),
        ("sum(len(e) == 1 for e in $adj)",),
        lambda n, adj: len([u for u in range(1, n + 1) if len(adj[u]) == 1]),
    ),
    value(
        "lonely-nodes",
        ("the number of nodes without an edge", "how many nodes are isolated"),
        ("sum(not $adj[i] for i in range(1, $n + 1))",),
        lambda n, adj: len([u for u in range(1, n + 1) if len(adj[u]) == 0]),
    ),
    value(
        "distance",
        (
            "the fewest edges on a way from node 1 to node n (-1 if there is none)",
            "the distance from node 1 to node n, or -1",
        ),
        (SEARCH + "$r = dist.get($n, -1)",),
        lambda n, adj: next((d for d, layer in enumerate(layers(adj, 1)) if n in layer), -1),
    ),
    value(
        "reach",
        ("the number of nodes that can be reached from node 1 (itself too)",),
        (VISIT + "$r = len(seen)", SEARCH + "$r = len(dist)"),
        lambda n, adj: len(_reached(adj, 1)),
    ),
    value(
        "farthest",
        ("the largest distance of a node from node 1, of those that can be reached",),
        (SEARCH + "$r = max(dist.values())",),
        lambda n, adj: len(layers(adj, 1)) - 1,
    ),
    value(
        "within-steps",
        ("the number of nodes at most {k} edges away from node 1 (itself too)",),
        (SEARCH + "$r = sum(d <= $k for d in dist.values())",),
        lambda n, adj, k: sum(len(layer) for layer in layers(adj, 1)[: k + 1]),
        k=(2, 3),
    ),
    value(
        "triangles",
        ("the number of triangles (three nodes joined to each other)",),
        (
            "$r = 0\nfor u in range(1, $n + 1):\n    for v in $adj[u]:\n        for w in $adj[v]:\n"
            "            if u < v < w and w in $adj[u]:\n                $r += 1",
        ),
        lambda n, adj: sum(
            v in adj[u] and w in adj[u] and w in adj[v]
            for u, v, w in combinations(range(1, n + 1), 3)
        ),
    ),
    check(
        "connected",
        ("all nodes are connected", "every node can be reached from every other"),
        (VISIT + "$r = len(seen) == $n",),
        lambda n, adj: len(_components(n, adj)) == 1,
    ),
    check(
        "is-tree",
        ("the graph is a tree", "the graph is connected and has no cycle"),
        (VISIT + "$r = len(seen) == $n and m == $n - 1",),
        lambda n, adj: len(_components(n, adj)) == 1 and sum(map(len, adj)) == 2 * n - 2,
    ),
    check(
        "two-colours",
        ("the nodes can be painted in two colours so that no edge joins equal colours",),
        (
            "color = {}\n$r = True\nfor i in range(1, $n + 1):\n    if i not in color:\n"
            "        color[i] = 0\n        stack = [i]\n        while stack:\n"
            "            u = stack.pop()\n            for v in $adj[u]:\n"
            "                if v not in color:\n                    color[v] = 1 - color[u]\n"
            "                    stack.append(v)\n                elif color[v] == color[u]:\n"
            "                    $r = False",
        ),
        _two_colours,
    ),
    listing(
        "degrees",
        ("the number of edges at each node, from 1 to n", "the degrees of the nodes in order"),
        ("[len($adj[i]) for i in range(1, $n + 1)]", "[len(e) for e in $adj[1:]]"),
        lambda n, adj: [sum(v in adj[u] for u in range(1, n + 1)) for v in range(1, n + 1)],
    ),
    listing(
        "neighbours",
        ("the neighbours of node {k} in ascending order (- if it has none)",),
        ('sorted($adj[$k]) or ["-"]',),
        lambda n, adj, k: [str(u) for u in range(1, n + 1) if k in adj[u]] or ["-"],
        k=(1, 3),
    ),
    arrows(
        "sinks",
        ("the number of nodes without an outgoing edge", "how many nodes lead nowhere"),
        ("sum(not e for e in $adj[1:])",),
        lambda n, adj: len([u for u in range(1, n + 1) if len(adj[u]) == 0]),
    ),
    arrows(
        "most-incoming",
        ("the node with the most incoming edges (the smallest in a tie)",),
        (
            "indeg = [0] * ($n + 1)\nfor e in $adj:\n    for v in e:\n        indeg[v] += 1\n"
            "$r = indeg.index(max(indeg[1:]), 1)",
        ),
        lambda n, adj: min((-sum(v in e for e in adj), v) for v in range(1, n + 1))[1],
    ),
    arrows(
        "reach-directed",
        ("the number of nodes that can be reached from node 1 along the edges (itself too)",),
        (VISIT + "$r = len(seen)",),
        lambda n, adj: len(_reached(adj, 1)),
    ),
    arrows_check(
        "acyclic",
        ("the graph has no directed cycle", "no way along the edges leads back to its start"),
        (
            "indeg = [0] * ($n + 1)\nfor e in $adj:\n    for v in e:\n        indeg[v] += 1\n"
            "queue = [i for i in range(1, $n + 1) if indeg[i] == 0]\nfor u in queue:\n"
            "    for v in $adj[u]:\n        indeg[v] -= 1\n        if indeg[v] == 0:\n"
            "            queue.append(v)\n$r = len(queue) == $n",
        ),
        lambda n, adj: not _goes_round(n, adj),
    ),
    arrows_list(
        "order",
        (
            "an order of the nodes in which every edge leads forward, always taking the smallest "
            "free node (-1 if there is none)",
        ),
        (
            "indeg = [0] * ($n + 1)\nfor e in $adj:\n    for v in e:\n        indeg[v] += 1\n"
            "free = [i for i in range(1, $n + 1) if indeg[i] == 0]\n$r = []\nwhile free:\n"
            "    u = min(free)\n    free.remove(u)\n    $r.append(u)\n    for v in $adj[u]:\n"
            "        indeg[v] -= 1\n        if indeg[v] == 0:\n            free.append(v)\n"
            "if len($r) < $n:\n    $r = [-1]",
        ),
        _first_order,
    ),
)
