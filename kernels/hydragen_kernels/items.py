"""The item table, `[items, WIDTH]` int32: which queries meet which slots.

An item says that the queries query_start .. + query_count meet the slots slot_start .. + slot_count
of an arena. Its fields, in the order of the table's columns, are those of `Item`, and nothing else
counts columns: tables are taken apart and put together by the functions here, and `native.c` is
compiled with `c_defines`.
"""

from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

Field = TypeVar("Field", int, NDArray[Any])


class Item(NamedTuple, Generic[Field]):
    """One item, of numbers; or many, of columns.

    Attributes:
        query_start: the first query.
        query_count: queries.
        slot_start: the first slot.
        slot_count: slots.
        causal: 1 where the i-th query sees the first i + 1 slots; 0 where all see all.
        level: items of the tree above; queries of one level are disjoint.
        gap: tokens between those met in the levels above and the first slot that have no slots:
            no query sees them.
    """

    query_start: Field
    query_count: Field
    slot_start: Field
    slot_count: Field
    causal: Field
    level: Field
    gap: Field = 0  # type: ignore[assignment]

    @property
    def query_stop(self) -> Field:
        """One past the last query."""
        stop: Field = self.query_start + self.query_count
        return stop

    @property
    def slot_stop(self) -> Field:
        """One past the last slot."""
        stop: Field = self.slot_start + self.slot_count
        return stop


WIDTH = len(Item._fields)


def item_table(items: Iterable[Item[int]] = ()) -> Int32:
    """The table of these items, in their order; of none, `[0, WIDTH]`."""
    return np.array(list(items), np.int32).reshape(-1, WIDTH)


def table_of_columns(columns: Item[NDArray[Any]]) -> Int32:
    """The table of these columns."""
    return np.stack(columns, axis=1).astype(np.int32)


def item_columns(table: NDArray[Any]) -> Item[NDArray[Any]]:
    """A table's columns by name, as views."""
    return Item(*table.T)


def item_rows(table: Int32) -> list[Item[int]]:
    """A table's items, as Python's numbers."""
    return [Item(*row) for row in table.tolist()]


def widened(table: Int32, edges: Int32, times: int, most: int) -> tuple[Int32, Int32]:
    """The same items for more queries.

    Args:
        table: items, none causal; they begin and end at edges.
        edges: `[ranks + 1]` ascending from 0, where ranks of queries begin and end.
        times: queries that there may be in the place of each.
        most: queries that there may be in all.

    Returns:
        The items, with as many queries as each rank may have, and its edges.
    """
    of = item_columns(table)
    sizes = np.minimum(np.diff(edges) * times, most)
    wide = np.concatenate([[0], sizes.cumsum()]).astype(np.int32)
    first, last = (wide[np.searchsorted(edges, at)] for at in (of.query_start, of.query_stop))
    return table_of_columns(of._replace(query_start=first, query_count=last - first)), wide


def item_positions(table: NDArray[Any], queries: int) -> Int32:
    """`[items]` where each item's first slot stands in the sequences of its queries.

    Levels follow each other as the tokens of a sequence do: it is the number of slots that the
    item's queries meet in the levels above it, and of tokens in the gaps there and before it.

    Args:
        table: items.
        queries: of the step.
    """
    of = item_columns(table.astype(np.int64))
    met, positions = np.zeros(queries + 1, np.int64), np.zeros(len(table), np.int32)
    for level in np.unique(of.level):
        own = np.flatnonzero(of.level == level)
        positions[own] = met[of.query_start[own]] + of.gap[own]
        steps, tokens = np.zeros_like(met), of.gap[own] + of.slot_count[own]
        np.add.at(steps, of.query_start[own], tokens)
        np.subtract.at(steps, of.query_stop[own], tokens)
        met += np.cumsum(steps)
    return positions


def c_defines() -> tuple[str, ...]:
    """A C compiler's flags for the columns: `ITEM_SLOT_START` and so on, and `ITEM_WIDTH`."""
    places = [f"-DITEM_{name.upper()}={place}" for place, name in enumerate(Item._fields)]
    return (*places, f"-DITEM_WIDTH={WIDTH}")
