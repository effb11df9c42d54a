"""A decode step's bookkeeping in plain torch: the definition that `step.py` is tested against."""

import torch
from torch import Tensor


def step_slots(lengths: Tensor, limits: Tensor, pages: Tensor, page_tokens: int) -> Tensor:
    """Where each row's token is stored: its next slot while it is live, else -1.

    Args:
        lengths: `[rows]` int64, tokens of the tail.
        limits: `[rows]` int64, the length at which the row stops.
        pages: `[rows, max_pages]` int32, below 0 where there is none.
        page_tokens: tokens of a page.

    Returns:
        `[rows]` int64.
    """
    last = (lengths // page_tokens).clamp(max=pages.shape[1] - 1)
    page = pages.gather(1, last[:, None])[:, 0].long()
    live = (lengths < limits) & (page >= 0)
    return torch.where(live, page * page_tokens + lengths % page_tokens, -1)


def moved_on(
    tokens: Tensor, counts: tuple[Tensor, ...], slots: Tensor, chosen: Tensor
) -> tuple[Tensor, ...]:
    """The rows' last tokens and counts after a step; rows that store nothing keep theirs.

    Args:
        tokens: `[rows]` int64, the last token drawn.
        counts: each `[rows]` int64, what grows by one a step.
        slots: `[rows]`, from `step_slots`.
        chosen: `[rows]`, what was drawn.

    Returns:
        The tokens, then each of the counts.
    """
    live = slots >= 0
    return torch.where(live, chosen, tokens), *(count + live for count in counts)
