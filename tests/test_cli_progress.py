"""What people see while a run goes on."""

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from hydragen_cli import progress
from hydragen_cli.console import count, duration, size
from hydragen_cli.progress import Progress, describe
from hydragen_tree.ledger import RunStats


def stats_of(done: int, elapsed_s: float = 10.0) -> RunStats:
    return RunStats(
        samples_total=1000,
        samples_done=done,
        samples_live=488,
        rows_live=321,
        tokens_sampled=12_345 * bool(done),
        started=time.perf_counter() - elapsed_s,
    )


def test_describe() -> None:
    assert describe(stats_of(250)) == "1,234 tokens/s, 321 rows for 488 samples, 30.0 s left"
    assert describe(stats_of(0)) == "computing the prompts"


@pytest.mark.parametrize("width", [60, 160])
def test_live_lines_fit(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    view = Progress(lambda: stats_of(250), 1_000, to_stdout=False, quiet=False)
    screen = Console(file=io.StringIO(), width=width, force_terminal=False)
    screen.print(view._render())
    assert isinstance(screen.file, io.StringIO)
    bar, figures = screen.file.getvalue().splitlines()
    assert bar.rstrip().endswith("1,250/2,000 samples")
    assert len(bar) <= min(width, 100)
    assert figures == "1,234 tokens/s, 321 rows for 488 samples, 30.0 s left"


def test_plain_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_INTERVAL_S", 0.01)
    with Progress(lambda: stats_of(250), 0, to_stdout=True, quiet=False):
        time.sleep(0.2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("250/1,000 samples, 1,234 tokens/s, 321 rows for 488 samples, 30.")
    with Progress(lambda: stats_of(250), 0, to_stdout=True, quiet=True):
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
