"""What a run sets for torch's threads, and when."""

import os
import subprocess
import sys

import pytest

SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"


def run(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "30000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
@pytest.mark.parametrize(
    "begin",
    [
        "import hydragen_tree; hydragen_tree.SamplingSettings",
        "import sys; sys.argv = ['hydragen', '--version']; import hydragen_cli.program as m\n"
        "sys.exit = print\nm._run(lambda: None, 'hydragen')",
    ],
    ids=["python", "command line"],
)
def test_threads_wait_without_spinning_long(
    begin: str, given: dict[str, str], expected: str
) -> None:
    assert run(f"{begin}\n{SHOW}", given).splitlines()[-1] == expected


def test_an_import_alone_changes_nothing() -> None:
    assert (
        run(f"import sys, hydragen_tree; assert 'torch' not in sys.modules\n{SHOW}", {}) == "None"
    )
