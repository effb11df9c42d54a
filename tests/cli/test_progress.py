"""What people see while a run goes on."""

import io
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from hydragen_cli import progress
from hydragen_cli.console import count, duration
from hydragen_cli.progress import Progress
from hydragen_tree.sample.records import RunStats
from hydragen_tree.sample.writer import SampleCounts
from hydragen_tree.spread.spread_sampler import WorkerState
from hydragen_tree.units import size

NOW_S = 1000.0


@pytest.fixture(autouse=True)
def _clock_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds and times left are exact, however busy the machine is."""
    monkeypatch.setattr("time.perf_counter", lambda: NOW_S)


def stats_of(done: int, elapsed_s: float = 10.0) -> RunStats:
    return RunStats(
        samples_total=1000,
        samples_done=done,
        samples_live=488,
        rows_live=321,
        tokens_sampled=20_000 * bool(done),
        started=NOW_S - elapsed_s,
    )


def progress_of(done: int, *, before: int = 0, quiet: bool = False) -> Progress:
    """A run that continues a file of `before` samples, each of 50 tokens, and has done `done`."""
    tally = SampleCounts()
    tally.samples, tally.tokens = before, 50 * before
    view = Progress(lambda: stats_of(done), tally, to_stdout=False, quiet=quiet)
    tally.samples, tally.tokens = before + done, 50 * (before + done)
    return view


@pytest.mark.parametrize("before", [0, 1000])
def test_time_left_counts_what_the_living_have_drawn(before: int) -> None:
    """750 samples of 50 tokens are to come, of which 7,500 tokens are drawn: 30,000 remain."""
    view = progress_of(250, before=before)
    expected = "2,000 tokens/s, 321 rows for 488 samples, 15.0 s left"
    assert view._describe(stats_of(250)) == expected


def test_before_there_is_much_to_say() -> None:
    assert progress_of(0)._describe(stats_of(0)) == "computing the prompts"
    drawing = replace(stats_of(1), samples_done=0)
    assert progress_of(0)._describe(drawing) == "2,000 tokens/s, 321 rows for 488 samples"


def test_time_left_when_short_samples_end_first() -> None:
    """One sample that has drawn 50,050 tokens, 999 of 50 tokens done: no sign of its end."""
    long_one = replace(stats_of(999), samples_live=1, tokens_sampled=100_000)
    assert progress_of(999)._describe(long_one).endswith(", 5.0 s left")
    waiting = replace(stats_of(500), samples_live=100, tokens_sampled=100_000)
    assert progress_of(500)._rest_s(waiting) == pytest.approx(9.5, rel=1e-3)  # 75,000 + 20,000


@pytest.mark.parametrize("width", [60, 160])
def test_live_lines_fit(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    view = progress_of(250, before=1000)
    screen = Console(file=io.StringIO(), width=width, force_terminal=False)
    screen.print(view._render())
    assert isinstance(screen.file, io.StringIO)
    bar, figures = screen.file.getvalue().splitlines()
    assert bar.rstrip().endswith("1,250/2,000 samples")
    assert len(bar) <= min(width, 100)
    assert figures == "2,000 tokens/s, 321 rows for 488 samples, 15.0 s left"


def test_a_live_line_for_each_worker() -> None:
    drawing = WorkerState("cuda:0", "drawing", stats_of(250), NOW_S - 10.0)
    lost = WorkerState("cuda:1", "lost", RunStats(samples_done=3))
    view = Progress(
        lambda: stats_of(250), SampleCounts(), workers=[drawing, lost], to_stdout=False, quiet=False
    )
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view._render())
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().splitlines()[2:] == [
        "cuda:0  2,000 tokens/s, 321 rows for 488 samples, 250 done",
        "cuda:1  lost, 3 done",
    ]


def test_plain_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_INTERVAL_S", 0.01)
    with progress_of(250):
        time.sleep(0.2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("250/1,000 samples, 2,000 tokens/s, 321 rows for 488 samples, 15.")
    with progress_of(250, quiet=True):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("render", "value", "text"),
    [
        (size, 812, "812 B"),
        (size, 1536, "1.5 KiB"),
        (size, 3 << 40, "3.0 TiB"),
        (duration, 4.21, "4.2 s"),
        (duration, 187, "3:07"),
        (duration, 7387, "2:03:07"),
        (lambda n: count(n, "leaf", "leaves"), 1, "1 leaf"),
        (lambda n: count(n, "leaf", "leaves"), 2000, "2,000 leaves"),
    ],
)
def test_figures(render: Callable[[float], str], value: float, text: str) -> None:
    assert render(value) == text
