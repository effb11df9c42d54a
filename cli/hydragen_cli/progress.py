"""How far a run has come: two live lines on a terminal, a plain line now and then elsewhere.

Where several workers draw, each has a live line of its own below.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING

from hydragen_cli.console import console, count, duration, note

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hydragen_tree.sample.records import RunStats
    from hydragen_tree.sample.writer import SampleCounts
    from hydragen_tree.spread.spread_sampler import WorkerState

_PLAIN_INTERVAL_S = 5.0
_WIDTH = 100
_LOADING = "loading the model"


class Progress:
    """Shows a run's figures while entered.

    Args:
        stats: reads the figures of now.
        tally: counts of what stands in the file, earlier sessions included.
        workers: where there are several, what is known of each, live.
        to_stdout: the samples go to stdout.
        quiet: show nothing.
    """

    def __init__(
        self,
        stats: "Callable[[], RunStats]",
        tally: "SampleCounts",
        *,
        workers: "Sequence[WorkerState]" = (),
        to_stdout: bool,
        quiet: bool,
    ) -> None:
        self._stats = stats
        self._workers = workers
        self._tally = tally
        self._before = (tally.samples, tally.tokens)
        self._to_stdout = to_stdout
        self._quiet = quiet
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> "Progress":
        if not self._quiet:
            self._stop = self._start_live() if _can_live(self._to_stdout) else self._start_plain()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _start_live(self) -> "Callable[[], None]":
        from rich.live import Live

        live = Live(
            get_renderable=self._render,
            console=console(),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )
        live.start()
        return live.stop

    def _start_plain(self) -> "Callable[[], None]":
        stopped = Event()

        def report() -> None:
            while not stopped.wait(_PLAIN_INTERVAL_S):
                for line in self._lines():
                    note(line)

        thread = Thread(target=report, daemon=True)
        thread.start()

        def stop() -> None:
            stopped.set()
            thread.join()

        return stop

    def _lines(self) -> Iterable[str]:
        """What is said now and then where there is no terminal."""
        stats = self._stats()
        done, total = self._done(stats)
        yield f"{done:,}/{total:,} samples, {self._describe(stats)}" if total else _LOADING

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        stats = self._stats()
        done, total = self._done(stats)
        if not total:
            return Text(_LOADING, style="dim")
        line = Table.grid(padding=(0, 1), expand=True)
        line.width = min(console().width, _WIDTH)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(ProgressBar(total=total, completed=done), f"{done:,}/{total:,} samples")
        below = [self._describe(stats), *self._worker_lines()]
        texts = (Text(each, style="dim", no_wrap=True, overflow="ellipsis") for each in below)
        return Group(line, *texts)

    def _done(self, stats: "RunStats") -> tuple[int, int]:
        before = self._before[0]
        return before + stats.samples_done, before + stats.samples_total

    def _describe(self, stats: "RunStats") -> str:
        """Speed, rows against samples, and time left."""
        if not stats.tokens_sampled:
            return "computing the prompts"
        speed = f"{stats.tokens_sampled / stats.elapsed_s:,.0f} tokens/s"
        rows = f"{count(stats.rows_live, 'row')} for {count(stats.samples_live, 'sample')}"
        if not self._tally.samples:
            return f"{speed}, {rows}"
        return f"{speed}, {rows}, {duration(self._rest_s(stats))} left"

    def _worker_lines(self) -> Iterator[str]:
        """What each worker does."""
        width = max((len(worker.name) for worker in self._workers), default=0)
        for worker in self._workers:
            doing, stats = str(worker.doing), worker.stats
            if worker.doing == "drawing" and stats.tokens_sampled:
                elapsed_s = time.perf_counter() - worker.started
                speed = f"{stats.tokens_sampled / elapsed_s:,.0f} tokens/s"
                rows = f"{count(stats.rows_live, 'row')} for {count(stats.samples_live, 'sample')}"
                doing = f"{speed}, {rows}"
            yield f"{worker.name:<{width}}  {doing}, {stats.samples_done:,} done"

    def _rest_s(self, stats: "RunStats") -> float:
        """Seconds left, if the samples that are not done become as long as those that are.

        Short samples end first, so the unfinished may have outgrown the finished already. Then the
        finished say little about them: they are taken to be half way.
        """
        usual = self._tally.tokens / self._tally.samples
        drawn = stats.tokens_sampled - (self._tally.tokens - self._before[1])  # of unfinished ones
        unfinished = stats.samples_total - stats.samples_done
        live = min(stats.samples_live, unfinished)
        of_live = live * usual - drawn
        rest = (unfinished - live) * usual + (of_live if of_live > 0 else drawn)
        return rest / stats.tokens_sampled * stats.elapsed_s


def _can_live(to_stdout: bool) -> bool:
    """A live display needs a terminal of its own: not one that the samples scroll over."""
    terminal = console()
    scrolls = to_stdout and sys.stdout.isatty()
    return terminal.is_terminal and not terminal.is_dumb_terminal and not scrolls
