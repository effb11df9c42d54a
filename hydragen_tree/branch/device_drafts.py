"""Drafts of a decoder's steps: the table of what has followed what, and a ring for those drawn."""

import numpy as np
import torch
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import BatchState, Ring, StepInputs
from hydragen_kernels.draft_hash import MOST_STEPS, SHORT_MASK, STEP_SHIFT, TOKEN_BITS, find
from hydragen_kernels.draft_queries import Queries, make_queries
from hydragen_kernels.drafts import ROW_QUERIES, DraftState, Proposals, propose
from hydragen_kernels.inputs import to_device
from hydragen_kernels.step import begin_step
from hydragen_tree.branch.draft_table import text_contexts


class DeviceDrafts:
    """Fixed buffers.

    Args:
        samples: room for them.
        steps: of a chunk at the most.
        device: where the buffers live.

    Attributes:
        state: what has followed what.
        ring: where steps leave the drafts that were drawn, `ROW_QUERIES - 1` lines a step.
    """

    def __init__(self, samples: int, steps: int, device: torch.device) -> None:
        self.state = DraftState.empty(samples, device)
        self._first_held = self.state.held.clone()
        lines = steps * (ROW_QUERIES - 1)
        self.ring = Ring(
            torch.zeros(lines, samples, dtype=torch.int32, device=device),
            torch.zeros(2, lines, samples, device=device),
        )
        self._steps = 0

    def clear(self) -> None:
        """Forgets all that was drawn."""
        self.state.entries.fill_(-1)
        self.state.held.copy_(self._first_held)
        self.state.tallies.zero_()
        self.state.counts.zero_()
        self._steps = 0

    def add_text(self, problem: int, tokens: Int32) -> None:
        """Takes in the tokens of a prompt; of several that follow the same ones the greatest."""
        places, tags = find(np.full(tokens.size, problem), text_contexts(tokens))
        entries = ((tags & SHORT_MASK) << TOKEN_BITS) | tokens.astype(np.int64)[:, None]
        device = self.state.entries.device
        stamped = to_device(entries.reshape(-1), device) + (self.state.counts[0] << STEP_SHIFT)
        at = to_device(places.reshape(-1), device)
        self.state.entries.scatter_reduce_(0, at, stamped, "amax")

    def expect(self, steps: int, width: int) -> None:
        """So many steps come; with drafts, nothing has been drawn of them yet."""
        self._steps += steps
        # an entry could not tell which came last; half, since captures count as well
        if self._steps >= MOST_STEPS // 2:
            self.state.entries.fill_(-1)
            self.state.counts[0] = 0
            self._steps = steps
        if width > 1:
            self.ring.tokens.fill_(-1)

    def begin(
        self, batch: BatchState, width: int, page_tokens: int, max_tokens: int
    ) -> tuple[StepInputs, Proposals, Queries]:
        """Begins a step of so many queries for each row that it may have.

        Args:
            batch: cut to the rows of the step.
            width: 1: it takes no drafts along.
            page_tokens: tokens of a page.
            max_tokens: that end a sample.
        """
        n = width * batch.rows.shape[1]
        proposals = propose(batch, self.state, n, max_tokens, page_tokens)
        if width == 1:
            inputs = begin_step(batch, page_tokens)
            return inputs, proposals, Queries.without_drafts(batch, inputs)
        inputs = begin_step(batch, page_tokens, proposals.counts)
        return inputs, proposals, make_queries(batch, inputs, proposals, page_tokens, n)

    def fetched(self, steps: int, width: int) -> list[Tensor]:
        """What the host is told of so many steps, see `Chunk.of`."""
        lines = steps * (ROW_QUERIES - 1 if width > 1 else 0)
        ring = self.ring.tokens[:lines], self.ring.logprobs[:, :lines]
        return [self.state.tallies, self.state.counts, *ring]
