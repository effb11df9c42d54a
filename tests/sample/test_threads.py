"""What importing the package sets for torch's threads."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "30000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_threads_wait_without_spinning_long(given: dict[str, str], expected: str) -> None:
    code = "import os, hydragen_tree; print(os.environ.get('GOMP_SPINCOUNT'))"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == expected
