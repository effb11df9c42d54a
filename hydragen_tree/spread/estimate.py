"""What a run on many devices would take, before there are so many: time, memory, pieces, idle time.

The work list hands out pieces as in a run, to workers of one speed. One of them is followed through
its samples: its rows are full until nothing waits, and then they end one after the other, while
other workers have nothing left to give. That, and the time until weights are there, is what devices
are idle for.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.sample.shard import sample_ranges
from hydragen_tree.spread.pace import Pace
from hydragen_tree.spread.work_list import WorkList, missing_samples
from hydragen_tree.trie.outline import Outline

_FOLLOWED = 100_000  # samples of a worker at the most; those before them are drawn at full speed


@dataclass(frozen=True, slots=True)
class Estimate:
    """A run on many devices.

    Attributes:
        workers: processes that draw, or groups of them.
        devices: that they have together.
        rows: of a worker's batch.
        samples: of the run.
        mean_tokens: of a sample.
        pieces: handed out in all.
        prefill_tokens: prompt tokens that all workers compute.
        start_s: until weights are there.
        draw_s: from then until the last sample has ended.
        one_draw_s: the same with one worker.
        idle_share: of the devices' time from the beginning, that without work.
        running_out_s: of `draw_s`, that in which no batch is full any more.
    """

    workers: int
    devices: int
    rows: int
    samples: int
    mean_tokens: float
    pieces: int
    prefill_tokens: int
    start_s: float
    draw_s: float
    one_draw_s: float
    idle_share: float
    running_out_s: float

    @property
    def total_s(self) -> float:
        """From the beginning to the last sample."""
        return self.start_s + self.draw_s

    @property
    def speed_up(self) -> float:
        """How many times as fast as one worker it is, loading included."""
        return (self.start_s + self.one_draw_s) / self.total_s


def estimate(
    outline: Outline, *, workers: int, max_tokens: int, max_rows: int, pace: Pace
) -> Estimate:
    """Estimates a run.

    Args:
        outline: its prompts, how many samples of each, and what prompts share.
        workers: how many draw.
        max_tokens: of a sample; without an earlier run to go by, they end halfway in the mean.
        max_rows: of a worker's batch.
        pace: of one worker.
    """
    many = _drawn(outline, workers, max_tokens, max_rows, pace)
    one = many if workers == 1 else _drawn(outline, 1, max_tokens, max_rows, pace)
    total_s = pace.start_s + many.seconds
    return Estimate(
        workers=workers,
        devices=workers * pace.ranks,
        rows=max_rows,
        samples=many.samples,
        mean_tokens=many.mean_tokens,
        pieces=many.pieces,
        prefill_tokens=many.prefill_tokens,
        start_s=pace.start_s,
        draw_s=many.seconds,
        one_draw_s=one.seconds,
        idle_share=1.0 - many.busy_s / total_s,
        running_out_s=many.running_out_s,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The worker with the most to do; `busy_s` is its time at full speed."""

    seconds: float
    busy_s: float
    running_out_s: float
    samples: int
    pieces: int
    prefill_tokens: int
    mean_tokens: float


def _drawn(outline: Outline, workers: int, max_tokens: int, max_rows: int, pace: Pace) -> _Drawn:
    tasks = [prompt.task_id for prompt in outline.prompts]
    ranges = sample_ranges(tasks, outline.n, None)
    work = WorkList(
        outline.prompts, ranges, workers=workers, max_tokens=max_tokens, max_rows=max_rows
    )
    work.add(missing_samples(ranges, {}))
    distinct = outline.exact.n_tokens / len(ranges)  # prompt tokens of a task, shared ones apart
    pieces, n_tasks = 0, 0
    while (piece := work.take()) is not None:
        pieces, n_tasks = pieces + 1, n_tasks + len(piece.indices)
    samples = -(-work.n_samples // workers)
    lengths = _lengths(samples, max_tokens, pace)
    steps = _rows_by_step(lengths[-_FOLLOWED:], max_rows) * pace.rows_a_token
    mean, tail = float(lengths.mean()), float(lengths.mean()) / 2
    # Depth-first, a batch is below so many of the tasks.
    below = min(max(1.0, max_rows / outline.n), len(ranges))
    own = below * distinct, outline.exact.n_prompt_tokens / len(outline.prompts), tail
    seconds = pace.step_s(steps, *own)
    full_s = float(pace.step_s(np.array([max_rows * pace.rows_a_token]), *own)[0])
    full_rate = max_rows * pace.rows_a_token / full_s
    before_s = float(lengths[:-_FOLLOWED].sum()) * pace.rows_a_token / full_rate
    prefill = round(n_tasks * distinct)
    prefill_s = pace.prefill_s(prefill / workers)
    is_full = steps >= max_rows * pace.rows_a_token * 0.999
    last_full = int(np.flatnonzero(is_full)[-1]) if is_full.any() else -1
    work_s = before_s + prefill_s + float(steps.sum()) / full_rate
    drawn_s = before_s + prefill_s + float(seconds.sum())
    return _Drawn(
        seconds=drawn_s,
        busy_s=min(work_s, drawn_s),
        running_out_s=float(seconds[last_full + 1 :].sum()),
        samples=work.n_samples,
        pieces=pieces,
        prefill_tokens=prefill,
        mean_tokens=mean,
    )


def _lengths(samples: int, max_tokens: int, pace: Pace) -> NDArray[np.int64]:
    """Tokens of so many samples: like those of an earlier run, or of any length alike."""
    rng = np.random.default_rng(0)
    if pace.lengths is None:
        return rng.integers(1, max_tokens + 1, samples)
    drawn: NDArray[np.int64] = np.minimum(rng.choice(pace.lengths, samples), max_tokens)
    return drawn


def _rows_by_step(lengths: NDArray[np.int64], max_rows: int) -> NDArray[np.float64]:
    """Rows of every step, where each sample takes the first row that is free."""
    free = [0] * min(max_rows, lengths.size)
    changes = np.zeros(int(lengths.sum()) // len(free) + int(lengths.max()) + 2, np.int64)
    for length in lengths.tolist():
        start = heapq.heappop(free)
        heapq.heappush(free, start + length)
        changes[start] += 1
        changes[start + length] -= 1
    return changes.cumsum()[: max(free)].astype(np.float64)
