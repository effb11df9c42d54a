"""Index tables that tell attention which queries meet which keys.

A step's queries are packed: all rows of a decode step, or the new tokens of some segments. Every
query hangs from a segment and sees all segments on its path. As rows are in depth-first order,
the queries below a segment are one contiguous range, and one table row says it all:

    queries query_start .. + query_count   meet   slots slot_start .. + slot_count

Rows of one level (depth) have disjoint query ranges. Causal rows are square: the i-th query sees
the first i + 1 slots.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.reference import Node

Int = NDArray[np.int32]


class Item(NamedTuple):
    """Columns of the item table, by name."""

    query_start: int
    query_count: int
    slot_start: int
    slot_count: int
    causal: int
    level: int


@dataclass(frozen=True, eq=False, slots=True)
class Tails:
    """The tail of each row: pages of slots that no other row reads through it.

    Attributes:
        pages: `[rows, max_pages]` int32 page numbers; entries past a row's length are ignored.
        lengths: `[rows]` int32, tokens in each tail, this step's own token included.
        page_tokens: slots a page.
    """

    pages: Int
    lengths: Int
    page_tokens: int


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What one attention step reads.

    Attributes:
        n_queries: queries in the step.
        items: `[items, 6]` int32, columns as in `Item`, levels ascending.
        tails: one tail a query in a decode step; None in a prefill step.
    """

    n_queries: int
    items: Int
    tails: Tails | None = None

    def nodes(self) -> tuple[Node, ...]:
        """The item table as the forest that the recursive reference walks."""
        kids: dict[int, list[int]] = {-1: []}
        open_at: list[
            tuple[int, int, int]
        ] = []  # (query_start, query_stop, item) of the levels above
        for index, row in enumerate(self.items.tolist()):
            item = Item(*row)
            start, stop = item.query_start, item.query_start + item.query_count
            parent = -1
            for above_start, above_stop, above in reversed(open_at):
                if above_start <= start and stop <= above_stop:
                    parent = above
                    break
            kids[parent].append(index)
            kids[index] = []
            open_at.append((start, stop, index))
        return tuple(self._node(index, kids) for index in kids[-1])

    def _node(self, index: int, kids: dict[int, list[int]]) -> Node:
        item = Item(*self.items[index].tolist())
        return Node(
            item.query_start,
            item.query_start + item.query_count,
            item.slot_start,
            item.slot_start + item.slot_count,
            bool(item.causal),
            tuple(self._node(child, kids) for child in kids[index]),
        )
