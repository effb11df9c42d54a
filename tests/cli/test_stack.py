"""`hydragen stack`, and runs with part of what it writes."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hydragen_cli import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def hydragen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command in this process: exit code, and what was said."""
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.py").write_text("def add(a, b):\n    return a + b\n" * 20)
    (tmp_path / "p.jsonl").write_text('{"prompt": "def add(a, b):", "task_id": "add"}\n')

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", *arguments])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capfd.readouterr().err

    return run


def test_a_stack_is_made_and_drawn_from(hydragen: Run, random_model: Path, tmp_path: Path) -> None:
    make = "stack", str(random_model), "-o", "s", "--text", "text.py", "--device", "cpu"
    made = *make, "--rows", "2", "--row-tokens", "64", "--blocks", "3"
    code, said = hydragen(*made)
    assert code == 0
    assert "calibrating by 2 rows of 64 tokens" in said
    assert "s: 14 layers" in said
    assert hydragen(*made)[1].endswith("is not empty; name another directory, or use --force\n")
    assert hydragen(*made, "--force", "-q") == (0, "")
    draw = "sample", "--prompts", "p.jsonl", "--model", "s", "--max-tokens", "6", "-n", "3"
    draw = *draw, "--device", "cpu", "-o", "o.jsonl"
    code, said = hydragen(*draw, "--weights-memory", "150KB")
    assert code == 0
    assert "of 42 blocks, 14" in said
    assert "samples are not exactly the model's" in said
    manifest = json.loads((tmp_path / "o.jsonl.manifest.json").read_text())
    assert manifest["model"]["weights"].endswith(" of 42 blocks")
    code, said = hydragen(*draw, "--resume")
    assert code == 2
    assert "model.weights was" in said
    assert hydragen("plan", "--prompts", "p.jsonl", "--model", "s", "--explain")[0] == 0


def test_what_would_be_lost_is_refused(hydragen: Run, random_model: Path, tmp_path: Path) -> None:
    make = "stack", str(random_model), "--text", "text.py", "--device", "cpu"
    code, said = hydragen(*make, "-o", str(random_model), "--force")
    assert code == 2
    assert "is a file of the model" in said
    code, said = hydragen(*make, "-o", "text.py")
    assert code == 2
    assert "is a text" in said
    code, said = hydragen(*make, "-o", "new", "--row-tokens", "2000")
    assert code == 2
    assert "--text: expected at least 2000 tokens" in said
    assert not (tmp_path / "new").exists()
