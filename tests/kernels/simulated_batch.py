"""A batch on a device, and the same batch as lists of Python's.

The arena's slots are simulated as well: what a row would read of its tail must be the history of
its samples, whoever has written to pages since.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from hydragen_kernels import reference_step
from hydragen_kernels.batch_state import BatchState, Control, Ring, RowState
from hydragen_kernels.drawn import Drawn
from hydragen_kernels.fork import Copies, Groups, fork_step

PAGE = 4


@dataclass
class Row:
    """A row as it should be."""

    group: int
    samples: list[int]
    history: list[int]
    length: int  # tokens of its tail in the cache
    stop: int
    is_fresh: bool
    pages: list[int]


def context_of(history: list[int]) -> int:
    """The last seven tokens in one number: the last one whole, 7 bits of each other one."""
    *older, last = [0] * 7 + history
    return last + sum(
        token % 128 << 21 + 7 * back for back, token in enumerate(reversed(older[-6:]))
    )


class Simulated:
    """A batch on a device, and the same batch as lists."""

    def __init__(
        self,
        rows: list[Row],
        *,
        n_rows: int,
        n_pages: int,
        table: list[list[int]],
        max_tokens: int,
        device: str = "cpu",
    ) -> None:
        self.rows, self.device, self.max_tokens = rows, device, max_tokens
        self.n_samples = 1 + max(sample for row in rows for sample in row.samples)
        self.table = table
        self.free = list(range(n_pages))
        self.queue: list[int] = []  # what the device's should hold, the next one first
        self.in_tables: set[int] = set()
        self.arena: dict[int, tuple[int, int]] = {}  # slot to what was written: place and token
        self.start = 100  # position of the first token drawn
        max_pages = -(-max_tokens // PAGE) + 1
        fields = len(RowState._fields)
        self.batch = BatchState(
            rows=self.tensor([[9] * n_rows] * fields),
            pages=self.tensor([[-1] * max_pages] * n_rows).int(),
            sample_rows=self.tensor([-1] * self.n_samples).int(),
            keys=self.tensor([0] * self.n_samples),
            control=self.tensor([0] * len(Control._fields)),
            queue=self.tensor([-5] * n_pages).int(),
        )
        self.batch.named.stops.fill_(-1)
        ranks = sorted({row.group for row in rows}, reverse=True)  # numbers are not ranks
        self.rank = {group: rank for rank, group in enumerate(ranks)}
        self.rows.sort(key=lambda row: self.rank[row.group])
        self.groups = Groups(
            rank=self.tensor([self.rank.get(group, 0) for group in range(max(ranks) + 1)]),
            room=self.tensor([n_rows] * len(ranks) + [0]),
            starts=self.tensor([0] * (len(ranks) + 2)).int(),
        )
        self.ring = Ring(
            self.tensor([[-77] * self.n_samples] * 5).int(),
            torch.full((2, 5, self.n_samples), torch.nan, device=device),
        )
        self.load()

    def tensor(self, values: object) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    @property
    def control(self) -> Control[int]:
        return Control(*self.batch.control.tolist())

    def set_control(self, **numbers: int) -> None:
        self.batch.control.copy_(self.tensor(self.control._replace(**numbers)))

    def load(self) -> None:
        """Puts the rows into the tensors."""
        named = self.batch.named
        for number, row in enumerate(self.rows):
            state = RowState(
                tokens=row.history[-1] if row.history else 0,
                positions=self.start + len(row.history) - 1,
                lengths=row.length,
                drawn=len(row.history),
                groups=row.group,
                stops=row.stop,
                fresh=number if row.is_fresh else -1,
                contexts=context_of(row.history),
                problems=row.group,
            )
            for field, value in zip(named, state, strict=True):
                field[number] = value
            self.batch.sample_rows[row.samples] = number
        self.set_control(rows=len(self.rows))

    def give(self, count: int) -> None:
        """Takes back pages that no row names, then puts free ones into the queue."""
        named = {page for row in self.rows for page in row.pages}
        self.free += sorted(self.in_tables - named)
        self.in_tables &= named
        for _ in range(min(count, len(self.free))):
            page, given = self.free.pop(), self.control.given
            self.queue.append(page)
            self.batch.queue[given % len(self.batch.queue)] = page
            self.set_control(given=given + 1)

    def take(self) -> int:
        page = self.queue.pop(0)
        self.in_tables.add(page)
        return page

    def slots(self, row: Row) -> list[int]:
        return [row.pages[at // PAGE] * PAGE + at % PAGE for at in range(row.length)]

    def step(self, tokens: list[int], rows: int, *, opens: bool = False) -> int:
        """One step of a graph for so many rows; returns why it is stuck."""
        batch = self.batch if opens else self.batch.first(rows)  # what begins sees all rows
        if opens:
            moves, lengths = batch.named.fresh >= 0, batch.named.lengths
            self.set_control(begun=self.control.begun + 1)
        else:
            step = reference_step.begin_step(batch, PAGE)
            moves, lengths = step.slots >= 0, step.lengths
            if self.control.stuck == 0:
                for row in self.rows:
                    if len(row.pages) * PAGE == row.length:
                        row.pages.append(self.take())
                    self.arena[self.slots(replace(row, length=row.length + 1))[-1]] = (
                        row.length,
                        row.history[-1],
                    )
        before, starts = BatchState(*(x.clone() for x in self.batch)), self.groups.starts.clone()
        chosen = self.tensor(tokens).int()
        copies, _ = fork_step(
            batch,
            moves,
            lengths,
            Drawn(chosen, chosen / 2, chosen / 4),
            self.tensor(self.table).to(torch.int16),
            self.max_tokens,
            PAGE,
            self.groups,
            self.ring,
        )
        stuck = self.control.stuck
        if stuck:
            assert torch.equal(self.groups.starts, starts)
            after = self.batch._replace(control=self.batch.control.clone())
            after.control[Control._fields.index("stuck")] = before.control[
                Control._fields.index("stuck")
            ]
            for was, now in zip(before, after, strict=True):
                assert torch.equal(was, now), "something was written by a stuck step"
            assert copies.number.item() == 0
            assert self.ring.tokens[self.control.begun - 1].tolist() == [-1] * self.n_samples
            return stuck
        self.follow(tokens, opens, copies)
        self.check()
        return 0

    def children(self, tokens: list[int], opens: bool) -> Iterable[tuple[Row, Row]]:
        """The rows that follow, in their order, each behind its parent."""
        for row in self.rows:
            if opens and not row.is_fresh:
                yield row, replace(row, pages=list(row.pages))
                continue
            length, is_first = row.length + (not opens), True
            for token in sorted({tokens[sample] for sample in row.samples}):
                stop = self.table[row.stop][token]
                if stop < 0 or len(row.history) + 1 >= self.max_tokens:
                    continue
                own = [sample for sample in row.samples if tokens[sample] == token]
                pages = row.pages if is_first else row.pages[: length // PAGE]
                history = [*row.history, token]
                yield row, Row(row.group, own, history, length, stop, False, list(pages))
                is_first = False

    def due(self, tokens: list[int], opens: bool) -> tuple[int, int, int]:
        """Rows that follow, the most of any group, and pages to copy."""
        rows = [row for _, row in self.children(tokens, opens)]
        groups = [row.group for row in rows]
        copies = sum(len(row.pages) * PAGE < row.length for row in rows)
        return len(rows), max(map(groups.count, groups), default=0), copies

    def follow(self, tokens: list[int], opens: bool, copies: Copies) -> None:
        """The same step with lists; what must be in the ring, and which pages copied."""
        expected = [-1] * self.n_samples
        for row in self.rows:
            if row.is_fresh or not opens:
                for sample in row.samples:
                    expected[sample] = tokens[sample]
        at = self.control.begun - 1
        assert self.ring.tokens[at].tolist() == expected
        halves = [0.0 if token < 0 else token / 2 for token in expected]
        assert self.ring.logprobs[0, at].tolist() == halves
        assert self.ring.logprobs[1, at].tolist() == [half / 2 for half in halves]

        rows, copied = [], []
        for parent, row in self.children(tokens, opens):
            rows.append(row)
            if len(row.pages) * PAGE < row.length:
                page = self.take()
                source = parent.pages[len(row.pages)]
                copied.append((source, page))
                row.pages.append(page)
                for offset in range(PAGE):
                    self.arena.pop(page * PAGE + offset, None)
                    if source * PAGE + offset in self.arena:
                        self.arena[page * PAGE + offset] = self.arena[source * PAGE + offset]
        pairs = zip(copies.source.tolist(), copies.target.tolist(), strict=True)
        assert list(pairs)[: copies.number.item()] == copied
        assert copies.number.item() == len(copied)
        self.rows = rows

    def check(self) -> None:
        """The tensors say what the lists do."""
        named, control = self.batch.named, self.control
        n = len(self.rows)
        assert control.rows == n
        assert (named.stops[n:] == -1).all()
        for name, values in (
            RowState(
                tokens=[row.history[-1] if row.history else 0 for row in self.rows],
                positions=[self.start + len(row.history) - 1 for row in self.rows],
                lengths=[row.length for row in self.rows],
                drawn=[len(row.history) for row in self.rows],
                groups=[row.group for row in self.rows],
                stops=[row.stop for row in self.rows],
                fresh=[-1] * n,
                contexts=[context_of(row.history) for row in self.rows],
                problems=[row.group for row in self.rows],
            )
            ._asdict()
            .items()
        ):
            assert getattr(named, name)[:n].tolist() == values, name
        pages = [[page for page in row if page >= 0] for row in self.batch.pages.tolist()]
        assert pages == [row.pages for row in self.rows] + [[]] * (len(pages) - n)
        where = {sample: number for number, row in enumerate(self.rows) for sample in row.samples}
        assert self.batch.sample_rows.tolist() == [
            where.get(sample, -1) for sample in range(self.n_samples)
        ]
        of_rank = [self.rank[row.group] for row in self.rows]
        assert of_rank == sorted(of_rank), "rows are not in the order of their groups"
        ranks = range(len(self.groups.room) + 1)
        assert self.groups.starts.tolist() == [sum(r < rank for r in of_rank) for rank in ranks]
        assert control.given - control.taken == len(self.queue)
        # pages: each in one place, and one writer each
        used = {page for row in self.rows for page in row.pages}
        assert used <= self.in_tables
        everywhere = [*self.free, *self.queue, *self.in_tables]
        assert sorted(everywhere) == list(range(len(self.batch.queue))), "a page is lost or twice"
        writers = [row.pages[-1] for row in self.rows if row.length < len(row.pages) * PAGE]
        shared = [page for row in self.rows for page in row.pages]
        assert all(shared.count(page) == 1 for page in writers), "a page has two writers"
        for row in self.rows:
            read = [self.arena[slot] for slot in self.slots(row)]
            assert read == list(enumerate(row.history[: row.length])), "not its own past"
