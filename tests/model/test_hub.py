"""Models named by their hub id, without a network: from the local cache, or refused at once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "hydragen_tree" / "model" / "tiny"
COMMIT = "0" * 40


def sample(home: Path, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = "from hydragen_cli.main import run_sample; run_sample()"
    command = [sys.executable, "-c", program, "--prompts", "-", "-n", "2", "--max-tokens", "4"]
    # The hub is at a port where nobody listens.
    own = {"HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9", **environment}
    return subprocess.run(
        [*command, *args],
        env={**os.environ, **own},
        input=json.dumps({"prompt": "### Problem\n"}) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )


either = pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])


@either
def test_neither_cached_nor_to_be_had(tmp_path: Path, environment: dict[str, str]) -> None:
    ran = sample(tmp_path, "--model", "owner/name", **environment)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "--model owner/name: not in the local cache, and the hub cannot be asked" in ran.stderr
    assert "Traceback" not in ran.stderr


@either
def test_cached(tmp_path: Path, environment: dict[str, str]) -> None:
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    files = [path for path in TINY.iterdir() if path.suffix in (".json", ".safetensors")]
    snapshot = cached / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in files:
        shutil.copy(path, snapshot)
    ran = sample(tmp_path, "--model", "owner/name", **environment)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["sample_index"] for line in ran.stdout.splitlines()] == [0, 1]
