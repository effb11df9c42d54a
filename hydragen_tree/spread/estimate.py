"""What a run on many devices would take, before there are so many: time, memory, pieces, idle time.

The work list hands out pieces as in a run, to workers of one speed. One of them is followed through
its samples: its rows are full until nothing waits, and then they end one after the other, while
other workers have nothing left to give. That, and the time until weights are there, is what devices
are idle for.
"""

from dataclasses import asdict, dataclass

from hydragen_tree.sample.shard import sample_ranges
from hydragen_tree.spread.pace import Drawn, Pace, Share, tasks_below
from hydragen_tree.spread.work_list import WorkList, missing_samples
from hydragen_tree.trie.outline import Outline


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
class _Drawn(Drawn):
    """The worker with the most to do, and what all have together."""

    samples: int
    pieces: int
    prefill_tokens: int


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
    prefill = round(n_tasks * distinct)
    share = Share(
        samples=-(-work.n_samples // workers),
        max_tokens=max_tokens,
        max_rows=max_rows,
        held=tasks_below(max_rows, outline.n, len(ranges)) * distinct,
        prompt=outline.exact.n_prompt_tokens / len(outline.prompts),
        prefill=prefill / workers,
    )
    return _Drawn(
        **asdict(pace.draw(share)),
        samples=work.n_samples,
        pieces=pieces,
        prefill_tokens=prefill,
    )
