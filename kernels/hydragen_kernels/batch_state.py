"""A batch as steps on the device find it: rows, samples, pages, and the numbers of a step.

Everything lies in tensors of fixed place, so that a CUDA graph can read and write it.
"""

from typing import Generic, NamedTuple, TypeVar

import torch

from hydragen_kernels.drawn import Drawn
from hydragen_kernels.inputs import check_contiguous, check_int32, check_last_contiguous

TOO_MANY_ROWS, TOO_FEW_PAGES = 1, 2  # why a step is stuck


Field = TypeVar("Field", int, torch.Tensor)


class RowState(NamedTuple, Generic[Field]):
    """Where rows stand; every field `[rows]` int64, or the number of one row.

    Attributes:
        tokens: the last token drawn.
        positions: its position.
        lengths: tokens of the tail in the cache, without this one.
        drawn: tokens drawn so far.
        groups: number of the segment it hangs from.
        stops: state of its stop table; below 0: the row is dead.
        fresh: row of the prompts' logits from which its first token is drawn; -1 once it has been.
        contexts: its last tokens, see `draft_hash`.
        problems: number of the problem it answers.
    """

    tokens: Field
    positions: Field
    lengths: Field
    drawn: Field
    groups: Field
    stops: Field
    fresh: Field
    contexts: Field
    problems: Field


class Control(NamedTuple, Generic[Field]):
    """A step's single numbers; every field `[1]` int64.

    Attributes:
        begun: steps begun since the ring was at its start.
        rows: rows, dead ones among them included.
        stuck: 0, or why nothing moves.
        taken: pages taken out of the queue since it was made.
        given: pages put into the queue since it was made.
        computed: rows that have moved, summed over steps.
    """

    begun: Field
    rows: Field
    stuck: Field
    taken: Field
    given: Field
    computed: Field


class BatchState(NamedTuple):
    """A batch on the device.

    Attributes:
        rows: `[fields, rows]` int64, as `RowState` names them.
        pages: `[rows, max_pages]` int32; -1 where there is none.
        sample_rows: `[samples]` int32, the row of each sample; -1: none.
        keys: `[samples]` int64, stream keys of their random numbers.
        control: `[6]` int64, as `Control` names them.
        queue: `[most]` int32, free pages in a ring.
    """

    rows: torch.Tensor
    pages: torch.Tensor
    sample_rows: torch.Tensor
    keys: torch.Tensor
    control: torch.Tensor
    queue: torch.Tensor

    def first(self, rows: int) -> "BatchState":
        """The same batch, cut to its first rows."""
        return self._replace(rows=self.rows[:, :rows], pages=self.pages[:rows])

    @property
    def named(self) -> RowState[torch.Tensor]:
        """The rows' fields."""
        return RowState(*self.rows)


class Ring(NamedTuple):
    """Where steps leave what they draw.

    Attributes:
        tokens: `[steps, samples]` int32; -1 where a sample has drawn nothing.
        logprobs: `[2, steps, samples]` fp32: under the model's own distribution, and under the one
            drawn from.
    """

    tokens: torch.Tensor
    logprobs: torch.Tensor


class StepInputs(NamedTuple):
    """What a step's kernels read; every field `[rows]` int32.

    Attributes:
        slots: where each row's token is stored; -1: nowhere.
        lengths: tokens of the tail once it is; 0 for a dead row.
        counters: index of the token to draw.
    """

    slots: torch.Tensor
    lengths: torch.Tensor
    counters: torch.Tensor


def check_batch(batch: BatchState) -> int:
    """Check a batch's tensors; return its rows.

    Raises:
        ValueError: shapes, dtypes or strides do not fit together.
    """
    fields, rows = batch.rows.shape
    if batch.rows.dtype != torch.int64 or fields != len(RowState._fields):
        raise ValueError(
            f"rows: expected int64 [{len(RowState._fields)}, rows], got {batch.rows.dtype} "
            f"{list(batch.rows.shape)}"
        )
    pages, samples = batch.pages, batch.sample_rows.shape[0]
    if pages.dtype != torch.int32 or pages.ndim != 2 or len(pages) != rows or not pages.shape[1]:
        raise ValueError(
            f"pages: expected int32 [{rows}, max_pages], got {pages.dtype} {list(pages.shape)}"
        )
    check_last_contiguous("rows", batch.rows)
    check_last_contiguous("pages", pages)
    check_int32("sample_rows", batch.sample_rows, (samples,))
    check_contiguous("keys", batch.keys, torch.int64, (samples,))
    check_contiguous("control", batch.control, torch.int64, (len(Control._fields),))
    check_int32("queue", batch.queue, (len(batch.queue),))
    return rows


def check_drawn(drawn: Drawn[torch.Tensor], samples: int) -> None:
    """Check what was drawn.

    Raises:
        ValueError: shapes or dtypes are wrong.
    """
    check_int32("drawn.tokens", drawn.tokens, (samples,))
    for name in ("logprobs", "sampled_logprobs"):
        check_contiguous(f"drawn.{name}", getattr(drawn, name), torch.float32, (samples,))


def check_ring(ring: Ring, samples: int) -> None:
    """Check a ring.

    Raises:
        ValueError: shapes, dtypes or strides are wrong.
    """
    steps = len(ring.tokens)
    if ring.tokens.dtype != torch.int32 or list(ring.tokens.shape) != [steps, samples]:
        raise ValueError(
            f"ring.tokens: expected int32 [steps, {samples}], got {ring.tokens.dtype} "
            f"{list(ring.tokens.shape)}"
        )
    if ring.logprobs.dtype != torch.float32 or list(ring.logprobs.shape) != [2, steps, samples]:
        raise ValueError(
            f"ring.logprobs: expected fp32 {[2, steps, samples]}, got {ring.logprobs.dtype} "
            f"{list(ring.logprobs.shape)}"
        )
    check_last_contiguous("ring.tokens", ring.tokens)
    check_last_contiguous("ring.logprobs", ring.logprobs)
