"""Index tables that tell attention which queries meet which keys.

A step's queries are packed: all rows of a decode step, or the new tokens of some segments. Every
query hangs from a segment and sees all segments on its path. As rows are in depth-first order,
the queries below a segment are one contiguous range, and one table row says it all:

    queries query_start .. + query_count   meet   slots slot_start .. + slot_count

What a query meets, level by level and then in its tail, is its sequence from the first token on.
Rows of one level (depth) have disjoint query ranges. Causal rows are square: the i-th query sees
the first i + 1 slots.
"""

from dataclasses import dataclass

import numpy as np

from hydragen_kernels.arrays import Int32
from hydragen_kernels.items import WIDTH, item_columns, item_positions, item_rows
from hydragen_kernels.reference import Node
from hydragen_tree.errors import PlanError


@dataclass(frozen=True, eq=False, slots=True)
class Tails:
    """The tail of each row: pages of slots that no other row reads through it.

    Attributes:
        pages: `[rows, max_pages]` int32 page numbers; entries past a row's length are ignored.
        lengths: `[rows]` int32, tokens in each tail, this step's own token included.
        page_tokens: slots a page.
    """

    pages: Int32
    lengths: Int32
    page_tokens: int

    def check(self, rows: int, slots: int) -> None:
        """Makes sure that every row's pages lie in the arena.

        Args:
            rows: queries of the step.
            slots: of the arena.

        Raises:
            PlanError: a field is wrong; the message names it.
        """
        _check_table("pages", self.pages, (rows, None))
        _check_table("lengths", self.lengths, (rows,))
        size, width = self.page_tokens, self.pages.shape[1]
        if not isinstance(size, int | np.integer) or not 1 <= size <= slots:
            raise PlanError(f"page_tokens: expected 1 to {slots}, slots of the arena, got {size}")
        is_wrong = (self.lengths < 0) | (self.lengths > width * size)
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise PlanError(
                f"lengths: {self.lengths[row]} of row {row}: expected 0 to {width * size}, "
                f"what {width} pages hold"
            )
        read = np.arange(width) * size < self.lengths[:, None]
        outside = read & ((self.pages < 0) | (self.pages >= slots // size))
        if outside.any():
            row, column = divmod(int(outside.argmax()), width)
            raise PlanError(
                f"pages: {self.pages[row, column]} of row {row}: expected 0 to "
                f"{slots // size - 1}, those of the arena"
            )


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What one attention step reads.

    Attributes:
        n_queries: queries in the step.
        items: a table of `hydragen_kernels.items.Item`, levels ascending.
        tails: one tail a query in a decode step; None in a prefill step.
    """

    n_queries: int
    items: Int32
    tails: Tails | None = None

    def nodes(self) -> tuple[Node, ...]:
        """The item table as the forest that the recursive reference walks."""
        items = item_rows(self.items)
        positions = item_positions(self.items, self.n_queries).tolist()
        order = sorted(range(len(items)), key=lambda i: (items[i].query_start, items[i].level))
        parents = [-1] * len(items)
        path: list[int] = []  # from a root down to the item before
        for index in order:
            while path and items[path[-1]].query_stop < items[index].query_stop:
                path.pop()
            parents[index] = path[-1] if path else -1
            path.append(index)
        children: dict[int, list[Node]] = {}
        for index in reversed(order):  # whoever is below an item comes before it
            item, below = items[index], children.pop(index, [])
            node = Node(
                item.query_start,
                item.query_stop,
                item.slot_start,
                item.slot_stop,
                bool(item.causal),
                positions[index],
                tuple(reversed(below)),
            )
            children.setdefault(parents[index], []).append(node)
        return tuple(reversed(children.get(-1, [])))

    def tail_lengths(self) -> Int32:
        """`[queries]` tokens in each query's tail; zeros in a prefill step."""
        return np.zeros(self.n_queries, np.int32) if self.tails is None else self.tails.lengths

    def tail_tables(self) -> tuple[Int32 | None, Int32 | None, int]:
        """Pages, lengths and slots a page, as C takes them; no pages in a prefill step."""
        tails = self.tails
        return (None, None, 1) if tails is None else (tails.pages, tails.lengths, tails.page_tokens)

    def positions(self) -> Int32:
        """`[queries]` where each query stands in its sequence: keys that it meets, less one."""
        met = np.full(self.n_queries, -1, np.int32)
        if self.tails is not None:
            met += self.tails.lengths
        for item in item_rows(self.items):
            seen = np.arange(item.slot_count) + 1 if item.causal else item.slot_count
            met[item.query_start : item.query_stop] += item.gap + seen
        return met

    def check(self, slots: int) -> None:
        """Makes sure that nothing outside the queries and the arena would be read.

        Args:
            slots: of the arena.

        Raises:
            PlanError: a field is wrong; the message names it.
        """
        _check_table("items", self.items, (None, WIDTH))
        of = item_columns(self.items.astype(np.int64))
        order = np.lexsort((of.query_start, of.level))
        ordered = order[of.query_count[order] > 0]
        before, after = ordered[:-1], ordered[1:]
        faults = (
            ("query_start", of.query_start < 0),
            ("query_count", (of.query_count < 0) | (of.query_stop > self.n_queries)),
            ("slot_start", of.slot_start < 0),
            ("slot_count", (of.slot_count < 0) | (of.slot_stop > slots)),
            ("causal", (of.causal != 0) & ((of.causal != 1) | (of.query_count != of.slot_count))),
            ("level", np.diff(of.level, prepend=0) < 0),
            ("gap", of.gap < 0),
        )
        for name, is_wrong in faults:
            if is_wrong.any():
                at = int(is_wrong.argmax())
                raise PlanError(
                    f"items: {name} {getattr(of, name)[at]} of item {at}: {_EXPECTED[name]} "
                    f"({self.n_queries} queries, {slots} slots)"
                )
        overlaps = (of.level[before] == of.level[after]) & (
            of.query_start[after] < of.query_stop[before]
        )
        if overlaps.any():
            at = int(overlaps.argmax())
            raise PlanError(
                f"items: query_start {of.query_start[after[at]]} of item {after[at]}: "
                f"in the queries of item {before[at]}, of the same level"
            )
        if self.tails is not None:
            self.tails.check(self.n_queries, slots)


_EXPECTED = {
    "query_start": "expected at least 0",
    "query_count": "expected a range within the queries",
    "slot_start": "expected at least 0",
    "slot_count": "expected a range within the arena",
    "causal": "expected 0, or 1 with as many queries as slots",
    "level": "expected levels from 0 on, ascending",
    "gap": "expected at least 0",
}


def _check_table(name: str, table: Int32, shape: tuple[int | None, ...]) -> None:
    if not isinstance(table, np.ndarray):
        raise PlanError(f"{name}: expected a numpy array of int32, got {type(table).__name__}")
    fits = table.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, table.shape, strict=True)
    )
    if not fits or table.dtype != np.int32:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise PlanError(f"{name}: expected int32 [{sizes}], got {table.dtype} {list(table.shape)}")
