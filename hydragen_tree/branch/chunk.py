"""What comes back from a device after some steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.batch_state import Control, RowState
from hydragen_kernels.drawn import Drawn

CHUNK_STEPS = 8  # at the most
CHUNK_S = 0.1  # that they should take, no longer: the host does its part in less


@dataclass(frozen=True, eq=False, slots=True)
class Chunk:
    """What some steps have drawn, and what the batch is after them.

    Attributes:
        drawn: `[steps * most, samples]` each; the token -1 where a sample has drawn nothing.
        sample_rows: `[samples]` int32, -1 for samples that have ended or are none.
        fields: `[fields, rows]` int64, as `RowState` names them.
        pages: `[rows, max_pages]` int32.
        control: `[fields]` int64, as `Control` names them.
        most: tokens that a sample draws in a step at the most.
        tallies: `[2, samples]` int64, as of `DraftState`; None: no table learns.
        draft_counts: `[3]` int64, its `counts`.
    """

    drawn: Drawn[NDArray[Any]]
    sample_rows: Int32
    fields: NDArray[np.int64]
    pages: Int32
    control: NDArray[np.int64]
    most: int = 1
    tallies: NDArray[np.int64] | None = None
    draft_counts: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, parts: Sequence[NDArray[Any]], most: int) -> "Chunk":
        """A chunk of what was fetched.

        Args:
            parts: tokens of the ring, its log-probabilities, `sample_rows`, `fields`, `pages` and
                `control`; where a table learns also its tallies and counts, and tokens and
                log-probabilities of drafts, `most - 1` lines for each of the ring's.
            most: see `most`.
        """
        tokens, logprobs, sample_rows, fields, pages, control = parts[:6]
        state = sample_rows, fields, pages, control
        if len(parts) == 6:
            return cls(Drawn(tokens, *logprobs), *state)
        tallies, counts, drafts, draft_logprobs = parts[6:]
        steps, samples = tokens.shape
        lines = steps, most - 1, samples
        tokens = np.concatenate([drafts.reshape(lines), tokens[:, None]], 1)
        halves = draft_logprobs.reshape(2, *lines), logprobs[:, :, None]
        logprobs = np.concatenate(halves, 2).reshape(2, -1, samples)
        drawn = Drawn(tokens.reshape(-1, samples), *logprobs)
        return cls(drawn, *state, most, tallies, counts)

    def row(self, name: str) -> NDArray[np.int64]:
        """`[rows]` a field of `RowState`."""
        values: NDArray[np.int64] = self.fields[RowState._fields.index(name)]
        return values

    def number(self, name: str) -> int:
        """A field of `Control`."""
        return int(self.control[Control._fields.index(name)])
