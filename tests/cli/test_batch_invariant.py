"""`--batch-invariant` on the command line: the same lines in any batch, kept in the manifest."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli import main
from hydragen_kernels import ordered_layers

Sample = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(
    ordered_layers.why_unavailable() is not None, reason="no C compiler"
)
RUN = ["--max-tokens", "12", "--dtype", "bfloat16", "--device", "cpu", "--logprobs"]


@pytest.fixture
def prompts(own_home: Path) -> str:
    texts = ("# Read a number n.\n", "# Read a number n. Print it.\n")
    file = own_home / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return file.name


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Sample:
    """Runs `hydragen sample ARGS` in this process; returns the exit code and what was said."""

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", "sample", *RUN, *args])
        with pytest.raises(SystemExit) as caught:
            main.run()
        return int(caught.value.code or 0), capfd.readouterr().err

    return run


def lines(file: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(found, key=lambda line: (line["task_id"], line["sample_index"]))


def test_the_same_lines_in_any_batch_and_a_mode_of_the_run(
    sample: Sample, prompts: str, own_home: Path
) -> None:
    args = ["--prompts", prompts, "-n", "5", "--batch-invariant"]
    code, said = sample(*args, "-o", "usual.jsonl")
    assert code == 0, said
    assert "batch-invariant" in said
    manifest = json.loads((own_home / "usual.jsonl.manifest.json").read_text())
    assert manifest["model"]["batch_invariant"] == "true"
    assert manifest["repeats"].startswith("every sample and log-probability, bit for bit")

    first = ["-o", "other.jsonl", "--max-rows", "2", "--memory", "200KB"]
    assert sample(*args[:2], "-n", "2", args[4], *first)[0] == 0
    code, said = sample(*args, *first, "--resume")
    assert code == 0, said
    assert lines(own_home / "other.jsonl") == lines(own_home / "usual.jsonl")

    before = (own_home / "usual.jsonl").read_bytes()
    code, said = sample(*args[:-1], "-o", "usual.jsonl", "--resume")
    assert code == 2
    assert 'model.batch_invariant was "true", is absent' in said
    assert (own_home / "usual.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--kv-dtype=fp8", "--batch-invariant: its attention: reads numbers of 32 and 16 bits"),
        ("--attention=torch", "--batch-invariant: attention torch sums in an order that its batch"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    option: str, why: str, sample: Sample, prompts: str
) -> None:
    code, said = sample("--prompts", prompts, "--batch-invariant", option)
    assert code == 2
    assert why in said
