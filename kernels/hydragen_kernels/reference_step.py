"""A decode step's bookkeeping in plain torch: the definition that `step.py` is tested against."""

import torch
from torch import Tensor

from hydragen_kernels.batch_state import (
    TOO_FEW_PAGES,
    TOO_MANY_ROWS,
    BatchState,
    Control,
    Ring,
    StepInputs,
)
from hydragen_kernels.draft_hash import after
from hydragen_kernels.drawn import Drawn


def begin_step(batch: BatchState, page_tokens: int, drafts: Tensor | None = None) -> StepInputs:
    """See `hydragen_kernels.step.begin_step`."""
    control, state = Control(*batch.control.split(1)), batch.named
    n = batch.rows.shape[1]
    live = (torch.arange(n, device=batch.rows.device) < control.rows) & (state.stops >= 0)
    length = torch.where(live, state.lengths, 0)
    column = (length // page_tokens).clamp(max=batch.pages.shape[1] - 1)[:, None]
    lacks = live & (batch.pages.gather(1, column)[:, 0] < 0)
    reach = column if drafts is None else (length + drafts)[:, None] // page_tokens
    lacks_last = live & (reach > column)[:, 0] & (batch.pages.gather(1, reach)[:, 0] < 0)

    due = int(lacks.sum() + lacks_last.sum())
    if int(control.rows) > n:
        control.stuck.fill_(TOO_MANY_ROWS)
    elif int(control.stuck) == 0 and due > int(control.given - control.taken):
        control.stuck.fill_(TOO_FEW_PAGES)
    goes = live & (control.stuck == 0)
    for where, wanted in ((column, lacks & goes), (reach, lacks_last & goes)):
        at = (control.taken + wanted.cumsum(0) - 1) % len(batch.queue)
        page = torch.where(wanted, batch.queue[at], batch.pages.gather(1, where)[:, 0])
        batch.pages.scatter_(1, where, page[:, None])
        control.taken.add_(wanted.sum())
    page = batch.pages.gather(1, column)[:, 0].long()
    control.begun.add_(1)
    control.computed.add_(goes.sum())
    return StepInputs(
        slots=torch.where(goes, page * page_tokens + length % page_tokens, -1).int(),
        lengths=(length + goes).int(),
        counters=torch.where(live, state.drawn, 0).int(),
    )


def end_step(
    batch: BatchState,
    slots: Tensor,
    drawn: Drawn[Tensor],
    table: Tensor,
    max_tokens: int,
    ring: Ring,
) -> None:
    """See `hydragen_kernels.step.end_step`."""
    n, row = batch.rows.shape[1], batch.sample_rows.long()
    has_drawn = (row >= 0) & (row < n) & (slots[row.clamp(0, n - 1)] >= 0)
    step = int(Control(*batch.control).begun) - 1
    if 0 <= step < len(ring.tokens):
        ring.tokens[step] = torch.where(has_drawn, drawn.tokens, -1)
        ring.logprobs[0, step] = torch.where(has_drawn, drawn.logprobs, 0.0)
        ring.logprobs[1, step] = torch.where(has_drawn, drawn.sampled_logprobs, 0.0)

    state, moved = batch.named, row[has_drawn]
    token = drawn.tokens[has_drawn].long()
    for field in (state.positions, state.lengths, state.drawn):
        field[moved] += 1
    state.tokens[moved] = token
    state.contexts[moved] = after(state.contexts[moved], token)
    stop = table[state.stops[moved], token].long()
    has_ended = (stop < 0) | (state.drawn[moved] >= max_tokens)
    state.stops[moved] = torch.where(has_ended, -1, stop)
    batch.sample_rows[has_drawn.nonzero()[:, 0][has_ended]] = -1
