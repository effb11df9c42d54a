"""`hydragen check`: problems held against their own submissions."""

import json
from pathlib import Path

import pytest

from tests.forked import run_command
from tests.judge.test_eval import RIGHT, write_problems


@pytest.fixture(autouse=True)
def home(own_home: Path) -> Path:
    """A home of its own, with two problems."""
    write_problems(own_home)
    return own_home


def test_check_goes_on_past_what_cannot_be_read(home: Path) -> None:
    (home / "bad.yaml").write_text("id: [\n")
    ran = run_command("run", "check", "bad.yaml", "sum.yaml")
    assert ran.returncode == 2
    assert ran.stderr.count("bad.yaml") == 1
    assert "1 problem checked, all fit to grade with; 1 problem refused" in ran.stderr


def test_check(home: Path) -> None:
    ran = run_command("run", "check", "sum.yaml", "total.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "2 problems checked, all fit to grade with" in ran.stderr
    text = (home / "sum.yaml").read_text().replace('"print(3)"', f'"{RIGHT}"')
    (home / "sum.yaml").write_text(text)
    ran = run_command("run", "check", "sum.yaml", "--calibrate", "--json")
    assert ran.returncode == 1
    assert "sum.yaml: submission 1 (WA): expected WA, got AC" in ran.stderr
    [record] = map(json.loads, ran.stdout.splitlines())
    assert (record["id"], record["good"]) == ("sum", False)
    assert record["suggested_time_limit_s"] == 0.5


def test_check_refuses_what_cannot_be_judged(home: Path) -> None:
    """A checker that cannot be run here: the exit code of bad input, and its file named once."""
    (home / "odd.yaml").write_text(
        "statement: x\ntests: [{input: '1', output: '1'}]\n"
        "checker: {type: program, source: check.rs, protocol: kattis}\n"
    )
    (home / "check.rs").write_text("fn main() {}\n")
    for others in ([], ["sum.yaml"]):
        ran = run_command("run", "check", "odd.yaml", *others)
        assert ran.returncode == 2
        assert ran.stderr.count("odd.yaml") == 1
        assert "; 1 problem refused" in ran.stderr
        assert ("all fit" in ran.stderr) == bool(others)
