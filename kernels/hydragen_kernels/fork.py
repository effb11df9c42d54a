"""How rows fork on the device: samples of one row that draw different tokens part.

    samples, ordered by (row, token)   ->   children: distinct pairs, depth-first
    children whose text goes on        ->   the rows that follow, numbered by a prefix sum

A parent's first living child keeps its pages. Each further one shares the full pages and gets a
page for a copy of the last. Nothing waits for the host, and nothing is done if the rows that follow
do not fit: see `Control.stuck`.

Torch operations of fixed shapes, so that a CUDA graph can hold them; plain torch on any device.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hydragen_kernels.batch_state import (
    TOO_FEW_PAGES,
    TOO_MANY_ROWS,
    BatchState,
    Control,
    Ring,
    RowState,
)
from hydragen_kernels.draft_hash import after
from hydragen_kernels.drawn import Drawn

_NOBODY = 1 << 62  # sorts behind every (row, token)


class Groups(NamedTuple):
    """The segments that rows hang from, numbered depth-first by rank.

    Attributes:
        rank: `[groups]` int64, the rank of a group; rows are in the order of their ranks.
        room: `[ranks]` int64, rows that a group may have.
        starts: `[ranks + 1]` int32, the first row of each rank; kept up to date by steps.
    """

    rank: Tensor
    room: Tensor
    starts: Tensor


class Copies(NamedTuple):
    """Pages to copy before the next step.

    Attributes:
        source: `[rows]` int32; of meaning up to `number`.
        target: `[rows]` int32.
        number: `[1]` int64.
    """

    source: Tensor
    target: Tensor
    number: Tensor


class Origins(NamedTuple):
    """Where the rows that follow have come from; all `[rows]`, of meaning only where `goes`.

    Attributes:
        goes: `[1]` bool, whether they have taken their parents' place.
        parent: int64, the row that each was before.
        is_row: bool; others are dead.
        is_heir: bool, the first of its parent's children: it keeps what is its parent's.
        moved: bool, has drawn a token.
    """

    goes: Tensor
    parent: Tensor
    is_row: Tensor
    is_heir: Tensor
    moved: Tensor


class _Children(NamedTuple):
    """The branches after one token a sample, `[samples]` each; `exists` says how many there are."""

    exists: Tensor
    parent: Tensor
    token: Tensor
    moved: Tensor
    order: Tensor  # samples, by child
    of_sample: Tensor  # the child of each sample in this order
    is_sample: Tensor


def fork_step(
    batch: BatchState,
    moves: Tensor,
    lengths: Tensor,
    drawn: Drawn[Tensor],
    table: Tensor,
    max_tokens: int,
    page_tokens: int,
    groups: Groups,
    ring: Ring,
) -> tuple[Copies, Origins]:
    """Replaces rows by those that follow when every sample has drawn a token.

    Args:
        batch: cut to the rows of the step; written.
        moves: `[rows]` bool, rows whose samples have drawn; others stay as they are.
        lengths: `[rows]` tokens of each tail in the cache.
        drawn: `[samples]` what was drawn.
        table: `[states, vocabulary]` of the stop table.
        max_tokens: tokens that end a sample.
        page_tokens: tokens of a page.
        groups: of the rows; `starts` is written.
        ring: step `begun - 1` of it is written.

    Returns:
        The pages to copy, and where the rows have come from.
    """
    n, device = batch.rows.shape[1], batch.rows.device
    control, old = Control(*batch.control.split(1)), batch.named
    children = _children(batch, moves, drawn.tokens, table.shape[1])
    stops = old.stops[children.parent]
    following = table.view(-1)[stops.clamp(min=0) * table.shape[1] + children.token].long()
    stops = torch.where(children.moved, following, stops)
    count = old.drawn[children.parent] + children.moved
    alive = children.exists & (stops >= 0) & (count < max_tokens)

    new_row = alive.cumsum(0) - 1
    n_new = alive.sum()
    child = torch.arange(len(alive), device=device)
    of_row = scattered(new_row, alive & (new_row < n), child, n)
    row = torch.arange(n, device=device)
    is_row = row < n_new
    parent = children.parent[of_row]
    tail = lengths.long()[parent]
    is_heir = is_row & ((row == 0) | (parent != parent.roll(1)))
    is_copied = is_row & ~is_heir & (tail % page_tokens != 0)
    place = is_copied.cumsum(0) - 1  # of its page among those taken
    n_copies = is_copied.sum()

    rank = torch.where(is_row, groups.rank[old.groups[parent]], len(groups.room))
    starts = first_rows(rank, len(groups.room))
    is_over = (n_new > n) | (starts.diff() > groups.room).any()
    stuck = torch.where(n_copies > control.given - control.taken, TOO_FEW_PAGES, 0)
    stuck = torch.where(is_over, TOO_MANY_ROWS, stuck)
    stuck = torch.where(control.stuck != 0, control.stuck, stuck)
    goes = stuck == 0

    column = (tail // page_tokens).clamp(max=batch.pages.shape[1] - 1)[:, None]
    # what the parent has beyond its tail, for drafts that were not drawn, is the heir's alone
    numbers = torch.arange(batch.pages.shape[1], device=device)
    pages = batch.pages[parent]
    source = pages.gather(1, column)[:, 0]
    is_shared = is_heir[:, None] | (numbers * page_tokens < tail[:, None])
    pages = torch.where(is_shared, pages, -1)
    new = batch.queue[(control.taken + place.clamp(min=0)) % len(batch.queue)]
    here = torch.where(is_copied, new, pages.gather(1, column)[:, 0])
    pages.scatter_(1, column, here[:, None])
    copies = Copies(
        scattered(place, is_copied, source, n),
        scattered(place, is_copied, new, n),
        torch.where(goes, n_copies, 0),
    )
    moved, token, context = children.moved[of_row], children.token[of_row], old.contexts[parent]
    rows = RowState(
        tokens=torch.where(moved, token, old.tokens[parent]),
        positions=old.positions[parent] + moved,
        lengths=tail,
        drawn=count[of_row],
        groups=old.groups[parent],
        stops=torch.where(is_row, stops[of_row], -1),
        fresh=torch.where(moved, -1, old.fresh[parent]),
        contexts=torch.where(moved, after(context, token), context),
        problems=old.problems[parent],
    )
    sample_rows = torch.where(alive[children.of_sample], new_row[children.of_sample], -1)
    sample_rows = torch.where(children.is_sample, sample_rows, -1).int()
    sample_rows = torch.empty_like(sample_rows).scatter_(0, children.order, sample_rows)
    _record(batch, moves, drawn, goes, control.begun, ring)

    batch.rows.copy_(torch.where(goes, torch.stack(rows), batch.rows))
    batch.pages.copy_(torch.where(goes, torch.where(is_row[:, None], pages, -1), batch.pages))
    batch.sample_rows.copy_(torch.where(goes, sample_rows, batch.sample_rows))
    groups.starts.copy_(torch.where(goes, starts, groups.starts))
    control.rows.copy_(torch.where(goes, n_new, control.rows))
    control.taken.add_(copies.number)
    control.stuck.copy_(stuck)
    return copies, Origins(goes, parent, is_row, is_heir, moved)


def first_rows(ranks: Tensor, n_ranks: int) -> Tensor:
    """`[n_ranks + 1]` int32: the first row of each rank, and one past the last row of all.

    Args:
        ranks: `[rows]` int64, ascending; `n_ranks` where there is no row.
        n_ranks: ranks there may be.
    """
    rank = torch.arange(n_ranks + 1, device=ranks.device)
    return torch.searchsorted(ranks, rank, out_int32=True)


def _children(batch: BatchState, moves: Tensor, tokens: Tensor, vocab: int) -> _Children:
    """Tells a row's samples apart by their tokens."""
    row = batch.sample_rows.long()
    is_sample = row >= 0
    row = row.clamp(0, len(moves) - 1)  # beyond them only where the step is stuck
    token = torch.where(moves[row], tokens.long(), 0)
    key, order = torch.where(is_sample, row * vocab + token, _NOBODY).sort()
    is_sample = key != _NOBODY
    is_first = is_sample & (key != key.roll(1))
    number = torch.arange(len(key), device=key.device)
    is_first = is_first | (is_sample & (number == 0))
    child = is_first.cumsum(0) - 1
    parent = scattered(child, is_first, key // vocab, len(key))
    return _Children(
        exists=number < is_first.sum(),
        parent=parent,
        token=scattered(child, is_first, key % vocab, len(key)),
        moved=moves[parent],
        order=order,
        of_sample=child.clamp(min=0),
        is_sample=is_sample,
    )


def _record(
    batch: BatchState, moves: Tensor, drawn: Drawn[Tensor], goes: Tensor, begun: Tensor, ring: Ring
) -> None:
    """Leaves what samples have drawn in the ring."""
    row = batch.sample_rows.long()
    has_drawn = goes & (row >= 0) & moves[row.clamp(0, len(moves) - 1)]
    at = (begun - 1).clamp(0, len(ring.tokens) - 1)
    ring.tokens.index_copy_(0, at, torch.where(has_drawn, drawn.tokens, -1)[None])
    logprobs = torch.stack([drawn.logprobs, drawn.sampled_logprobs])
    ring.logprobs.index_copy_(1, at, torch.where(has_drawn, logprobs, 0.0)[:, None])


def scattered(index: Tensor, where: Tensor, values: Tensor, size: int) -> Tensor:
    """`[size]` with values at their index, those for which `where` holds; 0 elsewhere.

    Args:
        index: int64, each below `size` where `where` holds.
        where: bool, like `index`.
        values: like `index`.
        size: of what is returned.
    """
    out = torch.zeros(size + 1, dtype=values.dtype, device=values.device)
    return out.scatter_(0, torch.where(where, index, size), values)[:size]
