"""A stack beside rounding: the table, and what rounding is."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hydragen_bench import stack as stack_bench
from hydragen_bench.stack import GROUP, rounded
from hydragen_cli.main import run

PROBLEM = """\
id: sum
statement: Print the sum.
tests: [{input: "1 2", output: "3"}]
"""


@given(st.integers(1, 8), st.integers(1, 150), st.integers(0, 100))
def test_rounding_is_to_the_nearest(bits: int, columns: int, seed: int) -> None:
    weight = torch.randn(3, columns, generator=torch.Generator().manual_seed(seed))
    for part, near in zip(
        weight.split(GROUP, 1), rounded(weight, bits).split(GROUP, 1), strict=True
    ):
        least, most = part.aminmax(dim=1, keepdim=True)
        half_a_step = (most - least) / (2**bits - 1) / 2
        assert bool(((near - part).abs() <= 1.01 * half_a_step + 5e-3).all())
        assert all(len(row.unique()) <= 2**bits for row in near)


def hydragen(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["hydragen", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0)


def test_both_forms_are_compared_at_the_same_bytes(
    own_home: Path,
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stack_bench, "BITS", (3, 8))
    (own_home / "text").write_text("def add(a, b):\n    return a + b\n" * 80)
    (own_home / "sum.yaml").write_text(PROBLEM)
    stack = "stack", random_model, "-o", "s", "--text", "text", "--rows", 2, "--row-tokens", 64
    assert hydragen(monkeypatch, *stack, "--device", "cpu", "-q") == 0
    bench = "bench", "stack", "--model", random_model, "--stack", "s", "--text", "text"
    drawn = "--problem", "sum.yaml", "-n", 2, "--max-tokens", 4, "--temperatures", "0"
    assert hydragen(monkeypatch, *bench, *drawn, "-o", "figures.json") == 0
    rows = {row["form"]: row for row in json.loads(Path("figures.json").read_text())["rows"]}
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    assert rows["model"]["bits"] == 32  # as it is stored
    for bits in (3, 8):
        theirs, ours = rows[f"{bits} bits, rounded"], rows[f"{bits} bits, stack"]
        assert theirs["bits"] == pytest.approx(bits + 0.5, abs=0.01)
        assert 0.9 * theirs["n_bytes"] < ours["n_bytes"] <= theirs["n_bytes"]
    exact = rows["model"]["perplexity"]
    near = rows["8 bits, rounded"]["perplexity"]
    assert abs(near / exact - 1) < 0.05
    assert {row["solved"] for row in rows.values()} == {0.0}


def test_a_stack_and_text_are_needed(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hydragen(monkeypatch, "bench", "stack") == 2
    assert "--stack DIR --text FILE" in capsys.readouterr().err
    assert hydragen(monkeypatch, "bench", "cpu", "--stack", "s") == 2
    assert "only bench stack takes it" in capsys.readouterr().err
