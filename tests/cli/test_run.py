"""`hydragen run`: the view of a run, and what it refuses. What it draws: tests/solving."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from hydragen_cli.options import parse_seconds
from hydragen_cli.program import load
from hydragen_cli.run import _name_of
from hydragen_cli.run_view import RunView
from hydragen_tree.errors import InputError
from hydragen_tree.sample.records import RunStats
from hydragen_tree.sample.writer import SampleCounts
from hydragen_tree.solving.board import Board
from tests.judge.test_eval import write_problems


def view_of(problems: int, *, drawn: int, judged: int, n: int = 100) -> RunView:
    """Some problems, the first of which have `drawn` samples; every tenth verdict is AC."""
    board, tally = Board(f"problem-{p}" for p in range(problems)), SampleCounts()
    stats = RunStats(
        samples_total=n * problems,
        samples_live=60,
        rows_live=40,
        tokens_sampled=20_000,
        rows_computed=15_000,
        started=time.perf_counter() - 10,
    )
    view = RunView(lambda: stats, tally, board, lambda: n * problems, n, quiet=False)
    for _ in range(drawn):
        for problem in range(min(problems, 2)):
            board.drew(f"problem-{problem}")
            stats.samples_done += 1
            tally.samples, tally.tokens = tally.samples + 1, tally.tokens + 50
    for index in range(judged):
        verdict = "AC" if index % 10 == 9 else "WA"
        board.add({"task_id": "problem-0", "sample_index": index, "verdict": verdict})
    return view


def test_plain_lines_tell_of_the_solved_once() -> None:
    view = view_of(3, drawn=50, judged=20)
    solved, figures = view._lines()
    assert solved == "problem-0: solved, by sample 9"
    assert figures.startswith("100/300 samples, 20 judged, 1 of 3 problems solved, ")
    assert " tokens/s, 40 rows for 60 samples, 25% of rows saved, " in figures
    assert len([*view._lines()]) == 1


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("problems", [1, 60])
def test_the_view_fits(problems: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    screen = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
    screen.print(view_of(problems, drawn=50, judged=20)._render())
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 24
    (row,) = (line.split() for line in lines if "problem-0" in line)
    assert row == ["problem-0", "20", "2", "9"]
    if problems == 60:
        assert "more, 0 of them solved" in lines[-1]


def test_time_left_is_the_judges_where_it_is_behind() -> None:
    view = view_of(2, drawn=100, judged=20)  # all is drawn: 180 samples wait
    view._began = time.perf_counter() - 10
    assert view._left(None) == ["1:30 left"]
    assert view_of(2, drawn=100, judged=0)._left(None) == []


def test_time_left_in_rounds_is_at_most() -> None:
    """100 samples of 50 tokens are missing, 2,000 tokens a second; the budget may be less."""
    view = view_of(2, drawn=50, judged=50)
    view._in_rounds = True
    assert view._left(view._stats())[0].startswith("at most 2.5")
    view._budget_s = 10.0
    view._began = time.perf_counter() - 9
    assert view._left(view._stats()) == ["at most 1.0 s left"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("90 m", 5400), ("45s", 45), ("1.5", 1.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds("budget", text) == seconds


@pytest.mark.parametrize("text", ["", "0h", "h", "2d", "-1", "1m2h"])
def test_no_times(text: str) -> None:
    with pytest.raises(InputError, match="expected a time"):
        parse_seconds("budget", text)


@pytest.mark.parametrize(
    ("problems", "model", "name"),
    [
        (["problems/"], "tiny", "problems-tiny"),
        (["sets/HumanEval.jsonl.gz"], "Qwen/Qwen2.5-Coder-7B", "HumanEval-Qwen2.5-Coder-7B"),
        (["set/a.yaml", "set/b.yaml"], "models/a b.gguf", "set-a-b"),
        (["-"], "tiny", "stdin-tiny"),
    ],
)
def test_the_usual_name_of_a_run(problems: list[str], model: str, name: str) -> None:
    assert _name_of(problems, model) == name


def test_bad_input_leaves_nothing_behind(own_home: Path) -> None:
    write_problems(own_home)
    (own_home / "file").write_text("")
    for args, message in [
        (["sum.yaml", "-o", "file"], "output file: is no folder"),
        (["nowhere.yaml"], "no such file or directory"),
        (["sum.yaml", "--model", "nowhere"], "nowhere"),
        (["sum.yaml", "--until-solved", "0"], "until_solved 0"),
        (["sum.yaml", "--until-width", "2"], "between 0 and 1"),
        (["sum.yaml", "--until-width", "0.1", "--until-solved", "1"], "choose one"),
        (["sum.yaml", "--budget", "soon"], "expected a time"),
        (["sum.yaml", "-k", "0"], "expected integers"),
        (["sum.yaml", "-o", ".", "--language", "cobol"], "cobol"),
    ]:
        with pytest.raises(InputError, match=message):
            load("run").main(args, standalone_mode=False)
    assert not [*(own_home / "runs").glob("*")]


def test_refused_records_make_it_partial(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set is imported into the folder; what cannot be is named, and the exit code is 3."""
    record = {
        "task_id": "HumanEval/0",
        "prompt": "def one():\n",
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
        "entry_point": "one",
    }
    records = [record, {"of": "no known kind"}]
    (own_home / "set.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    args = ["set.jsonl", "-n", "2", "--max-tokens", "4", "--no-cache"]
    assert load("run").main(args, standalone_mode=False) == 3
    assert "set.jsonl:2" in capsys.readouterr().err
    folder = own_home / "runs" / "set-tiny"
    assert (folder / "problems" / "humaneval-0.yaml").is_file()
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 2
