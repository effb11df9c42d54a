"""What a run sets for torch's threads, and when."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hydragen_tree import threads

SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"


def run(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "30000|300"),  # as busy as the machine is
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
    assert re.fullmatch(expected, run(f"{begin}\n{SHOW}", given).splitlines()[-1])


@pytest.mark.parametrize(
    ("said", "is_busy"),
    [
        (
            "some avg10=0.31 avg60=80.00 total=5\nfull avg10=99.00 avg60=0 total=0",
            False,
        ),
        ("some avg10=47.31 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0 total=0", True),
        ("", False),
        ("some", False),
        (None, False),
    ],
)
def test_a_machine_is_busy_where_tasks_have_waited(
    said: str | None, is_busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu"
    if said is not None:
        file.write_text(said)
    monkeypatch.setattr(threads, "_PRESSURE", file)
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    threads.limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == ("300" if is_busy else "30000")


def test_an_import_alone_changes_nothing() -> None:
    assert (
        run(f"import sys, hydragen_tree; assert 'torch' not in sys.modules\n{SHOW}", {}) == "None"
    )
